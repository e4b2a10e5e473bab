"""`runtime.flow_run` and `runtime.task_run` inside tasks on every runner."""

from __future__ import annotations

from typing import Any

from orchestration import flow, runtime, tags, task
from runners.base import TaskRunner


def look() -> dict[str, Any]:
    run, item = runtime.flow_run, runtime.task_run
    return {
        "flow": (run.id, run.name, run.flow_name, dict(run.parameters or {}), run.parent_id),
        "task": (item.id, item.name, item.task_name, item.index, item.attempt),
        "tags": sorted(item.tags or ()),
        "parameters": dict(item.parameters or {}),
        "execution": item.execution_id,
    }


@task(tags={"own"})
def seen(x: int, y: int = 2) -> dict[str, Any]:
    return look()


@task
def around(x: int) -> Any:
    return seen(x), look(), seen.submit(x).result()


def test_inside_tasks(runner: TaskRunner) -> None:
    """A task sees its flow run, itself, its tags and its parameters."""

    @flow(task_runner=runner, flow_run_name="run of {x}")
    def main(x: int) -> Any:
        with tags("ambient"):
            return runtime.flow_run.id, seen.map([x, x + 1])

    run_id, (first, second) = main(5)
    assert first["flow"] == (run_id, "run of 5", "main", {"x": 5}, None)
    assert first["task"] == (f"{run_id}/0/0", "seen-0", "seen", 0, 1)
    assert second["task"][3] == 1
    assert first["tags"] == ["ambient", "own"]
    assert first["parameters"] == {"x": 5, "y": 2}
    assert second["parameters"] == {"x": 6, "y": 2}
    assert first["execution"]


def test_inside_nested_tasks(runner: TaskRunner) -> None:
    """A task inside a task sees itself while it runs, and the outer one is itself again after it."""

    @flow(task_runner=runner)
    def main() -> Any:
        return around.submit(3)

    called, outer, submitted = main()
    assert (called["task"][2], outer["task"][2], submitted["task"][2]) == ("seen", "around", "seen")
    assert len({called["task"][0], outer["task"][0], submitted["task"][0]}) == 3
    assert called["flow"] == outer["flow"] == submitted["flow"]


def test_inside_the_flow(local_runner: TaskRunner) -> None:
    """The flow function sees its run and no task run; outside of runs all is None."""

    @flow(task_runner=local_runner)
    def main(a: int = 1) -> Any:
        return look()

    view = main()
    assert view["flow"][2:4] == ("main", {"a": 1})
    assert view["task"] == (None,) * 5
    assert look()["flow"] == (None, None, None, {}, None)


def test_attempts(runner: TaskRunner) -> None:
    """The number of the attempt counts up with retries, and each has an execution id of its own."""

    @task(retries=2)
    def third(box: list[Any]) -> Any:
        if (runtime.task_run.attempt or 0) < 3:
            raise ValueError(runtime.task_run.execution_id)
        return runtime.task_run.attempt

    @flow(task_runner=runner)
    def main() -> Any:
        return third.submit([])

    assert main() == 3


def test_parameters_that_cannot_travel(process_runner: TaskRunner) -> None:
    """A flow parameter that cannot be pickled is left out of what tasks see, and breaks nothing."""
    import threading

    @flow(task_runner=process_runner)
    def main(lock: Any, n: int) -> Any:
        return seen.submit(n)

    assert main(threading.Lock(), 4)["flow"][3] == {"n": 4}
