"""What goes wrong: values that cannot travel, exits of all kinds, options that mean nothing, lost engines."""

from __future__ import annotations

import os
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from orchestration import flow, task
from orchestration.errors import BackendError, CrashedRunError, StoreUnreachableError, UserError
from runners import SequentialTaskRunner, ThreadPoolTaskRunner
from runners.base import TaskRunner
from runners.errors import RunnerOptionError, SerializationError
from runners.messages import RunnerFailed


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("has a lock")
        self.lock = threading.Lock()


class Awkward(Exception):
    """Needs two arguments and passes on one: it pickles, and does not unpickle."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


class Base(BaseException):
    pass


@task
def same(x: Any) -> Any:
    return x


@task
def leave(how: str) -> str:
    if how == "exit":
        raise SystemExit(3)
    if how == "keyboard":
        raise KeyboardInterrupt
    if how == "base":
        raise Base("own")
    if how == "unpicklable":
        raise Unpicklable
    if how == "awkward":
        raise Awkward(1, 2)
    return how


def test_arguments_that_cannot_be_pickled(process_runner: TaskRunner, record: Any) -> None:
    """The error names the task, the argument and the path in it; other task runs are not touched."""

    @flow(task_runner=process_runner)
    def main() -> Any:
        bad = same.submit({"a": [1, {"lock": threading.Lock()}]})
        good = same.submit(1)
        with pytest.raises(SerializationError, match=r"argument 'x'\['a'\]\[1\]\['lock'\].*task 'same'"):
            bad.result(timeout=30)
        return good

    assert main() == 1
    assert sorted(record.states()) == ["Completed", "Failed"]


def test_results_that_cannot_be_pickled(process_runner: TaskRunner) -> None:
    """A result that cannot leave its worker fails its own item and says what to do."""

    @task
    def make(n: int) -> Any:
        return threading.Lock() if n == 1 else n

    @flow(task_runner=process_runner)
    def main() -> Any:
        futures = make.map(range(3))
        with pytest.raises(SerializationError, match=r"cannot be pickled.*Return plain data"):
            futures[1].result(timeout=30)
        return futures[0].result(), futures[2].result()

    assert main() == (0, 2)


def test_live_objects_in_this_process(local_runner: TaskRunner) -> None:
    """In the runners of this process nothing has to be pickled."""
    lock = threading.Lock()

    @flow(task_runner=local_runner)
    def main() -> Any:
        return same.submit(lock).result() is lock

    assert main()


def test_exceptions_that_travel_with_difficulty(runner: TaskRunner) -> None:
    """An attribute that cannot be pickled, an `__init__` that takes something else: they are what `except` asks for."""

    @flow(task_runner=runner)
    def main() -> Any:
        errors = [leave.submit(how).exception() for how in ("unpicklable", "awkward")]
        return [(isinstance(e, Unpicklable | Awkward), str(e)) for e in errors]

    (one, first), (two, second) = main()
    assert one
    assert two
    assert "has a lock" in first
    assert "1 and 2" in second


def test_exits_of_all_kinds(runner: TaskRunner, record: Any) -> None:
    """SystemExit, KeyboardInterrupt and other BaseExceptions fail their task run and nothing else."""

    @flow(task_runner=runner)
    def main() -> Any:
        futures = leave.map(["exit", "fine", "keyboard", "base", "fine"])
        futures.wait(60)
        return [state.type for state in futures.states]

    assert main() == ["Failed", "Completed", "Failed", "Failed", "Completed"]
    kinds = [row.detail.type_name.rpartition(".")[2] for row in record.task_runs() if row.detail]
    assert kinds == ["SystemExit", "KeyboardInterrupt", "Base"]


def test_exits_raise_as_themselves(runner: TaskRunner) -> None:
    """`result` raises a task's SystemExit as what it is."""

    @flow(task_runner=runner)
    def main() -> Any:
        with pytest.raises(SystemExit):
            leave.submit("exit").result()
        return "on"

    assert main() == "on"


@pytest.mark.slow
def test_os_exit_once(process_runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """A task that kills its worker once is run again, on its budget of losses and not of retries."""
    marker = tmp_path / "marker"

    @task
    def die_once(n: int) -> int:
        if n == 2 and not marker.exists():
            marker.touch()
            os._exit(1)
        return n

    @flow(task_runner=process_runner)
    def main() -> Any:
        return die_once.map(range(4))

    assert main() == [0, 1, 2, 3]
    lost = [
        row for row in record.attempts("die_once", 2) if row.outcome == 255 or "lost" in row.reason.lower()
    ]
    assert record.task_runs()[2].attempts >= 2 or lost


@pytest.mark.slow
def test_os_exit_always(process_runner: TaskRunner, record: Any) -> None:
    """A task that always kills its worker ends as Crashed; the others complete."""

    @task(retries_on_loss=1)
    def die(n: int) -> int:
        if n == 1:
            os._exit(1)
        return n

    @flow(task_runner=process_runner)
    def main() -> Any:
        futures = die.with_options(batch=1).map(range(3))
        with pytest.raises(CrashedRunError):
            futures[1].result(timeout=90)
        return futures[0].result(), futures[2].result()

    assert main() == (0, 2)
    assert record.states() == ["Completed", "Crashed", "Completed"]


def test_runner_options(runner: TaskRunner) -> None:
    """An option that the runner cannot honour is an error at submit."""

    @flow(task_runner=runner)
    def main() -> None:
        with pytest.raises(RunnerOptionError, match="'nonsense'"):
            same.with_options(runner_options={"nonsense": 1}).submit(1)
        with pytest.raises(RunnerOptionError):
            same.with_options(runner_options={"nonsense": 1}).map([1])

    main()


def test_submit_outside_a_flow() -> None:
    """`submit` and `map` outside a flow say where they belong."""
    with pytest.raises(UserError, match=r"same\.submit\(\) was called outside a flow"):
        same.submit(1)
    with pytest.raises(UserError, match=r"same\.map\(\) was called outside a flow"):
        same.map([1])


def test_submit_after_the_run(local_runner: TaskRunner) -> None:
    """A thread that submits after its run has ended gets an error and not a hang."""
    import contextvars

    kept: list[contextvars.Context] = []

    @flow(task_runner=local_runner)
    def main() -> None:
        kept.append(contextvars.copy_context())

    main()
    with pytest.raises(UserError, match="ended"):
        kept[0].run(same.submit, 1)


class FailingRunner(ThreadPoolTaskRunner):
    """Loses its engine at the first batch."""

    def submit(self, batches: Any) -> None:
        self._emit(RunnerFailed("the cluster is gone"))


class BrokenRunner(ThreadPoolTaskRunner):
    """Cannot be started."""

    def start(self, sink: Any) -> None:
        raise ConnectionError("nobody there")


class RaisingRunner(ThreadPoolTaskRunner):
    """Has a defect."""

    def submit(self, batches: Any) -> None:
        raise RuntimeError("defect")


@pytest.mark.parametrize("wait", [True, False])
def test_a_runner_that_fails(record: Any, wait: bool) -> None:
    """A run whose engine is gone ends as Crashed with the reason; nobody waits for ever."""

    @flow(task_runner=FailingRunner(2))
    def main() -> Any:
        futures = same.map(range(10))
        if wait:
            futures.result()

    state = main(return_state=True)
    assert state.is_crashed()
    assert "the cluster is gone" in state.message
    with pytest.raises(BackendError, match="the cluster is gone"):
        state.result()
    assert record.run().state.title == "Crashed"
    assert record.counts() == {"Crashed": 10}


def test_a_runner_that_cannot_start(record: Any) -> None:
    """A run whose runner cannot be started raises why, and is recorded as Crashed."""

    @flow(task_runner=BrokenRunner(2))
    def main() -> None:
        raise AssertionError("never runs")

    with pytest.raises(ConnectionError, match="nobody there"):
        main()
    row = record.run()
    assert row.state.title == "Crashed"
    assert "nobody there" in row.message


def test_a_runner_with_a_defect(record: Any) -> None:
    """A runner that raises ends the run with its error; nobody waits for ever."""

    @flow(task_runner=RaisingRunner(2))
    def main() -> Any:
        return same.submit(1).result()

    with pytest.raises(RuntimeError, match="defect"):
        main()
    assert record.run().state.title in ("Failed", "Crashed")


def test_unknown_runner() -> None:
    """A runner's name that is not known lists those that are."""

    @flow(task_runner="threds")
    def main() -> None:
        pass

    with pytest.raises(UserError, match="threads"):
        main()


def test_memory_store() -> None:
    """A flow runs without a file."""

    @flow(task_runner=SequentialTaskRunner(), store="memory")
    def main() -> Any:
        return same.map([1, 2])

    assert main() == [1, 2]


def test_a_store_that_is_not_there_is_told_in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user reads is where the flow was called and what to do, not how a database driver came to know."""
    monkeypatch.setenv("MILLRACE_STORE", "postgresql://nobody@127.0.0.1:1/none")

    @flow
    def any_flow() -> int:
        return 1

    with pytest.raises(StoreUnreachableError, match="cannot be reached") as raised:
        any_flow()
    told = "".join(traceback.format_exception(raised.value))
    assert "psycopg" not in told
    assert told.count("  File ") < 10
