"""How fast a flow could be at best, and how near a run came to that."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..harness import Case, Report, Target


def lower_bound(seconds: Iterable[float], slots: int) -> float:
    """Return the least makespan of independent items: that of the longest one, or of all slots always busy."""
    each = list(seconds)
    return max(max(each, default=0.0), sum(each) / slots)


def critical_path(parents: Mapping[str, Sequence[str]], seconds: Mapping[str, float]) -> float:
    """Return the length of the longest chain of dependent tasks.

    Args:
        parents: of each task, parents first.
    """
    ends: dict[str, float] = {}
    for name, needed in parents.items():
        ends[name] = max((ends[p] for p in needed), default=0.0) + seconds[name]
    return max(ends.values(), default=0.0)


def sleep(seconds: float) -> float:
    """Take that long without a core, and return how long it took in fact.

    Schedulers are measured with tasks that sleep: a busy neighbour makes burning tasks longer, and then every
    scheduler looks bad.
    """
    began = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - began


class Bounded:
    """Cases that are measured against lower bounds, run by run: what stretches tasks stretches the bound too."""

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self._runs: dict[str, list[tuple[float, float]]] = {}
        self._limits: dict[str, tuple[float, float]] = {}

    def add(
        self,
        name: str,
        run: Callable[[], float],
        *,
        units: int = 1,
        factor: float | None = None,
        each: float = 0.0,
    ) -> None:
        """Add a case.

        Args:
            run: runs it and returns its lower bound in seconds.
            factor: the target: makespan at most `factor * bound + each * units`.
        """
        runs = self._runs[name] = []
        if factor is not None:
            self._limits[name] = (factor, each * units)

        def timed() -> float:
            began = time.perf_counter()
            bound = run()
            runs.append((time.perf_counter() - began, bound))
            return runs[-1][0]

        self.cases.append(Case(name, timed, units))

    def note(self, report: Report) -> Report:
        """Add to the report how far each case is from its bound, and whether that is within its target."""
        for name, runs in self._runs.items():
            ratio = statistics.median(took / bound for took, bound in runs)
            bound = statistics.median(b for _, b in runs)
            report.notes.append(f"{name}: {ratio:.3f} x lower bound ({bound:.2f} s)")
            if name in self._limits:
                factor, more = self._limits[name]
                allowed = statistics.median((factor * bound + more) / bound for _, bound in runs)
                report.targets.append(Target(f"the lower bound: {name}", ratio, allowed, at_most=True))
        return report
