"""Are long tasks near the limit? Makespan of tasks of 100 ms and 1 s, and of waits on threads, against work / slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestration import flow, task

from .harness import Report, measure
from .scheduling.bounds import Bounded, lower_bound, sleep
from .scheduling.engines import bare_map, chosen, running

SIZES = {"100 ms": (0.1, 200), "1 s": (1.0, 12)}  # seconds of a task, how many
WAIT_SECONDS = 0.05
WAITS = 640
THREADS = 32
TARGET = 1.05
TARGET_WAITS = 1.10

nap = task(sleep, name="nap")


@flow
def naps(seconds: Sequence[float]) -> Any:
    return nap.map(seconds)


def run(*, repeats: int = 3, runner: str | None = None) -> Report:
    """Measure flows on engines that are already there; on threads, tasks that wait as those for a service do."""
    names = chosen(runner, ("threads", "dask", "ray"))
    bounded = Bounded()
    with running([name for name in names if name != "threads"]) as engines:
        if "threads" in names:
            _add_waits(bounded)
        for label, (each, count) in SIZES.items():
            for engine in engines:
                _add_naps(bounded, label, engine, [each] * count)
        report = measure("Long tasks, and waits on threads", bounded.cases, repeats=repeats, warmup=0)
    return bounded.note(report)


def _add_waits(bounded: Bounded) -> None:
    from runners import ThreadPoolTaskRunner

    shaped = naps.with_options(task_runner=ThreadPoolTaskRunner(THREADS))

    def waits() -> float:
        shaped([WAIT_SECONDS] * WAITS)
        return WAITS * WAIT_SECONDS / THREADS

    name = f"{WAITS} waits of {WAIT_SECONDS * 1000:.0f} ms on {THREADS} threads"
    bounded.add(name, waits, units=WAITS, factor=TARGET_WAITS)


def _add_naps(bounded: Bounded, label: str, engine: Any, seconds: Sequence[float]) -> None:
    shaped = naps.with_options(task_runner=engine.runner)
    bounded.add(
        f"{len(seconds)} x {label}, millrace on {engine.name}",
        lambda: lower_bound(shaped(seconds), engine.slots),
        units=len(seconds),
        factor=TARGET,
    )
    if engine.bare is not None:
        bounded.add(
            f"{len(seconds)} x {label}, bare {engine.name}",
            lambda: lower_bound(bare_map(engine, sleep, seconds), engine.slots),
            units=len(seconds),
        )
