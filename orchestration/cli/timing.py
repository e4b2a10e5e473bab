"""`millrace runs show RUN --timing`: where the time of a run went, for people and for scripts."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from ..stores.timing import line_of
from ..terminal.words import brief, plural
from .output import print_table

if TYPE_CHECKING:
    from ..stores.base import RunRow
    from ..stores.timing import NodeTiming, RunTiming

LEGEND = """\
  WALL: first start to last end. CODE: in user code, CPU: of workers, both sums.
  QUEUE: a task run's mean wait for a slot. ENGINE: a batch's mean time on its
  way to a worker and back. BATCHES: how many x the median of their task runs."""
HEAD = ("NODE", "RUNS", "WALL", "CODE", "CPU", "QUEUE", "ENGINE", "BATCHES")
_BUSY = 0.7  # of the wall time: above it the coordinator may be what others wait for
_MOSTLY = {
    "user code": "Mostly user code: only faster code or more slots make this run shorter.",
    "workers around it": (
        "Workers were mostly busy around the code: with large arguments, results to store, or very short task "
        "runs. Fewer, larger task runs help."
    ),
    "on the way": (
        "Slots mostly waited for batches on the way: task runs are too short for this runner, or their results "
        "too large."
    ),
    "idle": (
        "Slots mostly had nothing to run: the flow's own code, a limit, a retry's delay, or the last and longest "
        "task runs of a map kept them waiting."
    ),
}


def print_timing(told: RunTiming, run: RunRow, *, most: int) -> None:
    """Print a table of nodes, single task runs of one task together, what went wrong and what took the time."""
    ran = [row for row in told.lines if row.attempts]
    if not ran:
        click.echo("  no attempt has ended yet: nothing to time")
        return
    shown = sorted(ran, key=lambda row: -row.code_seconds)[:most]
    shown.sort(key=lambda row: row.node.node_id)
    print_table(HEAD, [_cells(row) for row in shown], right=frozenset(range(1, 8)), shrink=(0,))
    if len(ran) > len(shown):
        click.echo(f"  + {plural(len(ran) - len(shown), 'line')} with less code time; --json has all")
    click.echo(LEGEND)
    for row in shown:
        for sentence in _remarks(row):
            _say(sentence)
    if told.slots:
        _say(_shares(told))
        if run.coordinator_seconds:
            _say(_coordinator(run.coordinator_seconds, told.wall_seconds))
        _say(_MOSTLY[max(parts := _parts(told), key=parts.__getitem__)])
    else:
        _say("This run was recorded by an earlier version: its batches have no times.")


def _say(text: str) -> None:
    click.echo(textwrap.fill(text, 78, initial_indent="  ", subsequent_indent="    "))


def _cells(row: NodeTiming) -> list[str]:
    wall = "-" if row.started is None or row.ended is None else brief(row.ended - row.started)
    engine = (row.delivery_seconds + row.return_seconds) / row.batches if row.batches else 0.0
    return [
        _name(row),
        f"{row.attempts - row.retries:,}",
        wall,
        brief(row.code_seconds),
        brief(row.cpu_seconds),
        brief(row.slot_wait_seconds / row.items),
        brief(engine),
        f"{row.batches:,} x {row.batch_median:,}",
    ]


def _name(row: NodeTiming) -> str:
    return line_of(row.node) if row.nodes > 1 else row.node.path.removesuffix("-0")


def _remarks(row: NodeTiming) -> list[str]:
    """Return what is worth a sentence, only where there is some."""
    name, found = _name(row), []
    if row.retries:
        again = f"{name}: {plural(row.retries, 'attempt')} had to be repeated, after {brief(row.retry_seconds)} of code"
        waited = f" and {brief(row.retry_wait_seconds)} of waiting" if row.retry_wait_seconds else ""
        found.append(f"{again}{waited}.")
    if row.limit_wait_seconds:
        found.append(
            f"{name}: its task runs waited {brief(row.limit_wait_seconds)} for limits, all together."
        )
    return found


def _coordinator(used: float, wall: float) -> str:
    busy = f"The coordinator was busy for {brief(used)} of CPU time."
    if used < _BUSY * wall:
        return busy
    return f"{busy} It could hardly keep up: fewer, larger task runs help, and nothing else in the flow's process."


def _parts(told: RunTiming) -> dict[str, float]:
    return {
        "user code": told.code_seconds,
        "workers around it": told.worker_seconds,
        "on the way": told.engine_seconds,
        "idle": told.idle_seconds,
    }


def _shares(told: RunTiming) -> str:
    parts = _parts(told)
    whole = sum(parts.values()) or 1.0
    shares = ", ".join(f"{round(100 * s / whole)}% {what}" for what, s in parts.items() if s >= whole / 200)
    return f"{plural(told.slots, 'slot')} in {brief(told.wall_seconds)}: {shares}."
