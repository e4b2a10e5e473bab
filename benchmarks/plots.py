"""Pictures of the results: a PNG per question, and one HTML page with all of them that needs no other file."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .harness import Report, duration

STYLE = "body{font:16px system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}img{max-width:100%}"
OURS, OTHERS = "#2f6f4f", "#9a9a9a"


def draw(reports: Mapping[str, Report], out: Path) -> Path:
    """Draw all reports; return the page.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise SystemExit(
            "plots need matplotlib: `make bench` installs it (dependency group `bench`)"
        ) from None
    matplotlib.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, report in reports.items():
        if not report.results:  # it said why
            continue
        png = out / f"{name}.png"
        _draw(report, png)
        picture = base64.b64encode(png.read_bytes()).decode()
        targets = "".join(f"<li>{html.escape(str(target))}</li>" for target in report.targets)
        parts.append(
            f"<h2>{html.escape(name)}: {html.escape(report.question)}</h2>"
            f'<img alt="{html.escape(name)}" src="data:image/png;base64,{picture}"><ul>{targets}</ul>'
        )
    page = out / "benchmarks.html"
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><title>Millrace benchmarks</title><style>{STYLE}</style>'
        f"<h1>Millrace benchmarks</h1>{''.join(parts)}",
        encoding="utf-8",
    )
    return page


def _draw(report: Report, path: Path) -> None:
    from matplotlib.figure import Figure

    results = report.results[::-1]
    values = [result.each for result in results]
    figure = Figure(figsize=(9, 1 + 0.32 * len(results)), layout="constrained")
    axes: Any = figure.subplots()
    rivals = ("bare", "Prefect", "Parsl", "plain loop", "Executor", "joblib")
    colours = [OTHERS if any(word in result.name for word in rivals) else OURS for result in results]
    axes.barh([result.name for result in results], values, color=colours)
    if min(values) > 0 and max(values) / min(values) > 20:
        axes.set_xscale("log")
    for place, value in enumerate(values):
        axes.text(value, place, f" {duration(value)}", va="center", fontsize=8)
    axes.set_xlabel("seconds per unit, median")
    axes.set_title(report.question, fontsize=10)
    axes.margins(x=0.15)
    figure.savefig(path, dpi=110)
