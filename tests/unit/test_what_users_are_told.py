"""What users read where their own functions, arguments or runners are at fault."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration import Skip, flow, task
from orchestration.api.requests import check_call
from orchestration.api.running import _tell_missing
from orchestration.core.events import RunInterrupted
from orchestration.core.journal import LogWritten
from orchestration.core.records import Policy
from orchestration.core.states import State
from orchestration.driver.packing import NodePayload, Packer
from orchestration.errors import FlowRunFailedError, ParameterError, UpstreamFailedError, UserError
from orchestration.testing.handdriven import HandDriven
from runners import ThreadPoolTaskRunner
from runners.arguments import Column
from runners.body import TaskBody
from runners.context import RunContext
from runners.dask_connect import _check_address, _root, _why
from runners.errors import UserError as RunnersUserError
from runners.messages import Outcome
from runners.ray_session import _translated


@task
def same(x: Any) -> Any:
    return x


@task
def other(y: Any) -> Any:
    return y


def failing(**options: Any) -> Any:
    @task(**options)
    def bad(n: int) -> int:
        raise ValueError(f"bad {n}")

    return bad


def state_of(made: Any, *args: Any) -> Any:
    """Run a task in a flow; return its state."""

    @flow(store="memory", task_runner="sequential")
    def main() -> Any:
        future = made.submit(*args)
        future.wait()
        return {"state": [future.state.name, future.state.message]}

    return main()["state"]


def raising(*_: Any) -> bool:
    raise KeyError("oops")


def silent(*_: Any) -> None:
    """Forget to answer."""


async def late(*_: Any) -> bool:
    return True


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (raising, "retry_condition_fn raised KeyError: 'oops', so it is not tried again"),
        (silent, "retry_condition_fn returned a NoneType instead of True or False"),
        (lambda *_: late(), "retry_condition_fn returned a coroutine instead of True or False"),
    ],
)
def test_a_retry_condition_with_a_mistake_is_named(condition: Any, words: str) -> None:
    """The task run's state says why it was not tried again."""
    name, message = state_of(failing(retries=3, retry_condition_fn=condition), 3)
    assert name == "Failed"
    assert message.startswith("ValueError: bad 3 (its ")
    assert words in message


@pytest.mark.parametrize(
    ("trigger", "words"),
    [(raising, "raised KeyError: 'oops'"), (silent, "it returned None; a trigger returns True or False")],
)
def test_a_trigger_with_a_mistake_is_named(trigger: Any, words: str) -> None:
    """The task run never runs, and its error says whose fault that is."""

    @flow(store="memory", task_runner="sequential")
    def main() -> None:
        follower = same.with_options(trigger=trigger).submit(other.submit(1))
        with pytest.raises(UpstreamFailedError, match=words):
            follower.result()

    main()


def test_messages_of_states() -> None:
    """A failed task run's state has the exception with its type, a skipped one's the reason."""

    @task
    def skipping() -> None:
        raise Skip("nothing to do")

    assert state_of(failing(), 3) == ["Failed", "ValueError: bad 3"]
    assert state_of(skipping) == ["Skipped", "nothing to do"]
    assert state_of(same, 1) == ["Completed", ""]


def test_maps_over_nothing_are_empty_lists_wherever_they_are_returned() -> None:
    """No task run, no result: side by side, nested, and mapped over again."""

    @flow(store="memory", task_runner="sequential")
    def main() -> Any:
        return same.map([]), other.map([]), {"deep": [same.map(other.map([]))]}

    assert main() == ([], [], {"deep": [[]]})


def test_an_exit_in_a_task_keeps_its_cause() -> None:
    """SystemExit of a task must not end the flow's process, and is named and kept."""

    @task
    def leave() -> None:
        raise SystemExit(3)

    @flow(store="memory", task_runner="sequential")
    def main() -> Any:
        return leave.submit()

    with pytest.raises(FlowRunFailedError, match="1/1 task runs failed: SystemExit: 3") as caught:
        main()
    assert isinstance(caught.value.__cause__, SystemExit)


def test_a_delay_with_a_mistake_is_named() -> None:
    """The retry matters more than its delay, and the log of the attempt says that it had none."""
    told = []
    for delay in (raising, silent, lambda n: "soon", lambda n: float("nan")):
        run = HandDriven()
        node = run.add(policy=Policy(retries=1, delay=delay))
        run.end(Outcome.FAILED)
        lines = [(c.items, c.attempts, c.lines[0].message) for c in run.said if isinstance(c, LogWritten)]
        assert [line[:2] for line in lines] == [([0], [1])]
        assert run.core.nodes[node].state(0) is State.SUBMITTED
        told.append(lines[0][2])
    assert told[0] == "retry_delay_seconds raised KeyError: 'oops'; it is retried at once"
    assert set(told[1:]) == {
        "retry_delay_seconds returned what is no number of seconds; it is retried at once"
    }


def test_what_ran_when_the_runner_failed_has_the_runners_error() -> None:
    """Nobody has cancelled it: the backend is at fault."""
    run = HandDriven()
    node = run.add()
    run.start()
    run.tell(RunInterrupted("DaskTaskRunner: the connection broke", "orchestration.errors.BackendError"))
    assert run.core.nodes[node].details[0].type_name == "orchestration.errors.BackendError"


def test_what_cannot_be_pickled_is_named_by_its_place_in_the_map() -> None:
    """Which batch an item was in is nothing that a user knows."""
    packer = Packer(RunContext("r", "n", "f"), {}, in_process=False, keeps=True)
    values = [1, 2, {"a": [threading.Lock()]}, 3]
    packer.add(0, NodePayload(TaskBody(same.fn, "same"), (Column(values),), {}))
    command: Any = SimpleNamespace(node_id=0, indices=range(1, 4))
    assert packer.blame(command, TypeError()) == "item 2 of the map: argument 'x'['a'][0] (a lock)"


def test_unknown_keywords_are_named_before_what_is_missing() -> None:
    """A misspelt name is what has to be corrected, not the parameter that it leaves out."""

    @task
    def add(a: int, b: int) -> int:
        return a + b

    @flow(store="memory", task_runner="sequential")
    def main(day: str) -> None:
        with pytest.raises(ParameterError, match=r"task 'add' .*: got an unexpected keyword argument 'c'"):
            add.map([1, 2], c=3)

    main("monday")
    with pytest.raises(ParameterError, match=r"flow 'main' .*: got an unexpected keyword argument 'dya'"):
        main(dya="monday")


def test_calls_that_do_not_fit_are_refused_at_once() -> None:
    """However parameters may be given: counted where all are given by place, else bound."""

    def only(a: int, /) -> None: ...
    def some(a: int, b: int = 0) -> None: ...
    def many(a: int, *more: int) -> None: ...
    def key(a: int, *, b: int) -> None: ...
    def keys(a: int, *, b: int = 0, **more: int) -> None: ...

    calls: list[tuple[Callable[..., None], range, dict[str, int]]] = [  # which numbers of arguments fit
        (only, range(1, 2), {}),
        (some, range(1, 3), {}),
        (some, range(1, 2), {"b": 1}),
        (many, range(1, 5), {}),
        (key, range(0), {}),
        (key, range(1, 2), {"b": 1}),
        (keys, range(1, 2), {}),
        (keys, range(1, 2), {"c": 1}),
    ]
    for fn, fitting, named in calls:
        for n in range(5):
            with nullcontext() if n in fitting else pytest.raises(ParameterError):
                check_call(task(fn), range(n), named)


def test_parameters_that_cannot_travel_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody has to find out on a worker that a parameter is missing."""

    @flow
    def main(lock: Any, n: int) -> None: ...

    with caplog.at_level(logging.WARNING, "millrace"):
        _tell_missing(main, {"lock": threading.Lock(), "n": 1})
    assert len(caplog.records) == 1
    assert "parameter 'lock' of flow 'main' cannot be pickled" in caplog.text


@pytest.mark.parametrize("as_future", [True, False])
def test_what_is_waited_for_is_a_list(as_future: bool) -> None:
    """One future alone is a slip of the pen; None stands for nothing, as elsewhere."""

    @flow(store="memory", task_runner="sequential")
    def main() -> Any:
        first = same.submit(1)
        assert same.submit(2, wait_for=None).result() == 2
        assert same.map([2], wait_for=None).result() == [2]
        same.submit(2, wait_for=first if as_future else 5)

    with pytest.raises(
        UserError, match=r"^wait_for is .*; it must be a list of futures: wait_for=\[future\]$"
    ):
        main()


@pytest.mark.parametrize(
    ("runner", "told"),
    [
        ("no_such_module:Runner", "cannot be loaded: No module named 'no_such_module'. Before the colon"),
        ("json:Runner", "cannot be loaded: module 'json' has no attribute 'Runner'"),
        (
            "json:JSONDecoder",
            "'json:JSONDecoder' is <class .*>, which is no task runner class",
        ),
        (
            int,
            "task_runner of flow 'main' is <class 'int'>, which is no task runner. Give an instance or a class of",
        ),
    ],
)
def test_what_is_no_task_runner(runner: Any, told: str) -> None:
    @flow(store="memory")
    def main() -> None:
        pass

    with pytest.raises(UserError, match=told):
        main.with_options(task_runner=runner)()


@pytest.mark.parametrize("workers", [0, "4", 1.5])
def test_how_many_threads(workers: Any) -> None:
    with pytest.raises(RunnersUserError, match="needs a whole number from 1"):
        ThreadPoolTaskRunner(max_workers=workers)


def test_why_a_cluster_does_not_answer() -> None:
    """The innermost error tells it, without the objects that it came through."""
    error = OSError("Timed out")
    error.__cause__ = ConnectionError("in <Connector object at 0x1>: refused")
    error.__cause__.__cause__ = ConnectionRefusedError("refused")
    assert (_root(error), _root(TimeoutError())) == ("refused", "TimeoutError")


@pytest.mark.parametrize("address", ["host", "tcp://host", "tls://host:", "host:port", "tcp://:8786"])
def test_an_address_of_dask_without_a_port(address: str) -> None:
    with pytest.raises(RunnersUserError, match="write tcp://host:8786"):
        _check_address(address)
    for good in ("host:1", "tls://[::1]:8786", "inproc://10.0.0.1/2/3", "gateway://host/cluster"):
        _check_address(good)


def test_why_workers_of_dask_do_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They import the program, which has to be a file and must not start flows meanwhile."""
    script = tmp_path / "script.py"
    script.touch()
    for file, told in (
        (script, "it must not start flows"),
        (tmp_path / "<stdin>", "<stdin> is no file: write it"),
    ):
        monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(file)))
        assert told in _why()


def test_why_a_ray_of_our_own_does_not_start() -> None:
    """Nobody is sent to look whether it is up."""
    own = str(_translated(RuntimeError("too slow."), "Ray on this machine", own=True))
    assert own.startswith("Ray on this machine could not be started: too slow. Where the machine is busy")
    assert "ray status" in str(_translated(RuntimeError("away"), "Ray at 'host:1'"))
