"""Writes the page. Whatever comes from a run is escaped: names, messages and parameters are other people's text."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from ..core.states import RUN_TERMINAL, SUCCESS, TERMINAL, State
from ..stores.base import NodeRow, RunRow, TaskRunRow
from ..terminal import words
from ..terminal.tally import Failure
from .lanes import COLUMNS, Lane, Lanes

LANE_HEIGHT = 18
MAX_NODES = 200
MAX_FAILURES = 50
# Scripts, images, fonts and connections are all refused: the page is what it holds.
_DARK = re.compile(
    r':root\[data-theme="dark"\] (\{[^}]*\})'
)  # for a page that has no script to choose a theme by
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class Report:
    """What the page tells of a run.

    Attributes:
        state: the run's state for people.
        left_out: task runs beyond those that were read for the timeline and the slowest ones.
        made: when; what had not ended is shown as of then.
    """

    run: RunRow
    state: str
    nodes: Sequence[NodeRow]
    failures: Sequence[Failure]
    lanes: Lanes | None
    slowest: Sequence[TaskRunRow]
    left_out: int
    made: float


def page_of(report: Report) -> str:
    """Return the whole page."""
    style = _style()
    parts = (
        _head(report),
        _nodes(report),
        _timeline(report),
        _failures(report),
        _slowest(report),
        f"<footer>Made by Millrace on {_moment(report.made)}. Run {escape(report.run.run_id)}</footer>",
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.run.name)}: {escape(report.state)}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _style() -> str:
    """Return the page's style: the dashboard's colours, by the reader's own theme, and what is the page's alone."""
    whole = files(__package__.rpartition(".")[0])
    tokens = whole.joinpath("dashboard", "src", "tokens.css").read_text(encoding="utf-8")
    (dark,) = _DARK.findall(tokens)
    states = "\n".join(f".s-{state.title} {{ --state: var(--state-{state.title}); }}" for state in State)
    own = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return f"{tokens}@media (prefers-color-scheme: dark) {{ :root {dark} }}\n{states}\n{own}"


def _head(report: Report) -> str:
    run = report.run
    ended = run.ended if run.ended is not None and run.state in RUN_TERMINAL else report.made
    facts = {
        "flow": f"{run.flow_name} {run.version}".strip(),
        "started": _moment(run.started) if run.started is not None else "not yet",
        "took" if run.state in RUN_TERMINAL else "runs for": words.duration(ended - (run.started or ended)),
        "task runs": f"{sum(run.counts):,}",
        "runner": run.runner,
        "host": run.host,
        "entry point": run.entrypoint,
        "tags": ", ".join(sorted(run.tags)),
    }
    told = "".join(
        f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items() if text
    )
    message = f'<p class="message">{escape(run.message)}</p>' if run.message else ""
    return (
        f'<header><h1>{escape(run.name)} <span class="badge s-{run.state.title}">{escape(report.state)}</span></h1>'
        f"{message}<dl>{told}</dl>{_bar(run.counts)}"
        f'<p class="counts">{escape(words.kinds(run.counts)) or "no task runs"}</p>{_parameters(run)}</header>'
    )


def _parameters(run: RunRow) -> str:
    if not run.parameters:
        return ""
    text = json.dumps(dict(run.parameters), indent=2, ensure_ascii=False, default=str)
    return f"<details><summary>Parameters</summary><pre>{escape(text)}</pre></details>"


def _bar(counts: Sequence[int]) -> str:
    total = sum(counts)
    parts = "".join(
        f'<i class="s-{state.title}" style="flex-grow:{counts[state]}" title="{counts[state]:,} {state.title}"></i>'
        for state in sorted(State, key=lambda state: (state not in SUCCESS, state not in TERMINAL, -state))
        if counts[state]
    )
    return f'<div class="bar">{parts}</div>' if total else ""


def _nodes(report: Report) -> str:
    rows = []
    for node in report.nodes[:MAX_NODES]:
        done = sum(node.counts[state] for state in TERMINAL)
        took = (
            "–" if node.started is None or node.ended is None else words.duration(node.ended - node.started)
        )
        rows.append(
            f"<tr><th scope=row>{escape(node.path.removesuffix('-0'))}</th><td>{_bar(node.counts)}"
            f"<small>{escape(words.kinds(node.counts)) or 'nothing yet'}</small></td>"
            f"<td class=num>{done:,}/{sum(node.counts):,}</td><td class=num>{took}</td></tr>"
        )
    more = len(report.nodes) - len(rows)
    rest = f"<p class=note>{words.plural(more, 'further node')} not shown.</p>" if more > 0 else ""
    if not rows:
        return _section("Nodes", '<p class="note">This run has submitted nothing.</p>')
    head = "<tr><th>Node</th><th>Task runs</th><th class=num>Ended</th><th class=num>Took</th></tr>"
    return _section("Nodes", f"<div class=scroll><table>{head}{''.join(rows)}</table></div>{rest}")


def _timeline(report: Report) -> str:
    lanes = report.lanes
    if lanes is None:
        return _section("Timeline", '<p class="note">No task run has started.</p>')
    height = LANE_HEIGHT * len(lanes.lanes)
    drawn = "".join(_drawn(lane, k * LANE_HEIGHT) for k, lane in enumerate(lanes.lanes))
    named = "".join(_named(lane) for lane in lanes.lanes)
    seen = {segment.state for lane in lanes.lanes for segment in lane.segments}
    legend = "".join(f'<span><i class="s-{state.title}"></i>{state.title}</span>' for state in sorted(seen))
    if any(lane.retried for lane in lanes.lanes):
        legend += '<span><i class="retried"></i>tried before</span>'
    span = lanes.ended - lanes.started
    ticks = "".join(f"<span>{words.brief(span * part / 4)}</span>" for part in range(5))
    notes = [f"{words.plural(lanes.left_out, 'further lane')} not shown."] if lanes.left_out > 0 else []
    if report.left_out:
        notes.append(f"{report.left_out:,} further task runs were not read.")
    return _section(
        "Timeline",
        f'<p class="legend">{legend}</p><div class="lanes"><ul>{named}</ul><div>'
        f'<svg viewBox="0 0 {COLUMNS} {height}" height="{height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{words.plural(len(lanes.lanes), "lane")} over {words.duration(span)}">{drawn}</svg>'
        f'<div class="ticks">{ticks}</div></div></div>'
        + "".join(f"<p class=note>{note}</p>" for note in notes),
    )


def _named(lane: Lane) -> str:
    runs = words.plural(lane.task_runs, "task run")
    return f'<li title="{escape(lane.worker)}: {runs}"><bdi>{escape(lane.worker) or "?"}</bdi></li>'


def _drawn(lane: Lane, top: int) -> str:
    inner = LANE_HEIGHT - 4
    bars = (
        f'<rect class="s-{one.state.title}" x="{one.first}" y="{top + 2}" width="{one.last - one.first}" '
        f'height="{inner}"/>'
        for one in lane.segments
    )
    marks = (
        f'<rect class="retried" x="{column}" y="{top + 2}" width="2" height="5"/>' for column in lane.retried
    )
    return "".join((*bars, *marks))


def _failures(report: Report) -> str:
    if not report.failures:
        return ""
    told = []
    for number, one in enumerate(report.failures[:MAX_FAILURES]):
        shown = "" if number else " open"
        first = one.message.partition("\n")[0]
        trace = f"<pre>{escape(one.traceback.rstrip())}</pre>" if one.traceback else ""
        told.append(
            f"<details{shown}><summary><b>{one.count:,} ×</b> <code>{escape(one.type_name)}</code> {escape(first)}"
            f"</summary>{trace}</details>"
        )
    more = len(report.failures) - len(told)
    rest = f"<p class=note>{words.plural(more, 'further kind')} not shown.</p>" if more > 0 else ""
    return _section("Errors", "".join(told) + rest)


def _slowest(report: Report) -> str:
    if not report.slowest:
        return ""
    kinds = {node.node_id: node.kind for node in report.nodes}
    rows = "".join(
        f"<tr><th scope=row>{escape(one.name or words.label(one.task_name, kinds.get(one.node_id, 'map'), one.index))}"
        f'</th><td><span class="badge s-{one.state.title}">{escape(one.state_name or one.state.title)}</span></td>'
        f"<td class=num>{one.attempts}</td><td class=num>{words.brief(one.seconds or 0.0)}</td>"
        f"<td class=worker>{escape(one.worker)}</td></tr>"
        for one in report.slowest
    )
    head = (
        "<tr><th>Task run</th><th>State</th><th class=num>Tries</th><th class=num>Took</th>"
        "<th class=worker>Worker</th></tr>"
    )
    return _section("Slowest task runs", f"<div class=scroll><table>{head}{rows}</table></div>")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at))
