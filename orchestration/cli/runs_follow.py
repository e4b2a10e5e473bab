"""`millrace runs logs` and `watch`."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator

import click

from ..core.states import RUN_TERMINAL
from ..errors import UserError
from ..stores.as_json import log_json, run_json
from ..stores.base import LogRow, RunRow, Store
from ..terminal import words
from ..terminal.progress import MAX_NODE_LINES, NodeProgress, Speed, progress_lines, progress_text
from ..terminal.screen import log_line
from ..terminal.styled import STATE_STYLE, Line, is_terminal
from .common import find_run, json_option, open_reaped, run_argument, state_title, store_option
from .exits import of_state
from .output import print_json, print_lines

POLL_SECONDS = 0.25
REAP_SECONDS = 5.0
PLAIN_SECONDS = 5.0


@click.command()
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--level", default="DEBUG", help="The lowest level to print, such as WARNING.")
@click.option("--task", help="Only lines of this task.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@store_option
def logs(run: str, follow: bool, level: str, task: str | None, as_json: bool, store: str | None) -> None:
    """Print the log lines of a run.

    JSON keys: seq, at, level, logger, task, node, index, attempt, message; node -1 is the flow itself.
    """
    place = open_reaped(store)
    row = find_run(place, run)
    lowest = _level(level)
    kinds: dict[int, str] = {}
    for line in _lines(place, row, lowest, follow=follow):
        if task is not None and line.task_name != task:
            continue
        if as_json:
            click.echo(json.dumps(log_json(line), ensure_ascii=False))
            continue
        if line.node_id >= 0 and line.node_id not in kinds:
            kinds = {node.node_id: node.kind for node in place.nodes(row.run_id)}
        whose = words.label(line.task_name, kinds.get(line.node_id, ""), line.index) or row.name
        print_lines([log_line(line.at, line.level, whose, line.message)])


def _lines(store: Store, row: RunRow, lowest: int, *, follow: bool) -> Iterator[LogRow]:
    after = 0
    for _ in _looks(store, row.run_id) if follow else [row]:
        while page := store.logs(row.run_id, after=after, min_level=lowest):
            after = page[-1].seq
            yield from page


def _looks(store: Store, run_id: str) -> Iterator[RunRow]:
    """Yield a run's row again and again, the last time when it has ended."""
    reaped = time.monotonic()
    while True:
        if time.monotonic() - reaped > REAP_SECONDS:
            store.reap(store.now())
            reaped = time.monotonic()
        row = store.run(run_id)
        yield row
        if row.state in RUN_TERMINAL:
            return
        time.sleep(POLL_SECONDS)  # the store is all that two processes share


def ended(store: Store, run_id: str) -> RunRow:
    """Wait until a run has ended; return its last row."""
    *_, last = _looks(store, run_id)
    return last


def _level(name: str) -> int:
    levels = logging.getLevelNamesMapping()
    if name.isdigit():
        return int(name)
    if name.upper() not in levels:
        raise UserError(f"There is no log level {name!r}. There are: DEBUG, INFO, WARNING, ERROR, CRITICAL.")
    return levels[name.upper()]


@click.command()
@run_argument
@json_option
@store_option
def watch(run: str, as_json: bool, store: str | None) -> int:
    """Watch a run of another process until it ends. The exit code says how it did.

    Ctrl-C ends the watching, not the run. JSON, printed at the end: the keys of `runs ls`.
    """
    place = open_reaped(store)
    row = find_run(place, run)
    if as_json:
        row = ended(place, row.run_id)
        print_json(run_json(row))
        return of_state(row.state.title)
    row = _watch_live(place, row) if is_terminal(sys.stdout) else _watch_plain(place, row)
    style = STATE_STYLE.get(row.state.title, "")
    took = words.duration((row.ended or 0.0) - (row.started or row.created))
    end: Line = [(row.name, "bold"), (" ", ""), (row.state_name or row.state.title, style)]
    end.append((f" after {took}: {words.kinds(row.counts) or 'no task runs'}", ""))
    print_lines([end, [(f"  millrace runs show {row.name}", "dim")]])
    return of_state(row.state.title)


class _Speeds:
    """The progress of a run's nodes, with speeds from one look to the next."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._speeds: dict[int, Speed] = {}

    def look(self) -> list[NodeProgress]:
        now, found = time.monotonic(), []
        for node in self._store.nodes(self._run_id):
            if node.replaced_by is None:
                line = node.path.removesuffix("-0")
                made = NodeProgress(line, node.width, node.counts)
                speed = self._speeds.setdefault(node.node_id, Speed()).update(now, made.done)
                found.append(NodeProgress(line, node.width, node.counts, speed))
        return found


def _watch_live(store: Store, row: RunRow) -> RunRow:
    from ..terminal.region import Region

    speeds = _Speeds(store, row.run_id)
    region = Region(sys.stdout)
    lines: list[Line] = []
    now = row
    try:
        for now in _looks(store, row.run_id):
            columns, rows = region.size
            elapsed = words.left(time.time() - (now.started or now.created))
            head: Line = [(now.name, "bold"), (f"  {state_title(store, now)}  {elapsed}", "dim")]
            nodes = progress_lines(speeds.look(), columns=columns, rows=max(3, min(rows - 4, MAX_NODE_LINES)))
            lines = [head, *nodes]
            region.update(lines)
    finally:
        region.close(lines[1:])
    return now


def _watch_plain(store: Store, row: RunRow) -> RunRow:
    speeds = _Speeds(store, row.run_id)
    due = 0.0
    now = row
    for now in _looks(store, row.run_id):
        nodes = speeds.look()
        if time.monotonic() >= due and now.state not in RUN_TERMINAL:
            due = time.monotonic() + PLAIN_SECONDS
            text = progress_text(f"{now.name} {state_title(store, now)}", nodes)
            print_lines([[(f"{words.clock(time.time())} {text}", "")]])
    return now
