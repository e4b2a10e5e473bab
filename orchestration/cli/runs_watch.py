"""`millrace runs watch`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click

from ..core.states import RUN_TERMINAL, State
from ..stores.as_json import run_json
from ..stores.base import NodeRow, RunRow, Store
from ..stores.failures import FailureGroup
from ..stores.running import running_now
from ..terminal import words
from ..terminal.overview import MAX_ERRORS, Busy, Overview, overview_lines, overview_text
from ..terminal.progress import NodeProgress, Speed, progress_text
from ..terminal.styled import STATE_STYLE, Line, ascii_only, is_terminal, speaks_unicode
from ..terminal.summary import failure_text
from ..terminal.tally import Failure
from .common import find_run, json_option, open_reaped, run_argument, state_title, store_option
from .exits import Exit, of_state
from .output import print_json, print_lines
from .runs_follow import ended, looks
from .runs_look import failures_of, progress_of

PLAIN_SECONDS = 5.0
MAX_RUNNING = 200  # task runs that are looked for, to tell who is busy
MAX_KINDS = 100


@click.command()
@run_argument
@json_option
@store_option
def watch(run: str, as_json: bool, store: str | None) -> int:
    """Watch a run of another process until it ends. The exit code says how it did.

    Ctrl-C ends the watching, not the run: exit code 130. JSON, printed at the end: the keys of `runs ls`.
    """
    try:
        place = open_reaped(store)
        row = find_run(place, run)
        if as_json:
            row = ended(place, row.run_id)
            print_json(run_json(row))
        else:
            row = _watch_live(place, row) if is_terminal(sys.stdout) else _watch_plain(place, row)
            _print_end(row)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return of_state(row.state.title)


def _print_end(row: RunRow) -> None:
    took = words.duration((row.ended or 0.0) - (row.started or row.created))
    style = STATE_STYLE.get(row.state.title, "")
    end: Line = [(row.name, "bold"), (" ", ""), (row.state_name or row.state.title, style)]
    end.append((f" after {took}: {words.kinds(row.counts) or 'no task runs'}", ""))
    print_lines([end, [(f"  millrace runs show {row.name}", "dim")]], wrap=True)


class _Watcher:
    """Looks at a run again and again; speeds are from one look to the next."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._speeds: dict[str, Speed] = {}

    def look(self, row: RunRow) -> Overview:
        store, now = self._store, time.time()
        current = [node for node in store.nodes(row.run_id) if node.replaced_by is None]
        nodes = [self._paced(node) for node in progress_of(current)]
        width = None if any(node.width is None for node in nodes) else sum(node.width or 0 for node in nodes)
        counts = [sum(column) for column in zip(*(node.counts for node in nodes), strict=True)]
        failures = self._failures(row, current) if counts else []
        return Overview(
            row.name,
            state_title(store, row),
            max(0.0, (row.ended or now) - (row.started or row.created)),
            self._paced(NodeProgress("", width, counts or [0] * len(State))),
            nodes,
            self._busy(row, current, now),
            failures[:MAX_ERRORS],
            max(0, len(failures) - MAX_ERRORS),
        )

    def _paced(self, node: NodeProgress) -> NodeProgress:
        speed = self._speeds.setdefault(node.name, Speed()).update(time.monotonic(), node.done)
        return NodeProgress(node.name, node.width, node.counts, speed)

    def _busy(self, row: RunRow, nodes: Sequence[NodeRow], now: float) -> list[Busy]:
        kinds = {node.node_id: node.kind for node in nodes}
        found: dict[str, Busy] = {}
        for item in running_now(self._store, row.run_id, nodes, MAX_RUNNING):
            worker = item.worker or row.host
            label = item.name or words.label(item.task_name, kinds[item.node_id], item.index)
            found[worker] = Busy(worker, label, max(0.0, now - (item.started or now)))
        return sorted(found.values(), key=lambda busy: -busy.seconds)

    def _failures(self, row: RunRow, nodes: Sequence[NodeRow]) -> list[str]:
        if not any(node.counts[state] for node in nodes for state in (State.FAILED, State.CRASHED)):
            return []
        roots = failures_of(self._store, row.run_id, MAX_KINDS)
        roots.sort(key=lambda group: group.last.at if group.last else 0.0, reverse=True)
        named = {node.node_id: node for node in nodes}
        return [_in_words(group, named) for group in roots]


def _in_words(group: FailureGroup, nodes: dict[int, NodeRow]) -> str:
    error, first = group.error, ""
    node = nodes.get(group.first.node_id) if group.first else None
    if node is not None and group.first is not None:
        first = words.label(node.task_name, node.kind, group.first.index)
    return failure_text(Failure(error.type_name, error.message, error.traceback, first, group.count))


def _watch_live(store: Store, row: RunRow) -> RunRow:
    from ..terminal.region import Region

    unicode = speaks_unicode(sys.stdout)  # which stands for something else while there is a region
    watcher, region = _Watcher(store), Region(sys.stdout)
    lines: list[Line] = []
    now = row
    try:
        for now in looks(store, row.run_id):
            columns, rows = region.size
            lines = overview_lines(watcher.look(now), columns=columns, rows=max(8, rows - 2), unicode=unicode)
            lines = lines if unicode else [ascii_only(line) for line in lines]
            region.update(lines)
    finally:
        region.close(lines[1:])
    return now


def _watch_plain(store: Store, row: RunRow) -> RunRow:
    watcher, told = _Watcher(store), set[str]()
    due = 0.0
    now = row
    for now in looks(store, row.run_id):
        over = now.state in RUN_TERMINAL
        if time.monotonic() < due and not over:
            continue
        due = time.monotonic() + PLAIN_SECONDS
        run, at = watcher.look(now), words.clock(time.time())
        new = [text for text in run.errors if text.rpartition(" (")[0] not in told]
        told.update(text.rpartition(" (")[0] for text in new)
        print_lines([[(f"{at} {text}", "red")] for text in reversed(new)])
        if not over:
            print_lines([[(f"{at} {progress_text(overview_text(run), run.nodes)}", "")]])
    return now
