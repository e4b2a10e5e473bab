"""The report as one HTML page that needs nothing else: no scripts, no files beside it, no network."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from .charts import Bar, Tile, bars, columns, treemap
from .compare import RunRecord, cores
from .table import COLUMNS, cells, footnotes

_SHADES = (2.0, 2.5, 3.0, 4.0)  # of mean complexity; most packages lie between 1.5 and 5
_PACKAGES_SHOWN = 25
_MODULES_SHOWN = 20
_FILES_SHOWN = 200

Report = Mapping[str, Any]


def page_of(report: Report, records: Sequence[RunRecord], problems: Sequence[str], load: float = 0.0) -> str:
    """Return the page; `load` as in `footnotes`."""
    parts = (
        _head(report),
        _runners(records, problems, load),
        _map(report),
        _pair(_stack(_histogram(report), _states(records), _unmeasured(report)), _imports(report)),
        _pair(_complex(report), _longest(report)),
        _packages(report),
        _foot(),
    )
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>A census of Python source</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    totals = report["totals"]
    shown = {
        "files": totals["files"],
        "packages": totals["packages"],
        "lines": totals["lines"],
        "functions": totals["functions"],
        "classes": totals["classes"],
        "modules imported": totals["imported_modules"],
    }
    tiles = "".join(f"<div><dt>{name}</dt><dd>{value:,}</dd></div>" for name, value in shown.items())
    share = totals["code_lines"] / totals["lines"] if totals["lines"] else 0
    return (
        "<header><h1>A census of Python source</h1>"
        f'<p class="lead">Every Python file of one installation of Python {escape(report["python"])}, read, parsed '
        f"and measured by a Millrace flow. {totals['measured']:,} files were measured, {totals['skipped']:,} skipped "
        f"as too large, {totals['failed']:,} could not be read or parsed. {share:.0%} of the lines are neither blank "
        f"nor pure comments; the mean function has a complexity of {totals['mean_complexity']:.2f}.</p></header>"
        f'<dl class="tiles">{tiles}</dl>'
    )


def _runners(records: Sequence[RunRecord], problems: Sequence[str], load: float) -> str:
    if problems:
        lines = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
        verdict = f'<p class="verdict bad">The runners disagree.</p><ul>{lines}</ul>'
    elif len(records) > 1:
        verdict = (
            f'<p class="verdict">All {len(records)} runs gave the same report '
            f'(<span class="mono">{records[0].digest[:12]}</span>) and the same states.</p>'
        )
    else:
        verdict = ""
    chart = bars(
        [
            Bar(
                r.runner,
                (r.work_seconds, r.start_seconds),
                f"{r.work_seconds + r.start_seconds:.1f} s",
                r.run_name,
            )
            for r in records
        ]
    )
    legend = _legend([("part0", "work"), ("part1", "starting the runner")])
    notes = "".join(f"<p class='about'>{escape(note)}</p>" for note in footnotes(records, load))
    return _section(
        "One flow, several runners",
        "",
        f"{verdict}{_table(COLUMNS, [cells(r, records) for r in records])}{chart}{legend}<br>{notes}",
    )


def _map(report: Report) -> str:
    tiles = [
        Tile(
            p["package"],
            p["lines"],
            sum(p["mean_complexity"] >= limit for limit in _SHADES),
            f"{p['package']}: {p['lines']:,} lines, {p['functions']:,} functions, "
            f"mean complexity {p['mean_complexity']:.2f}",
        )
        for p in report["packages"]
    ]
    names = [f"below {_SHADES[0]:g}", *(f"from {limit:g}" for limit in _SHADES)]
    legend = _legend([(f"shade{i}", name) for i, name in enumerate(names)])
    return _section(
        "Where the lines are",
        "Each rectangle is a package, its area the number of lines; the darker or stronger, the more complex its "
        "mean function.",
        treemap(tiles, 1130, 430, "wide") + treemap(tiles, 340, 460, "tall") + legend,
    )


def _histogram(report: Report) -> str:
    buckets = report["histogram"]
    values = [bucket["functions"] for bucket in buckets]
    total = sum(values) or 1
    labels = [_range(bucket["from"], bucket["to"]) for bucket in buckets]
    return _section(
        "How complex functions are",
        "Functions by cyclomatic complexity: 1 plus the number of decisions in them.",
        columns(labels, values, [_share(value / total) for value in values]),
    )


def _imports(report: Report) -> str:
    rows = [
        Bar(m["module"], (m["files"],), f"{m['files']:,}", _count(m["packages"], "package"))
        for m in report["most_imported"][:_MODULES_SHOWN]
    ]
    return _section("The most used modules", "By the number of files that import them.", bars(rows))


def _complex(report: Report) -> str:
    rows = [
        Bar(f["name"], (f["complexity"],), f"{f['complexity']:,}", f"{f['file']}:{f['line']}")
        for f in report["most_complex"][:12]
    ]
    return _section("The most complex functions", "By cyclomatic complexity.", bars(rows))


def _longest(report: Report) -> str:
    rows = [
        Bar(f["name"], (f["lines"],), f"{f['lines']:,}", f"{f['file']}:{f['line']}")
        for f in report["longest"][:12]
    ]
    return _section("The longest functions", "By lines, from the def to the end.", bars(rows))


def _packages(report: Report) -> str:
    heads = ("package", "files", "lines", "code lines", "classes", "functions", "mean complexity")
    rows = [
        [
            p["package"],
            *(f"{p[key]:,}" for key in ("files", "lines", "code_lines", "classes", "functions")),
            f"{p['mean_complexity']:.2f}",
        ]
        for p in report["packages"][:_PACKAGES_SHOWN]
    ]
    left = len(report["packages"]) - len(rows)
    rest = f" {left:,} smaller ones are in the JSON file." if left > 0 else ""
    return _section("Packages by size", f"By lines.{rest}", _table(heads, rows, css="packages"))


def _unmeasured(report: Report) -> str:
    groups = [
        _details(
            f"<b>{escape(group['kind'])}</b>: {_count(group['count'], 'file')}",
            (f"{escape(f['file'])} <span>{escape(f['message'])}</span>" for f in group["files"]),
            group["count"],
        )
        for group in report["errors"]
    ]
    skipped = report["skipped"]
    if skipped:
        lines = (f"{escape(f['file'])} <span>{f['bytes']:,} bytes</span>" for f in skipped)
        groups.append(
            _details(f"<b>Skipped</b> as too large: {_count(len(skipped), 'file')}", lines, len(skipped))
        )
    about = (
        "A file that is broken fails alone. Python's own test suite contains some on purpose, and the census adds "
        "four specimens, one of each kind."
    )
    return _section("What was not measured", about, "".join(groups) or "<p>Nothing.</p>")


def _states(records: Sequence[RunRecord]) -> str:
    rows = [
        [node, ", ".join(f"{n:,} {state}" for state, n in counts.items())]
        for node, counts in records[0].states.items()
    ]
    about = f"How the task runs of each node ended on {records[0].runner}."
    return _section("States", about, _table(("node", "task runs by state"), rows, css="words"))


def _foot() -> str:
    return (
        f"<footer>Made by <code>python -m examples.census</code> on {escape(platform.system())} "
        f"{escape(platform.machine())} with {_count(cores(), 'core')}. A lambda's decisions count for the function "
        "around it, and a nested function is measured on its own. Look at the runs with <code>millrace runs ls</code> "
        "and <code>millrace runs show NAME</code>.</footer>"
    )


def _section(title: str, about: str, body: str) -> str:
    said = f'<p class="about">{escape(about)}</p>' if about else ""
    return f"<section><h2>{escape(title)}</h2>{said}{body}</section>"


def _pair(*sections: str) -> str:
    return f'<div class="pair">{"".join(sections)}</div>'


def _stack(*sections: str) -> str:
    return f'<div class="stack">{"".join(sections)}</div>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], css: str = "") -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{css}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _details(title: str, lines: Iterable[str], count: int) -> str:
    shown = [f"<li>{line}</li>" for line, _ in zip(lines, range(_FILES_SHOWN), strict=False)]
    more = f"<li>and {count - len(shown):,} more</li>" if count > len(shown) else ""
    return f"<details><summary>{title}</summary><ul>{''.join(shown)}{more}</ul></details>"


def _legend(entries: Iterable[tuple[str, str]]) -> str:
    marks = "".join(
        f'<span><svg><rect class="{css}" width="100%" height="100%"/></svg>{escape(text)}</span>'
        for css, text in entries
    )
    return f'<p class="legend">{marks}</p>'


def _range(first: int, last: int | None) -> str:
    if last is None:
        return f"{first}+"
    return str(first) if first == last else f"{first}-{last}"


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
