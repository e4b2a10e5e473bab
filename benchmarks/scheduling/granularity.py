"""METG(50%): the smallest task for which at least half of the cores' time goes into tasks.

Time is that of the kernel below. What a core can do at best is measured beside each run, with one busy process
for each core, so that neighbours on the machine slow both down.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from statistics import median

HALF = 0.5
FACTOR = 2.0  # between the granularities that are tried
LEAST_SECONDS = 1e-6  # below it a loop count means nothing
MOST_SECONDS = 4.0
PEAK_SECONDS = 0.06
ROUNDS = 3  # of the graph on either side of the crossing

Efficiency = Callable[[float], tuple[float, float]]  # seconds asked for -> (seconds per task, efficiency)


def burn(loops: int) -> int:
    """Keep a core busy."""
    value = 0
    for i in range(loops):
        value ^= i
    return value


def metg(efficiency: Efficiency, guess_seconds: float) -> float:
    """Return the granularity at which efficiency reaches one half, in seconds per task.

    Tasks grow or shrink by `FACTOR` from the guess on, until one half lies in between. Both sides are then measured
    `ROUNDS` times in turns, and their medians count: one disturbed run is not to end the search where no crossing is.

    Raises:
        ValueError: not even tasks of `MOST_SECONDS` are efficient.
    """
    seen: dict[int, list[tuple[float, float]]] = {}  # by power of FACTOR: (seconds, efficiency) of each run

    def look(power: int) -> None:
        seen.setdefault(power, []).append(efficiency(guess_seconds * FACTOR**power))

    def known(power: int) -> tuple[float, float]:
        if power not in seen:
            look(power)
        seconds, found = zip(*seen[power], strict=True)
        return median(seconds), median(found)

    power = 0
    while True:
        seconds, found = known(power)
        if found >= HALF:
            if seconds <= LEAST_SECONDS:
                return seconds
            low = power - 1
        elif seconds > MOST_SECONDS:
            raise ValueError(f"tasks of {seconds:.1f} s use {found:.0%} of the cores: there is no METG(50%)")
        else:
            low = power
        high = low + 1
        if known(low)[1] < HALF <= known(high)[1]:
            few = [each for each in (low, high) if len(seen[each]) < ROUNDS]
            if not few:
                return crossing(known(low), known(high))
            for each in few:
                look(each)
        else:
            power = low if found >= HALF else high


def crossing(below: tuple[float, float], above: tuple[float, float]) -> float:
    """Return where efficiency is one half between two (seconds, efficiency), on a logarithmic scale of seconds."""
    (low, less), (high, more) = below, above
    share = (HALF - less) / (more - less)
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


class Peak:
    """What the cores can do at this moment."""

    def __init__(self, pool: ProcessPoolExecutor, cores: int) -> None:
        self._pool = pool
        self._cores = cores
        self._loops = 100_000
        self.seconds_per_loop()  # starts the processes
        self._loops = max(1000, round(PEAK_SECONDS / self.seconds_per_loop()))

    def seconds_per_loop(self) -> float:
        """Keep all cores busy for a moment; return the seconds that a loop of `burn` takes."""
        runs = [self._pool.submit(_timed, self._loops) for _ in range(self._cores)]
        return sum(run.result() for run in runs) / (self._cores * self._loops)


@contextmanager
def peak(cores: int) -> Iterator[Peak]:
    """Start a process for each core."""
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        yield Peak(pool, cores)


def sweep(run: Callable[[int], object], tasks: int, cores: int, top: Peak) -> Efficiency:
    """Return what tells the efficiency of a graph of so many tasks, which `run` runs with so many loops each."""

    def efficiency(seconds: float) -> tuple[float, float]:
        before = top.seconds_per_loop()
        loops = max(1, round(seconds / before))
        began = time.perf_counter()
        run(loops)
        wall = time.perf_counter() - began
        each = loops * (before + top.seconds_per_loop()) / 2
        return each, tasks * each / (wall * cores)

    return efficiency


def _timed(loops: int) -> float:
    began = time.perf_counter()
    burn(loops)
    return time.perf_counter() - began
