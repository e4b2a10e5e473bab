"""Many task runs: right results and a right record, within seconds and without a warning."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration import as_completed, flow, task, unmapped
from runners.base import TaskRunner

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def no_warning(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is warned of, neither by `warnings` nor in the log."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    ours = [w for w in caught if "millrace" in str(w.filename) or "distributed" in str(w.filename)]
    assert not ours, [str(w.message) for w in ours]
    loud = [r for r in caplog.records if r.levelno >= 30 and r.name.startswith(("millrace", "distributed"))]
    assert not loud, [r.getMessage() for r in loud]


@task
def add(x: int, y: int = 1) -> int:
    return x + y


@task
def total(values: list[int]) -> int:
    return sum(values)


@task
def unlucky(n: int) -> int:
    if n % 1000 == 7:
        raise ValueError(n)
    return n


def test_a_hundred_thousand_in_one_map(runner: TaskRunner, record: Any) -> None:
    """100,000 items in one map: results, states, counts and attempts are all there."""
    n = 100_000

    @flow(task_runner=runner)
    def main() -> Any:
        return add.map(range(n))

    assert main() == list(range(1, n + 1))
    run = record.run()
    assert record.counts() == {"Completed": n}
    assert sum(run.counts) == n
    rows = record.task_runs()
    assert [row.index for row in rows] == list(range(n))
    assert {row.attempts for row in rows} == {1}
    assert all(row.worker and row.started for row in rows)


def test_map_of_map_of_map(runner: TaskRunner, record: Any) -> None:
    """20,000 x 3 in a map of a map of a map."""
    n = 20_000

    @flow(task_runner=runner)
    def main() -> Any:
        return add.map(add.map(add.map(range(n)), 10), unmapped(100))

    assert main() == [k + 111 for k in range(n)]
    assert record.counts() == {"Completed": 3 * n}
    assert [node.width for node in record.nodes()] == [n, n, n]


def test_fan_in(runner: TaskRunner, record: Any) -> None:
    """One task takes 100,000 results."""
    n = 100_000

    @flow(task_runner=runner)
    def main() -> Any:
        return total.submit(add.map(range(n)))

    assert main() == n * (n + 1) // 2
    assert record.counts() == {"Completed": n + 1}


def test_failures_among_many(runner: TaskRunner, record: Any) -> None:
    """Failures among many items are where they belong, and what follows them as well."""
    n = 10_000

    @flow(task_runner=runner)
    def main() -> Any:
        first = unlucky.map(range(n))
        second = add.map(first)
        second.wait()
        return first.states.counts, second.states.counts

    first, second = main()
    assert first == {"Completed": n - 10, "Failed": 10}
    assert second == {"Completed": n - 10, "UpstreamFailed": 10}
    failed = [row.index for row in record.task_runs("unlucky") if row.state.title == "Failed"]
    assert failed == list(range(7, n, 1000))


def test_as_completed_over_many(local_runner: TaskRunner) -> None:
    """`as_completed` over 20,000 futures takes time in proportion to their number."""
    n = 20_000

    @flow(task_runner=local_runner)
    def main() -> Any:
        return sum(future.index for future in as_completed(add.map(range(n))))

    began = time.monotonic()
    assert main() == n * (n - 1) // 2
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_long_chain(local_runner: TaskRunner, record: Any) -> None:
    """A chain of tasks does not deepen the stack, which has room for 1,000 calls; the simulation has one of 10,000."""
    n = 3_000

    @flow(task_runner=local_runner)
    def main() -> Any:
        future = add.submit(0)
        for _ in range(n - 1):
            future = add.submit(future)
        return future

    assert main() == n
    assert record.counts() == {"Completed": n}


def test_many_single_task_runs(runner: TaskRunner, record: Any) -> None:
    """A thousand separate submits."""
    n = 1_000

    @flow(task_runner=runner)
    def main() -> Any:
        return [add.submit(k) for k in range(n)]

    assert main() == list(range(1, n + 1))
    assert record.counts() == {"Completed": n}
