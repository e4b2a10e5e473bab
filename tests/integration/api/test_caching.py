"""Caching: results that stand for runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestration import INPUTS, NO_CACHE, RUN_ID, TASK_SOURCE, flow, task, task_input_hash
from runners.base import TaskRunner


@pytest.fixture
def counted(tmp_path: Path) -> Any:
    """A function that notes each of its runs, and how often it ran."""
    notes = tmp_path / "notes"

    def work(x: Any, y: Any = 0) -> Any:
        with notes.open("a") as file:
            file.write("x")
        return (x, y)

    work.runs = lambda: len(notes.read_text()) if notes.exists() else 0  # type: ignore[attr-defined]
    return work


def test_inputs(runner: TaskRunner, record: Any, counted: Any) -> None:
    """Equal inputs are run once, also over runs; the state is Completed, named Cached."""
    cached = task(name="work", cache_policy=INPUTS)(counted)

    @flow(task_runner=runner)
    def main() -> Any:
        first = cached.submit([1], y={"k": 2})
        first.wait()
        again = cached.submit([1], y={"k": 2})
        return first.result(), again.result(), cached.submit([2]).result(), again.state.name

    assert main() == (([1], {"k": 2}), ([1], {"k": 2}), ([2], 0), "Cached")
    assert main()[3] == "Cached"
    assert counted.runs() == 2
    assert {row.state_name for row in record.task_runs()} <= {"Cached"}
    assert record.counts() == {"Completed": 3}


def test_maps(runner: TaskRunner, counted: Any) -> None:
    """Items of maps are cached one by one."""
    cached = task(name="work", cache_policy=INPUTS)(counted)

    @flow(task_runner=runner)
    def main(n: int) -> Any:
        return cached.map(range(n))

    assert main(3) == [(n, 0) for n in range(3)]
    assert main(5) == [(n, 0) for n in range(5)]
    assert counted.runs() == 5


def test_policies_of_a_run(local_runner: TaskRunner, counted: Any) -> None:
    """Policies can be put together: with RUN_ID a result is good for its run only."""
    cached = task(name="work", cache_policy=INPUTS + RUN_ID + TASK_SOURCE)(counted)

    @flow(task_runner=local_runner)
    def main() -> Any:
        cached.submit(1).wait()
        return cached.submit(1).state.name if cached.submit(1).wait() else None

    main()
    main()
    assert counted.runs() == 2


def test_leaving_out_inputs(local_runner: TaskRunner, counted: Any) -> None:
    """`INPUTS - "y"` does not look at y."""
    cached = task(name="work", cache_policy=INPUTS - "y")(counted)

    @flow(task_runner=local_runner)
    def main() -> Any:
        return cached.submit(1, y=1).result(), cached.submit(1, y=2).result()

    assert main() == ((1, 1), (1, 1))


def test_key_functions(local_runner: TaskRunner, counted: Any) -> None:
    """A key function decides; None means not to cache; `task_input_hash` is one."""
    keyed = task(name="work", cache_key_fn=lambda context, parameters: str(parameters["x"]) or None)(counted)
    hashed = task(name="other", cache_key_fn=task_input_hash)(counted)

    @flow(task_runner=local_runner)
    def main() -> None:
        for _ in range(2):
            keyed.submit("a").wait()
            keyed.submit("").wait()
            hashed.submit(1).wait()

    main()
    assert counted.runs() == 4


def test_refresh_expiry_and_no_cache(local_runner: TaskRunner, counted: Any) -> None:
    """A cache can be refreshed, expire, and be turned off."""
    cached = task(name="work", cache_policy=INPUTS)(counted)

    @flow(task_runner=local_runner)
    def main() -> None:
        cached.submit(1).wait()
        cached.with_options(refresh_cache=True).submit(1).wait()
        cached.with_options(cache_expiration=0.0).submit(1).wait()
        cached.with_options(cache_policy=NO_CACHE).submit(1).wait()
        cached.submit(1).wait()

    main()
    assert counted.runs() == 4


def test_failures_are_not_cached(local_runner: TaskRunner, tmp_path: Path) -> None:
    """A failure is no result: the next call runs."""
    marker = tmp_path / "marker"

    @task(cache_policy=INPUTS)
    def once() -> int:
        if not marker.exists():
            marker.touch()
            raise ValueError("first")
        return 1

    @flow(task_runner=local_runner)
    def main() -> Any:
        once.submit().wait()
        return once.submit()

    assert main() == 1
