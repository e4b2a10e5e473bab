"""Arrays from task to task: the same on every runner, by every path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestration import INPUTS, flow, task, unmapped
from runners import DaskTaskRunner, RayTaskRunner
from runners.base import TaskRunner

np = pytest.importorskip("numpy")

N = 3_000  # numbers in an array: 24 KB


@task
def make(n: int, writable: bool = True) -> Any:
    array = np.full(N, n)
    array.flags.writeable = writable
    return array


@task
def add_one(array: Any, writable: bool = True) -> int:
    """Write to an array if that is expected to be possible."""
    assert array.flags.writeable == writable
    if writable:
        array += 1
    return int(array[0])


@task
def add_to_all(arrays: Any, writable: bool) -> list[int]:
    return [add_one.fn(array, writable) for array in arrays]


both = pytest.mark.parametrize("writable", [True, False])


@both
def test_every_path(runner: TaskRunner, writable: bool) -> None:
    """What was writable at its maker is so for each reader, and what was read-only is not."""
    added = 1 if writable else 0

    @flow(task_runner=runner)
    def main() -> Any:
        mapped = make.map([0, 10, 20], unmapped(writable))
        mapped.wait()
        in_other_batches = add_one.map(mapped, unmapped(writable)).result()
        fan_in = add_to_all.submit(make.map([0, 10], unmapped(writable)), writable).result()
        given = [make.fn(n, writable) for n in (0, 10)]
        argument = add_one.submit(given[0], writable).result()
        argument_of_all = add_one.with_options(batch=1).map([given[1]], unmapped(writable)).result()
        here = make.submit(30, writable).result()
        assert here.flags.writeable == writable
        return in_other_batches, fan_in, argument, argument_of_all, int(here[0])

    assert main() == ([added, 10 + added, 20 + added], [added, 10 + added], added, [10 + added], 30)


@both
def test_whatever_shares_a_batch(runner: TaskRunner, writable: bool) -> None:
    """Of one map some stages share a batch and some do not, and nobody can tell which."""
    added = 1 if writable else 0

    @flow(task_runner=runner)
    def main() -> list[int]:
        return add_one.map(make.map(range(150), unmapped(writable)), unmapped(writable)).result()

    assert main() == [n + added for n in range(150)]


@both
def test_stored_and_cached(runner: TaskRunner, writable: bool, tmp_path: Path) -> None:
    """Also out of result storage, where nobody has the array in memory."""
    cached = make.with_options(cache_policy=INPUTS)
    added = 1 if writable else 0

    @flow(task_runner=runner, persist_results=True, result_storage=str(tmp_path))
    def main() -> tuple[list[int], list[int]]:
        arrays = cached.map([0, 10], unmapped(writable))
        readers = add_one.map(arrays, unmapped(writable))
        return readers.result(), [int(array[0]) for array in arrays.result()]

    for _ in range(2):
        readers, here = main()
        assert readers == [added, 10 + added]
        if isinstance(runner, DaskTaskRunner | RayTaskRunner):
            assert here == [0, 10]


def test_nobody_sees_what_others_write(process_runner: TaskRunner) -> None:
    """Not the next reader, not the flow."""

    @flow(task_runner=process_runner)
    def main() -> Any:
        array = make.submit(0)
        readers = [add_one.submit(array).result() for _ in range(3)]
        return readers, int(array.result()[0]), int(array.result()[-1])

    assert main() == ([1, 1, 1], 0, 0)
