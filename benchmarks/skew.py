"""What if tasks differ widely in length? Makespan against max(longest task, work / slots), beside the bare engine."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from orchestration import flow, task

from .harness import Report, measure
from .scheduling.bounds import Bounded, lower_bound, sleep
from .scheduling.engines import Engine, bare_map, chosen, running

ITEMS = 1_000
MEAN_SECONDS = 0.01
TARGETS = {"log-normal": 1.10}  # the others are shown for comparison

nap = task(sleep, name="nap")


@flow
def naps(seconds: Sequence[float]) -> Any:
    return nap.map(seconds)


def log_normal(rng: random.Random) -> list[float]:
    """Three kinds of tasks, medians 1 : 5 : 25, each log-normal: most of the work is in few tasks."""
    medians = rng.choices((1.0, 5.0, 25.0), weights=(6, 3, 1), k=ITEMS)
    return _scaled([median * rng.lognormvariate(0.0, 0.7) for median in medians])


def straggler(rng: random.Random) -> list[float]:
    """One task in a thousand takes 200 times as long. It stands in the first half, or no scheduler could help."""
    seconds = [1.0] * ITEMS
    for start in range(0, ITEMS, 1000):
        seconds[start + rng.randrange(500)] = 200.0
    return _scaled(seconds)


def bimodal(rng: random.Random) -> list[float]:
    """Nine short tasks to one that is 30 times as long."""
    return _scaled(rng.choices((1.0, 30.0), weights=(9, 1), k=ITEMS))


def _scaled(seconds: list[float]) -> list[float]:
    factor = MEAN_SECONDS * len(seconds) / sum(seconds)
    return [s * factor for s in seconds]


MIXTURES: dict[str, Callable[[random.Random], list[float]]] = {
    "log-normal": log_normal,
    "straggler": straggler,
    "bimodal": bimodal,
}


def run(*, repeats: int = 3, runner: str | None = None) -> Report:
    """Measure each mixture on engines that are already there."""
    bounded = Bounded()
    with running(chosen(runner, ("threads", "dask", "ray"))) as engines:
        for name, mixture in MIXTURES.items():
            seconds = mixture(random.Random(7))
            for engine in engines:
                _add(bounded, name, engine, seconds)
        question = f"{ITEMS:,} tasks of very different length, {MEAN_SECONDS * 1000:.0f} ms on average"
        return bounded.note(measure(question, bounded.cases, repeats=repeats, warmup=0))


def _add(bounded: Bounded, name: str, engine: Engine, seconds: Sequence[float]) -> None:
    shaped = naps.with_options(task_runner=engine.runner)
    factor = TARGETS.get(name)
    bounded.add(
        f"{name}, millrace on {engine.name}",
        lambda: lower_bound(shaped(seconds), engine.slots),
        units=ITEMS,
        factor=factor,
    )
    if engine.bare is not None:
        bounded.add(
            f"{name}, bare {engine.name}",
            lambda: lower_bound(bare_map(engine, sleep, seconds), engine.slots),
            units=ITEMS,
        )
