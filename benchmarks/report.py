"""The README's tables, made from the JSON files of a run of the benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from .harness import Report

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- results: written by `python -m benchmarks report` -->", "<!-- end of results -->"


def read(folder: Path) -> dict[str, Report]:
    """Return the reports in a folder by the name of their question."""
    return {path.stem: Report.read(path) for path in sorted(folder.glob("*.json"))}


def write(reports: Mapping[str, Report], readme: Path = README) -> None:
    """Put the tables of reports between the marks in the README."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = "\n".join(_markdown(reports))
    readme.write_text(f"{before}{BEGIN}\n\n{lines}\n\n{END}{after}", encoding="utf-8")


def _markdown(found: Mapping[str, Report]) -> Iterator[str]:
    first = next(iter(found.values()))
    yield _stamp(first)
    yield ""
    targets = [target for report in found.values() for target in report.targets]
    met = sum(target.met for target in targets)
    yield f"{met} of {len(targets)} targets met."
    for name, report in found.items():
        yield ""
        yield f"### {name}"
        yield ""
        yield f"{report.question} ({report.wall_seconds or 0:.0f} s, load {report.stamp['load']:.1f} at its end)"
        yield ""
        yield "| case | median | spread | per unit | speed |"
        yield "|---|---|---|---|---|"
        for row in report.rows():
            yield f"| {' | '.join(row)} |"
        if report.notes or report.targets:
            yield ""
        for note in report.notes:
            yield f"- {note.strip()}"
        for target in report.targets:
            yield f"- target: {target}"


def _stamp(report: Report) -> str:
    stamp = report.stamp
    versions = ", ".join(f"{name} {version}" for name, version in stamp["versions"].items())
    return f"{stamp['date']}, Python {stamp['python']}, {stamp['cores']} cores ({stamp['processor']}); {versions}."
