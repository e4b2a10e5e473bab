"""What does a task run cost? A map of no-ops on each runner, beside the bare engine done the obvious way."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import runners
from orchestration import flow, task

from .harness import Case, Report, measure

ITEMS = 100_000
BARE_ITEMS = 2_000  # bare engines take milliseconds per task: fewer items give the same rate


def noop(x: int) -> int:
    return x


nothing = task(noop)


@flow
def plain_map(n: int) -> int:
    return len(nothing.map(range(n)).result())


def run(*, repeats: int = 5, runner: str | None = None) -> Report:
    """Measure flows that are started anew each time on an engine that is already there."""
    wanted = [runner] if runner else ["sequential", "threads", "dask", "ray"]
    cases: list[Case] = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["MILLRACE_HOME"] = folder
        os.environ["MILLRACE_DISPLAY"] = "off"
        for name in wanted:
            made, bare = stack.enter_context(ENGINES[name]())
            shaped = plain_map.with_options(task_runner=made)

            def ours(shaped: Any = shaped) -> None:
                assert shaped(ITEMS) == ITEMS

            cases.append(Case(f"millrace on {name}", ours, ITEMS))
            if bare is not None:
                cases.append(Case(bare[0], bare[1], BARE_ITEMS))
        return measure(f"A map of no-ops, {ITEMS:,} task runs, journalled to SQLite", cases, repeats=repeats)


@contextlib.contextmanager
def _sequential() -> Iterator[Any]:
    yield runners.SequentialTaskRunner(), None


@contextlib.contextmanager
def _threads() -> Iterator[Any]:
    with ThreadPoolExecutor(6) as pool:

        def bare() -> None:
            futures = [pool.submit(noop, x) for x in range(BARE_ITEMS)]
            assert len([future.result() for future in futures]) == BARE_ITEMS

        yield runners.ThreadPoolTaskRunner(6), ("bare ThreadPoolExecutor.submit", bare)


@contextlib.contextmanager
def _dask() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=os.cpu_count(), threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):

        def bare() -> None:
            assert len(client.gather(client.map(noop, range(BARE_ITEMS), pure=False))) == BARE_ITEMS

        yield runners.DaskTaskRunner(cluster=cluster), ("bare Client.map + gather", bare)


@contextlib.contextmanager
def _ray() -> Iterator[Any]:
    import ray

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    remote = ray.remote(noop)

    def bare() -> None:
        assert len(ray.get([remote.remote(x) for x in range(BARE_ITEMS)])) == BARE_ITEMS

    try:
        yield runners.RayTaskRunner(), ("bare ray .remote + get", bare)
    finally:
        ray.shutdown()


ENGINES = {"sequential": _sequential, "threads": _threads, "dask": _dask, "ray": _ray}
