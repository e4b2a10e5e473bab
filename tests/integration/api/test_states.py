"""The final state of a flow run, from what the function returned or raised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestration import State, flow, quote, task
from orchestration.errors import FlowRunFailedError
from runners.base import TaskRunner


@task
def act(how: str) -> str:
    if how == "fail":
        raise ValueError(how)
    return how


def test_data_means_completed(runner: TaskRunner, record: Any) -> None:
    """A flow that returns data is Completed, whatever became of task runs that it does not return."""

    @flow(task_runner=runner)
    def main() -> Any:
        act.submit("fail")
        return {"a": 1}

    state = main(return_state=True)
    assert isinstance(state, State)
    assert state.is_completed()
    assert state.result() == {"a": 1}
    assert record.run().state.title == "Completed"
    assert record.counts() == {"Failed": 1}


def test_raising_means_failed(runner: TaskRunner, record: Any) -> None:
    """A flow that raises is Failed; the record has the error."""

    @flow(task_runner=runner)
    def main() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError):
        main()
    state = main(return_state=True)
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), KeyError)
    row = record.run()
    assert row.state.title == "Failed"
    assert "KeyError" in row.message
    assert row.detail is not None
    assert row.detail.type_name == "KeyError"
    assert "raise KeyError" in row.detail.traceback


def test_returned_futures_become_results(runner: TaskRunner) -> None:
    """Futures in the return value are replaced by their results, at any depth."""

    @flow(task_runner=runner)
    def main() -> Any:
        many = act.map(["a", "b"])
        return {"one": act.submit("x"), "many": many, "mixed": (many[0], [1, act.submit("y")])}

    assert main() == {"one": "x", "many": ["a", "b"], "mixed": ("a", [1, "y"])}


def test_returned_failures_fail_the_run(runner: TaskRunner, record: Any) -> None:
    """A flow that returns futures is Failed if any did, says how many, and raises the first error."""

    @flow(task_runner=runner)
    def main() -> Any:
        return act.map(["fail", "ok", "fail"])

    state = main(return_state=True)
    assert state.is_failed()
    assert state.message == "2/3 task runs failed"
    assert record.run().message == "2/3 task runs failed"
    with pytest.raises(ValueError, match="fail"):
        main()


def test_returned_states(runner: TaskRunner) -> None:
    """States count like futures."""

    @flow(task_runner=runner)
    def main(how: str) -> Any:
        return [act.submit("ok", return_state=True), act(how, return_state=True)]

    assert main("fine") == ["ok", "fine"]
    state = main("fail", return_state=True)
    assert state.message == "1/2 task runs failed"


def test_futures_that_are_not_returned_are_waited_for(
    runner: TaskRunner, record: Any, tmp_path: Path
) -> None:
    """The run ends after all its task runs have."""
    done = tmp_path / "done"

    @task
    def slow() -> None:
        import time

        time.sleep(0.2)
        done.touch()

    @flow(task_runner=runner)
    def main() -> str:
        slow.submit()
        return "first"

    assert main() == "first"
    assert done.exists()
    assert record.counts() == {"Completed": 1}
    row, (last,) = record.run(), record.attempts("slow")
    assert row.ended >= last.started + last.seconds - 0.01


def test_task_runs_go_on_when_the_flow_raises(runner: TaskRunner, record: Any) -> None:
    """What was submitted before the flow raised is still waited for."""

    @flow(task_runner=runner)
    def main() -> None:
        act.map(["a", "b"])
        raise ValueError("after")

    with pytest.raises(ValueError, match="after"):
        main()
    assert record.counts() == {"Completed": 2}


def test_system_exit_in_a_flow(local_runner: TaskRunner, record: Any) -> None:
    """SystemExit ends the program as ever; the record says Crashed, not Running for ever."""

    @flow(task_runner=local_runner)
    def main() -> None:
        act.submit("ok")
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        main()
    assert record.run().state.title == "Crashed"


def test_empty_results(runner: TaskRunner) -> None:
    """None, empty lists and empty maps are results like others."""

    @flow(task_runner=runner)
    def main(what: Any) -> Any:
        return act.map([]) if what == "map" else what

    assert main(None) is None
    assert main([]) == []
    assert main("map") == []


def test_states_compare_with_their_names() -> None:
    """A State equals its type's and its own name."""
    state = State("Failed", "TimedOut", "too slow")
    assert state == "Failed"
    assert state == "TimedOut"
    assert state != "Completed"
    assert state == State("Failed", "TimedOut")
    assert state.is_final()
    assert not State("Running").is_final()


def test_what_fails_in_a_returned_map_is_counted(runner: TaskRunner, record: Any) -> None:
    """Lists of futures, slices of them and single futures, also nested, are judged together; skips are successes."""

    @flow(task_runner=runner)
    def main() -> Any:
        found = act.map(["a", "fail", "b", "c", "fail"])
        return {"all": [found, (found[2:],)], "first": found[0]}

    state = main(return_state=True)
    assert state.is_failed()
    assert state.message == "3/9 task runs failed"
    with pytest.raises(ValueError, match="fail"):
        state.result()


def test_returned_data_may_be_deep_and_contain_itself(runner: TaskRunner) -> None:
    """What is returned is searched for futures without recursion."""
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    loop: list[Any] = [1]
    loop.append(loop)

    @flow(task_runner=runner)
    def main() -> Any:
        return [deep, loop]

    assert main()[1] is loop


def test_futures_in_a_returned_dataclass(runner: TaskRunner) -> None:
    """Futures are found in dataclasses that a flow returns, as they are in arguments: they are judged, and replaced."""

    @dataclass
    class Report:
        parts: Any
        best: Any = None

    @flow(task_runner=runner)
    def main(how: str) -> Any:
        return {"report": Report([act.submit("a")], act.submit(how))}

    assert main("b") == {"report": Report(["a"], "b")}
    state = main("fail", return_state=True)
    assert (state.name, state.message) == ("Failed", "1/2 task runs failed")


def test_one_returned_state_is_the_runs_own(record: Any) -> None:
    """A flow that returns one State ends as that says, in its words."""

    @flow
    def main(state: Any) -> Any:
        return state

    ended = [
        main(quote(State(kind, message="in my words")), return_state=True)
        for kind in ("Completed", "Failed", "Cancelled")
    ]
    assert [(state.name, state.message) for state in ended] == [
        ("Completed", "in my words"),
        ("Failed", "in my words"),
        ("Cancelled", "in my words"),
    ]
    with pytest.raises(FlowRunFailedError, match="in my words"):
        ended[1].result()
    assert sorted(run.message for run in record.runs()) == ["in my words"] * 3
