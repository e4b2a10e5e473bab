"""Measuring: warm-up, interleaved repeats, medians and spread, and a stamp of the machine.

Rivals are measured in turns within one run, never one after the other, because these machines are shared:
what disturbs one disturbs the other. Claims rest on ratios of medians.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Case:
    """Something to measure.

    Attributes:
        name: as it stands in the table.
        run: does it once; the harness takes the time, unless it returns seconds itself.
        units: how many units of work one run does, for the rate.
    """

    name: str
    run: Callable[[], float | None]
    units: int = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of one case. Times in seconds."""

    name: str
    units: int
    seconds: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median."""
        if len(self.seconds) < 4:
            return (max(self.seconds) - min(self.seconds)) / self.median
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median


@dataclass(slots=True)
class Report:
    """The results of one benchmark, with the stamp of where they were measured."""

    question: str
    results: list[Result]
    stamp: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def of(self, name: str) -> Result:
        return next(result for result in self.results if result.name == name)

    def print(self, *, baseline: str | None = None) -> None:
        """Print a table for 80 columns; with a baseline also each median's ratio to it."""
        print(f"\n{self.question}")
        print(f"{'case':<34}{'median':>10}{'spread':>8}{'per unit':>11}{'ratio':>9}")
        base = self.of(baseline).median if baseline else None
        for result in self.results:
            ratio = f"{result.median / base:8.2f}x" if base else ""
            each = _time(result.median / result.units) if result.units > 1 else ""
            print(f"{result.name:<34}{_time(result.median):>10}{result.spread:>7.0%} {each:>11}{ratio:>9}")
        for note in self.notes:
            print(f"  {note}")

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        body = {
            "question": self.question,
            "stamp": self.stamp,
            "notes": self.notes,
            "results": [
                {**asdict(r), "seconds": list(r.seconds), "median": r.median, "spread": r.spread}
                for r in self.results
            ],
        }
        path.write_text(json.dumps(body, indent=1) + "\n")


def measure(
    question: str, cases: Sequence[Case], *, repeats: int = 7, warmup: int = 1, notes: Sequence[str] = ()
) -> Report:
    """Run all cases in turns: `warmup` rounds that do not count, then `repeats` that do."""
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    for turn in range(warmup + repeats):
        for case in cases:
            began = time.perf_counter()
            told = case.run()
            took = time.perf_counter() - began if told is None else told
            if turn >= warmup:
                times[case.name].append(took)
    results = [Result(case.name, case.units, times[case.name]) for case in cases]
    return Report(question, results, stamp(), list(notes))


def stamp() -> dict[str, Any]:
    """Return what the figures depend on: machine, versions, load."""
    versions = {}
    for name in ("millrace", "dask", "distributed", "ray", "prefect", "joblib", "parsl"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": versions,
        "command": " ".join(sys.argv[1:]),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
