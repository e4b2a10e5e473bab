"""Results on Dask that are larger than its workers' memory."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration import flow, task, unmapped
from runners import DaskTaskRunner

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
np = pytest.importorskip("numpy")
pytestmark = pytest.mark.dask

SIZE = 10_000_000  # bytes of an array
ITEMS = 40
LIMIT = 320_000_000  # of memory: a worker takes 100 MB itself


@task(batch=1)
def make(n: int) -> Any:
    return np.full(SIZE, n, np.uint8)


@task(batch=1)
def add_one(array: Any) -> Any:
    array += 1
    return array


@task(batch=1)
def ends(array: Any) -> tuple[int, int]:
    return int(array[0]), int(array[-1])


@task(batch=1)
def shifted(n: int, array: Any) -> tuple[int, int]:
    array += n  # its own: no other item sees it
    return int(array[0]), int(array[-1])


def known_bytes(dask_worker: Any) -> tuple[int, int]:
    """Return what Dask believes to have in memory, and to have put on disk."""
    return int(dask_worker.data.fast.total_weight), int(dask_worker.data.spilled_total.memory)


def test_what_does_not_fit_lies_on_disk() -> None:
    """Dask is told how large results are, so it spills them; they come back whole, and can be written to."""
    seen: list[tuple[int, int]] = []
    with (
        dask.config.set({"distributed.worker.memory.target": 0.2}),  # of the limit, by what it knows of sizes
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            dashboard_address=None,
            memory_limit=LIMIT,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        @flow(task_runner=DaskTaskRunner(address=cluster.scheduler_address), store="memory")
        def main() -> Any:
            made = make.map(range(ITEMS))
            made.wait()
            seen.extend(client.run(known_bytes).values())
            return ends.map(add_one.map(made)).result(), made[ITEMS - 1].result()

        found, last = main()
    assert ITEMS * SIZE > LIMIT
    ((in_memory, on_disk),) = seen
    assert ITEMS * SIZE <= in_memory + on_disk < 1.01 * ITEMS * SIZE
    assert in_memory <= 0.2 * LIMIT
    assert found == [(n + 1, n + 1) for n in range(ITEMS)]
    assert (last[0], last.flags.writeable) == (ITEMS - 1, True)


def test_large_arguments_are_no_part_of_the_message() -> None:
    """The scheduler hands them on as they came, and copies nothing; each worker gets them once."""
    passed: list[Any] = []
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        handlers = cluster.scheduler.handlers
        broadcast = handlers["broadcast"]

        async def spied(comm: Any = None, *, msg: dict[str, Any], **options: Any) -> Any:
            passed.append(msg.get("args"))
            return await broadcast(msg=msg, **options)

        handlers["broadcast"] = spied
        array = np.full(SIZE, 100, np.uint8)

        @flow(task_runner=DaskTaskRunner(address=cluster.scheduler_address), store="memory")
        def main() -> Any:
            return shifted.map(range(8), unmapped(array)).result()

        assert main() == [(100 + n, 100 + n) for n in range(8)]
    assert all(len(args) < SIZE for args in passed if isinstance(args, bytes))
    large = [args for args in passed if isinstance(args, distributed.protocol.Serialized)]
    assert 1 <= len([args for args in large if sum(map(len, args.frames)) > SIZE]) <= 2
