"""Engines that are running before the clock starts, each with the runner that uses it and its bare client."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import runners
from orchestration import flow, task
from runners.base import TaskRunner

NAMES = ("sequential", "threads", "dask", "ray")


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is running.

    Attributes:
        slots: how many tasks run at a time.
        bare: a `distributed.Client`, or the `ray` module; None where the engine is no library of others.
    """

    name: str
    runner: TaskRunner
    slots: int
    bare: Any = None


@contextmanager
def running(names: Sequence[str] = NAMES, slots: int | None = None) -> Iterator[list[Engine]]:
    """Start engines, with a store of their own and no display.

    Args:
        slots: default: as many as there are cores.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        before = {name: os.environ.get(name) for name in ("MILLRACE_HOME", "MILLRACE_DISPLAY")}
        stack.callback(_restore, before)
        os.environ.update(MILLRACE_HOME=folder, MILLRACE_DISPLAY="off")
        count = slots or os.cpu_count() or 1
        engines = [stack.enter_context(_START[name](count)) for name in names]
        for engine in engines:
            _warm(engine)
        yield engines


def chosen(runner: str | None, default: Sequence[str] = NAMES) -> Sequence[str]:
    """Return the engines to measure, given what the command line asks for."""
    return (runner,) if runner else default


def bare_map(engine: Engine, fn: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    """Map a function the way that users of the bare engine do."""
    if engine.name == "dask":
        return list(engine.bare.gather(engine.bare.map(fn, list(values), pure=False)))
    assert engine.name == "ray", f"{engine.name} has no bare client"
    remote = engine.bare.remote(fn)
    return list(engine.bare.get([remote.remote(value) for value in values]))


def _warm(engine: Engine) -> None:
    """Let workers start and import what they need."""
    nothing = task(_nothing)

    @flow(task_runner=engine.runner)
    def warm() -> None:
        nothing.map(range(2 * engine.slots)).result()

    warm()
    if engine.bare is not None:
        bare_map(engine, _nothing, range(2 * engine.slots))


def _nothing(x: int) -> int:
    return x


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _sequential(slots: int) -> Iterator[Engine]:
    yield Engine("sequential", runners.SequentialTaskRunner(), 1)


@contextmanager
def _threads(slots: int) -> Iterator[Engine]:
    yield Engine("threads", runners.ThreadPoolTaskRunner(slots), slots)


@contextmanager
def _dask(slots: int) -> Iterator[Engine]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=slots, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield Engine("dask", runners.DaskTaskRunner(cluster=cluster), slots, client)


@contextmanager
def _ray(slots: int) -> Iterator[Engine]:
    import ray

    ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield Engine("ray", runners.RayTaskRunner(), slots, ray)
    finally:
        ray.shutdown()


_START = {"sequential": _sequential, "threads": _threads, "dask": _dask, "ray": _ray}
