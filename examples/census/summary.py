"""What is kept of a package: sums, and the few functions that may get into the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestration.errors import UpstreamFailedError

from .discover import SourceFile
from .imports import imported_modules
from .measure import FileMeasure, FunctionMeasure

KEPT_FUNCTIONS = 20
COMPLEXITY_BUCKETS = ((1, 1), (2, 5), (6, 10), (11, 20), (21, 50), (51, 0))  # 0: and above


class FunctionPlace(NamedTuple):
    """A function, and where it is."""

    complexity: int
    lines: int
    file: str
    name: str
    line: int


class Problem(NamedTuple):
    """A file that could not be measured."""

    kind: str
    file: str
    message: str


@dataclass(slots=True)
class PackageSummary:
    """A package in numbers. `files` counts all, `measured` those that were measured.

    Attributes:
        complexity: the sum over all functions.
        histogram: functions by bucket of COMPLEXITY_BUCKETS.
        imports: by module, how many files import it.
        skipped: names and sizes in bytes of the files that were too large.
    """

    package: str
    files: int = 0
    measured: int = 0
    lines: int = 0
    code_lines: int = 0
    classes: int = 0
    functions: int = 0
    complexity: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * len(COMPLEXITY_BUCKETS))
    most_complex: list[FunctionPlace] = field(default_factory=list)
    longest: list[FunctionPlace] = field(default_factory=list)
    imports: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    skipped: list[tuple[str, int]] = field(default_factory=list)


def summary_of(
    package: str,
    files: Sequence[SourceFile],
    measures: Sequence[FileMeasure | BaseException | None],
    known: Mapping[str, str],
) -> PackageSummary:
    """Sum up a package.

    Args:
        measures: of each file its measure, the exception that came in its place, or None if it was skipped.
        known: the package of each module that there is.
    """
    summary = PackageSummary(package, files=len(files))
    places: list[FunctionPlace] = []
    for file, measure in zip(files, measures, strict=True):
        if measure is None:
            summary.skipped.append((file.name, file.size))
        elif isinstance(measure, BaseException):
            summary.problems.append(_problem(file.name, measure))
        else:
            _add(summary, measure)
            places += [
                FunctionPlace(f.complexity, f.lines, file.name, f.name, f.line) for f in measure.functions
            ]
            summary.imports.update(imported_modules(measure, known))
    summary.most_complex = sorted(places, key=by_complexity)[:KEPT_FUNCTIONS]
    summary.longest = sorted(places, key=by_length)[:KEPT_FUNCTIONS]
    return summary


def by_complexity(place: FunctionPlace) -> tuple[int, int, str, int]:
    """Order the most complex first; what is equal, by name, so that the order is always the same."""
    return -place.complexity, -place.lines, place.file, place.line


def by_length(place: FunctionPlace) -> tuple[int, int, str, int]:
    """Order the longest first."""
    return -place.lines, -place.complexity, place.file, place.line


def bucket_of(complexity: int) -> int:
    """Return the position of a complexity in COMPLEXITY_BUCKETS."""
    return next(i for i, (_, last) in enumerate(COMPLEXITY_BUCKETS) if not last or complexity <= last)


def _add(summary: PackageSummary, measure: FileMeasure) -> None:
    summary.measured += 1
    summary.lines += measure.lines
    summary.code_lines += measure.code_lines
    summary.classes += measure.classes
    summary.functions += len(measure.functions)
    for function in measure.functions:
        _add_function(summary, function)


def _add_function(summary: PackageSummary, function: FunctionMeasure) -> None:
    summary.complexity += function.complexity
    summary.histogram[bucket_of(function.complexity)] += 1


def _problem(file: str, error: BaseException) -> Problem:
    """Name what went wrong, not what it led to. Paths stay out: they differ between machines."""
    if isinstance(error, UpstreamFailedError) and error.__cause__ is not None:
        error = error.__cause__
    message = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return Problem(type(error).__name__, file, message[:200])
