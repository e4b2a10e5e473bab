"""Hooks of tasks and flows."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration import Skip, flow, runtime, task
from orchestration.errors import UserError
from runners.base import TaskRunner

KINDS = ("on_running", "on_completion", "on_failure", "on_retry", "on_crashed", "on_cancellation")


def hooked(seen: list[Any], **options: Any) -> Any:
    """A task whose hooks note what they are told."""

    @task(**options)
    def act(how: str) -> str:
        if how == "skip":
            raise Skip("no")
        if how == "retry" and runtime.task_run.attempt == 1:
            raise ValueError("again")
        if how == "fail":
            raise ValueError("bad")
        return how

    def noting(kind: str) -> Any:
        return lambda task, task_run, state: seen.append((kind, task_run.index, task_run.attempt, state.type))

    return act.with_options(**{kind: [noting(kind)] for kind in KINDS})


def test_hooks_of_tasks(runner: TaskRunner) -> None:
    """Hooks are called with task, task run and state, in the order of events, before the run is over."""
    seen: list[Any] = []
    act = hooked(seen, retries=1)

    @flow(task_runner=runner)
    def main() -> None:
        act.map(["ok", "skip", "retry", "fail"])

    main()
    of = {index: [(s[0], s[2], s[3]) for s in seen if s[1] == index] for index in range(4)}
    assert of[0] == [("on_running", 1, "Running"), ("on_completion", 1, "Completed")]
    assert of[1] == [("on_running", 1, "Running"), ("on_completion", 1, "Skipped")]
    assert of[2] == [
        ("on_running", 1, "Running"),
        ("on_retry", 1, "AwaitingRetry"),
        ("on_running", 2, "Running"),
        ("on_completion", 2, "Completed"),
    ]
    assert [kind for kind, *_ in of[3]] == ["on_running", "on_retry", "on_running", "on_failure"]


def test_hooks_added_by_decorators(runner: TaskRunner) -> None:
    """`@fetch.on_failure` adds a hook to a task, `@main.on_completion` to a flow; copies have their own."""
    seen: list[str] = []

    @task(on_completion=None)
    def act(x: int) -> float:
        return 1 / x

    other = act.with_options(name="other")

    @act.on_completion
    def done(task: Any, task_run: Any, state: Any) -> None:
        seen.append(f"{task.name} {state.name}")

    act.on_failure(done)

    @flow(task_runner=runner)
    def main() -> None:
        for each in (act, other, act.with_options(name="copy")):
            each.submit(1).wait()
        act.submit(0).wait()

    @main.on_completion
    async def ended(flow: Any, flow_run: Any, state: Any) -> None:
        seen.append(f"{flow.name} {state.name}")

    main()
    assert sorted(seen) == ["act Completed", "act Failed", "copy Completed", "main Completed"]
    assert callable(ended)
    assert done.__name__ == "done"
    with pytest.raises(UserError, match="a hook is 5; it must be a function"):
        act.on_completion(5)  # type: ignore[type-var]


def test_a_hook_that_exits_stops_nothing(local_runner: TaskRunner) -> None:
    """`sys.exit` in a hook is logged like other errors: it ends neither the run nor the hooks that come after it."""
    seen: list[str] = []

    def leaves(owner: Any, run: Any, state: Any) -> None:
        raise SystemExit(3)

    def notes(owner: Any, run: Any, state: Any) -> None:
        seen.append(owner.name)

    @task(on_completion=[leaves, notes])
    def act() -> int:
        return 1

    @flow(task_runner=local_runner, on_running=[leaves, notes], on_completion=[leaves, notes])
    def main() -> Any:
        return act.submit()

    assert main() == 1
    assert sorted(seen) == ["act", "main", "main"]


def test_hooks_get_what_they_need(runner: TaskRunner) -> None:
    """A hook can read the task's name, the task run's id, and the result or exception from the state."""
    seen: list[Any] = []

    def note(task: Any, task_run: Any, state: Any) -> None:
        seen.append((task.name, task_run.task_name, task_run.id, state.result(raise_on_failure=False)))

    @task(on_completion=[note], on_failure=[note])
    def act(x: int) -> float:
        return 1 / x

    @flow(task_runner=runner)
    def main() -> str:
        act.submit(1)
        act.submit(0)
        return str(runtime.flow_run.id)

    run_id = main()
    seen.sort(key=lambda row: row[2])
    assert seen[0] == ("act", "act", f"{run_id}/0/0", 1.0)
    assert seen[1][2] == f"{run_id}/1/0"
    assert isinstance(seen[1][3], ZeroDivisionError)


def test_a_raising_hook_stops_nothing(runner: TaskRunner) -> None:
    """A hook that raises is logged; the other hooks are called and the run goes on."""
    seen: list[str] = []

    def breaks(*args: Any) -> None:
        raise RuntimeError("hook")

    @task(on_completion=[breaks, lambda *args: seen.append("task")])
    def act() -> int:
        return 1

    @flow(
        task_runner=runner,
        on_running=[breaks],
        on_completion=[breaks, lambda *args: seen.append("flow")],
    )
    def main() -> Any:
        return act.submit()

    assert main() == 1
    assert sorted(seen) == ["flow", "task"]


def test_hooks_of_flows(local_runner: TaskRunner) -> None:
    """A flow's hooks get flow, flow run and state."""
    seen: list[Any] = []

    def noting(kind: str) -> Any:
        return lambda flow, flow_run, state: seen.append((kind, flow.name, flow_run.flow_name, state.type))

    kinds = [kind for kind in KINDS if kind != "on_retry"]

    @flow(task_runner=local_runner, **{kind: [noting(kind)] for kind in kinds})
    def main(fail: bool) -> str:
        if fail:
            raise ValueError("x")
        return "y"

    main(False)
    with pytest.raises(ValueError, match="x"):
        main(True)
    assert seen == [
        ("on_running", "main", "main", "Running"),
        ("on_completion", "main", "main", "Completed"),
        ("on_running", "main", "main", "Running"),
        ("on_failure", "main", "main", "Failed"),
    ]


def test_hooks_of_cancelled_and_never_run_tasks(parallel_runner: TaskRunner, until: Any) -> None:
    """Cancelled task runs call on_cancellation; those whose upstream failed call on_failure."""
    seen: list[Any] = []
    act = hooked(seen)

    @flow(task_runner=parallel_runner)
    def main() -> None:
        bad = act.submit("fail")
        act.submit(bad).wait()
        held = act.with_options(retries=1, retry_delay_seconds=60).submit("retry")
        until(lambda: held.state == "AwaitingRetry")
        later = act.submit(held)
        later.cancel()
        later.wait()
        held.cancel()

    main()
    assert ("on_failure", 0, 0, "UpstreamFailed") in seen
    assert sum(row[0] == "on_cancellation" for row in seen) == 2


def test_async_hooks(local_runner: TaskRunner) -> None:
    """A hook may be an async function."""
    seen: list[str] = []

    async def note(task: Any, task_run: Any, state: Any) -> None:
        seen.append(state.type)

    @task(on_completion=[note])
    def act() -> int:
        return 1

    @flow(task_runner=local_runner, on_completion=[note])
    def main() -> Any:
        return act.submit()

    assert main() == 1
    assert seen == ["Completed", "Completed"]
