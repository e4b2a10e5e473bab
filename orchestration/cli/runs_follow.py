"""`millrace runs logs`, and how a run is followed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator

import click

from ..core.states import RUN_TERMINAL
from ..errors import UserError
from ..stores.as_json import log_json
from ..stores.base import LogRow, RunRow, Store
from ..terminal import words
from ..terminal.screen import log_line
from .common import find_run, open_reaped, run_argument, store_option
from .output import print_lines

POLL_SECONDS = 0.25
LONGEST_POLL_SECONDS = 2.0
REAP_SECONDS = 5.0


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
    for _ in looks(store, row.run_id) if follow else [row]:
        while page := store.logs(row.run_id, after=after, min_level=lowest):
            after = page[-1].seq
            yield from page


def looks(store: Store, run_id: str) -> Iterator[RunRow]:
    """Yield a run's row again and again, the last time when it has ended."""
    reaped = time.monotonic()
    while True:
        if time.monotonic() - reaped > REAP_SECONDS:
            store.reap(store.now())
            reaped = time.monotonic()
        began = time.monotonic()
        row = store.run(run_id)
        yield row
        if row.state in RUN_TERMINAL:
            return
        # The store is all that two processes share; looking at it takes a fifth of the time at most.
        time.sleep(min(LONGEST_POLL_SECONDS, max(POLL_SECONDS, 4 * (time.monotonic() - began))))


def ended(store: Store, run_id: str) -> RunRow:
    """Wait until a run has ended; return its last row."""
    *_, last = looks(store, run_id)
    return last


def _level(name: str) -> int:
    levels = logging.getLevelNamesMapping()
    if name.isdigit():
        return int(name)
    if name.upper() not in levels:
        raise UserError(f"There is no log level {name!r}. There are: DEBUG, INFO, WARNING, ERROR, CRITICAL.")
    return levels[name.upper()]
