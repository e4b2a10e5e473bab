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
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Self

WIDTH = 80


@dataclass(frozen=True, slots=True)
class Case:
    """Something to measure.

    Attributes:
        name: as it stands in the table.
        run: does it once; the harness takes the time, unless it returns seconds itself.
        units: how many units of work one run does, for the rate.
        rival: the case whose speed per unit this one's is shown as a multiple of.
    """

    name: str
    run: Callable[[], float | None]
    units: int = 1
    rival: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of one case. Times in seconds."""

    name: str
    units: int
    seconds: Sequence[float]
    rival: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def each(self) -> float:
        """Median time per unit."""
        return self.median / self.units

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.units / self.median

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median."""
        if not self.median:
            return 0.0
        if len(self.seconds) < 4:
            return (max(self.seconds) - min(self.seconds)) / self.median
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median


@dataclass(frozen=True, slots=True)
class Target:
    """A claim and whether this run bears it out.

    Attributes:
        name: what is claimed, without the figure: "the rate of bare Client.map".
        reached: what was measured.
        wanted: the least that was claimed; with `at_most`, the most.
        unit: of both figures; "x" for ratios.
    """

    name: str
    reached: float
    wanted: float
    unit: str = "x"
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.reached <= self.wanted if self.at_most else self.reached >= self.wanted

    @property
    def verdict(self) -> str:
        return "met" if self.met else "MISSED"

    def __str__(self) -> str:
        limit = "at most " if self.at_most else ""
        return (
            f"{limit}{figure(self.wanted, self.unit)} {self.name}: "
            f"{figure(self.reached, self.unit)}, {self.verdict}"
        )


@dataclass(slots=True)
class Report:
    """The results of one benchmark, with the stamp of where they were measured."""

    question: str
    results: list[Result]
    stamp: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    wall_seconds: float | None = None  # of the whole benchmark with its set-up and warm-up

    def of(self, name: str) -> Result:
        return next(result for result in self.results if result.name == name)

    def has(self, *names: str) -> bool:
        return set(names) <= {result.name for result in self.results}

    def speed(self, name: str, rival: str) -> float:
        """Return how many times as fast as its rival a case is, per unit of work."""
        return self.of(rival).each / self.of(name).each

    def want_speed(self, name: str, rival: str, wanted: float) -> None:
        """Add the target that a case is `wanted` times as fast as its rival; neither need have been measured."""
        if self.has(name, rival):
            self.targets.append(Target(f"as fast as {rival}", self.speed(name, rival), wanted))

    def want_rate(self, name: str, wanted: float) -> None:
        """Add the target that a case does that many units a second, if it was measured."""
        if self.has(name):
            self.targets.append(Target(name, self.of(name).rate, wanted, "/s"))

    def print(self, *, baseline: str | None = None) -> None:
        """Print a table for 80 columns.

        Args:
            baseline: show each median as a multiple of this case's, rather than the speed against rivals.
        """
        print()
        _print_wrapped(self.question, "")
        print(
            f"{'case':<34}{'median':>10}{'spread':>8}{'per unit':>11}{'ratio' if baseline else 'speed':>10}"
        )
        for row in self.rows(baseline=baseline):
            name, median, spread, each, ratio = row
            if len(name) > 33:
                print(name)
                name = ""
            print(f"{name:<34}{median:>10}{spread:>8}{each:>11}{ratio:>10}".rstrip())
        for note in self.notes:
            _print_wrapped(note, "  ")
        for target in self.targets:
            _print_wrapped(f"target: {target}", "  ")

    def rows(self, *, baseline: str | None = None) -> list[tuple[str, str, str, str, str]]:
        """Return name, median, spread, time per unit, and ratio of each case, as words for a table."""
        base = self.of(baseline).median if baseline else None
        rows = []
        for result in self.results:
            each = duration(result.each) if result.units > 1 else ""
            ratio = ""
            if base:
                ratio = figure(result.median / base, "x")
            elif result.rival is not None and self.has(result.rival):
                ratio = figure(self.speed(result.name, result.rival), "x")
            rows.append((result.name, duration(result.median), f"{result.spread:.0%}", each, ratio))
        return rows

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        body = {
            "question": self.question,
            "stamp": self.stamp,
            "wall_seconds": self.wall_seconds,
            "notes": self.notes,
            "targets": [{**asdict(target), "met": target.met} for target in self.targets],
            "results": [
                {**asdict(r), "seconds": list(r.seconds), "median": r.median, "spread": r.spread}
                for r in self.results
            ],
        }
        path.write_text(json.dumps(body, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the report that `write` wrote there."""
        body = json.loads(path.read_text())
        return cls(
            question=body["question"],
            results=[Result(r["name"], r["units"], r["seconds"], r.get("rival")) for r in body["results"]],
            stamp=body["stamp"],
            notes=body["notes"],
            targets=[Target(**{k: v for k, v in t.items() if k != "met"}) for t in body.get("targets", ())],
            wall_seconds=body.get("wall_seconds"),
        )


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
    results = [Result(case.name, case.units, times[case.name], case.rival) for case in cases]
    return Report(question, results, stamp(), list(notes))


def stamp() -> dict[str, Any]:
    """Return what the figures depend on: machine, versions, load."""
    versions = {}
    for name in ("millrace", "dask", "distributed", "ray", "joblib"):
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


def duration(seconds: float) -> str:
    """Return it in the unit that suits it, with three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 else f"{seconds:.0f} s"
    return f"{seconds / 1e-9:.3g} ns"


def figure(value: float, unit: str) -> str:
    """Return a figure with three digits, and all digits where there are more; a duration for the unit "s"."""
    if unit == "s":
        return duration(value)
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits}{unit if unit in ('x', '/s', '%') else f' {unit}'}"


def _print_wrapped(text: str, indent: str) -> None:
    print(
        textwrap.fill(
            text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
        )
    )
