"""Tasks that start tasks: submit, map, wait, as_completed, cancel and calls inside tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestration import as_completed, flow, task, wait
from orchestration.errors import CancelledRunError
from runners import DaskTaskRunner, RayTaskRunner
from runners.base import TaskRunner


@task
def double(x: int) -> int:
    return 2 * x


@task
def fail() -> None:
    raise ValueError("inner")


@task
def deep(n: int) -> int:
    return n if n == 0 else 1 + deep.submit(n - 1).result()


@task
def call_deep(n: int) -> int:
    return n if n == 0 else 1 + call_deep(n - 1)


def test_submit_and_map_inside_a_task(runner: TaskRunner, record: Any) -> None:
    """A task may submit and map; the record says whose children they are."""

    @task
    def outer(n: int) -> Any:
        first = double.map(range(n))
        second = double.map(first)
        return sum(second.result()) + double.submit(first[0]).result() + len(first)

    @flow(task_runner=runner)
    def main() -> Any:
        return outer.map([2, 3])

    assert main() == [4 + 2, 12 + 3]
    parents = {node.parent for node in record.nodes() if node.task_name == "double"}
    (outer_id,) = {node.node_id for node in record.nodes() if node.task_name == "outer"}
    assert parents == {(outer_id, 0), (outer_id, 1)}


@pytest.mark.slow
@pytest.mark.timeout(300)  # on Ray each level takes a process, and starting one takes a second or two
def test_fifty_deep(runner: TaskRunner) -> None:
    """Tasks that wait for tasks, 50 deep, need no more slots than there are."""

    @flow(task_runner=runner)
    def main() -> Any:
        return deep.submit(50)

    assert main() == 50


def test_calls_fifty_deep(local_runner: TaskRunner, record: Any) -> None:
    """Tasks that call tasks, 50 deep, are task runs of their own."""

    @flow(task_runner=local_runner)
    def main() -> Any:
        return call_deep.submit(50)

    assert main() == 50
    assert record.counts() == {"Completed": 51}


def test_calls_inside_tasks_on_workers(runner: TaskRunner, record: Any) -> None:
    """A task called inside a task runs where that runs, with its own retries, and raises what it raises."""

    @task
    def where() -> int:
        import os

        return os.getpid()

    @task
    def outer() -> Any:
        import os

        with pytest.raises(ValueError, match="inner"):
            fail.with_options(retries=1)()
        return where() == os.getpid(), call_deep(5), double(double.submit(1))

    @flow(task_runner=runner)
    def main() -> Any:
        return outer.submit()

    assert main() == (True, 5, 4)
    assert record.outcomes("fail") == ["FAILED", "FAILED"]


@pytest.mark.dask
@pytest.mark.parametrize("processes", [False, True])
def test_a_called_task_waits_for_others_on_one_slot(processes: bool) -> None:
    """The slot of whoever waits runs what it waits for, also where the wait is that of a call."""

    @task
    def outer() -> Any:
        return call_deep(3), double(double.submit(1)), calls_a_waiting_task()

    @task
    def calls_a_waiting_task() -> Any:
        return double.submit(2).result()

    one_slot = {"n_workers": 1, "threads_per_worker": 1, "processes": processes, "dashboard_address": None}

    @flow(task_runner=DaskTaskRunner(cluster_kwargs=one_slot))
    def main() -> Any:
        return outer.submit()

    assert main() == (3, 4, 4)


@pytest.fixture(
    params=[pytest.param("dask", marks=pytest.mark.dask), pytest.param("ray", marks=pytest.mark.ray)]
)
def deadly_runner(request: pytest.FixtureRequest) -> TaskRunner:
    """One whose workers may be killed: those of the shared Dask would be away when the next test needs both."""
    if request.param == "dask":
        return DaskTaskRunner(
            cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        )
    request.getfixturevalue("ray_session")
    return RayTaskRunner()


def test_a_worker_dies_in_a_called_task(deadly_runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """The caller runs again and calls anew; what the dead worker was to run has ended, and nobody waits for it."""

    @task
    def dies_once() -> int:
        import os

        try:
            (tmp_path / "died").touch(exist_ok=False)
        except FileExistsError:
            return 7
        return os._exit(3)

    @task
    def between() -> int:
        return dies_once()

    @task
    def outer() -> int:
        return between() + 1

    @flow(task_runner=deadly_runner)
    def main() -> Any:
        return outer.submit()

    assert main() == 8
    assert record.states("dies_once") == record.states("between") == ["Crashed", "Completed"]
    assert record.states("outer") == ["Completed"]


def test_wait_and_as_completed_inside_a_task(runner: TaskRunner) -> None:
    """`wait` and `as_completed` work inside tasks."""

    @task
    def outer() -> Any:
        futures = [double.submit(n) for n in range(5)] + [fail.submit()]
        got = sorted(f.result() for f in as_completed(futures, timeout=60) if f.state.is_completed())
        return got, len(wait(futures, timeout=60).done)

    @flow(task_runner=runner)
    def main() -> Any:
        return outer.submit()

    assert main() == ([0, 2, 4, 6, 8], 6)


def test_failures_inside_a_task(runner: TaskRunner) -> None:
    """The exception of an inner task is raised by its future, and fails the outer one if not caught."""

    @task
    def outer(catch: bool) -> str:
        future = fail.submit()
        if catch:
            assert isinstance(future.exception(), ValueError)
            return str(future.state.type)
        return future.result()

    @flow(task_runner=runner)
    def main() -> Any:
        bad = outer.submit(False)
        assert outer.submit(True).result() == "Failed"
        bad.result()

    with pytest.raises(ValueError, match="inner"):
        main()


def test_cancel_inside_a_task(parallel_runner: TaskRunner, tmp_path: Path) -> None:
    """A task may cancel what it has submitted."""

    @task
    def hold() -> None:
        import time

        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.005)

    @task
    def outer() -> Any:
        future = hold.submit()
        assert not future.wait(0.05)
        future.cancel()
        try:
            future.result(timeout=30)
        except CancelledRunError:
            return future.state.type

    @flow(task_runner=parallel_runner)
    def main() -> Any:
        return outer.submit()

    assert main() == "Cancelled"


def test_futures_that_are_returned_from_tasks(runner: TaskRunner) -> None:
    """A task that returns a future of a task that it submitted hands it on; it can be asked in the flow."""

    @task
    def outer() -> Any:
        return [double.submit(3)]

    @flow(task_runner=runner)
    def main() -> Any:
        (future,) = outer.submit().result()
        return future.result()

    assert main() == 6


def test_inner_tasks_outlive_the_outer(runner: TaskRunner, record: Any) -> None:
    """What a task has submitted and not waited for is still waited for by the run."""

    @task
    def outer() -> str:
        double.map(range(5))
        return "gone"

    @flow(task_runner=runner)
    def main() -> Any:
        return outer.submit()

    assert main() == "gone"
    assert record.counts() == {"Completed": 6}


def test_maps_of_tasks_that_map(runner: TaskRunner) -> None:
    """Many tasks that all wait for maps of their own do not block each other."""

    @task
    def outer(n: int) -> int:
        return sum(double.map(range(n)).result())

    @flow(task_runner=runner)
    def main() -> Any:
        return outer.map([3] * 12)

    assert main() == [6] * 12
