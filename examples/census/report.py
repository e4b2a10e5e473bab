"""The report: plain data, the same for the same summaries in whatever order they come."""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .summary import COMPLEXITY_BUCKETS, FunctionPlace, PackageSummary, by_complexity, by_length

TOP_FUNCTIONS = 20
TOP_MODULES = 25


def report_of(summaries: Iterable[PackageSummary]) -> dict[str, Any]:
    """Return the report as JSON values."""
    ordered = sorted(summaries, key=lambda s: (-s.lines, s.package))
    places = [place for s in ordered for place in s.most_complex]
    longest = [place for s in ordered for place in s.longest]
    return {
        "python": platform.python_version(),
        "totals": _totals(ordered),
        "histogram": [
            {"from": first, "to": last or None, "functions": sum(s.histogram[i] for s in ordered)}
            for i, (first, last) in enumerate(COMPLEXITY_BUCKETS)
        ],
        "most_complex": [_function(p) for p in sorted(places, key=by_complexity)[:TOP_FUNCTIONS]],
        "longest": [_function(p) for p in sorted(longest, key=by_length)[:TOP_FUNCTIONS]],
        "most_imported": _most_imported(ordered),
        "packages": [_package(s) for s in ordered],
        "errors": _errors(ordered),
        "skipped": [
            {"file": name, "bytes": size}
            for name, size in sorted(pair for s in ordered for pair in s.skipped)
        ],
    }


def digest_of(report: Mapping[str, Any]) -> str:
    """Return a digest that equal reports share, in hex."""
    text = json.dumps(report, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _totals(summaries: list[PackageSummary]) -> dict[str, Any]:
    functions = sum(s.functions for s in summaries)
    return {
        "packages": len(summaries),
        "files": sum(s.files for s in summaries),
        "measured": sum(s.measured for s in summaries),
        "failed": sum(len(s.problems) for s in summaries),
        "skipped": sum(len(s.skipped) for s in summaries),
        "lines": sum(s.lines for s in summaries),
        "code_lines": sum(s.code_lines for s in summaries),
        "classes": sum(s.classes for s in summaries),
        "functions": functions,
        "mean_complexity": _mean(sum(s.complexity for s in summaries), functions),
        "imports": sum(s.imports.total() for s in summaries),
        "imported_modules": len({module for s in summaries for module in s.imports}),
    }


def _most_imported(summaries: list[PackageSummary]) -> list[dict[str, Any]]:
    """Return the nodes of the import graph that most edges lead to."""
    files: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    for summary in summaries:
        files.update(summary.imports)
        packages.update(summary.imports.keys())
    ordered = sorted(files, key=lambda name: (-files[name], name))[:TOP_MODULES]
    return [{"module": name, "files": files[name], "packages": packages[name]} for name in ordered]


def _package(summary: PackageSummary) -> dict[str, Any]:
    return {
        "package": summary.package,
        "files": summary.files,
        "measured": summary.measured,
        "lines": summary.lines,
        "code_lines": summary.code_lines,
        "classes": summary.classes,
        "functions": summary.functions,
        "mean_complexity": _mean(summary.complexity, summary.functions),
    }


def _errors(summaries: list[PackageSummary]) -> list[dict[str, Any]]:
    """Group what failed by the kind of error, the most frequent first."""
    groups: dict[str, list[dict[str, str]]] = {}
    for kind, file, message in sorted(problem for s in summaries for problem in s.problems):
        groups.setdefault(kind, []).append({"file": file, "message": message})
    ordered = sorted(groups, key=lambda kind: (-len(groups[kind]), kind))
    return [{"kind": kind, "count": len(groups[kind]), "files": groups[kind]} for kind in ordered]


def _function(place: FunctionPlace) -> dict[str, Any]:
    return place._asdict()


def _mean(total: int, count: int) -> float:
    return round(total / count, 2) if count else 0.0
