"""A whole run in a few lines, from its record: how far it is, what runs now, what went wrong. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.states import State
from . import words
from .progress import NodeProgress, progress_lines
from .styled import STATE_STYLE, Line, cut

MAX_WORKERS = 4
MAX_ERRORS = 3
MAX_WORKER_COLUMNS = 34


@dataclass(frozen=True, slots=True)
class Busy:
    """A worker, and the task run that it has begun last."""

    worker: str
    label: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Overview:
    """A run at one time.

    Attributes:
        whole: all of its task runs, as far as they are known by now.
        busy: workers, those that have been at theirs longest first.
        errors: distinct ones in words, the latest first.
        more_errors: how many others there are.
    """

    name: str
    state: str
    seconds: float
    whole: NodeProgress
    nodes: Sequence[NodeProgress] = ()
    busy: Sequence[Busy] = ()
    errors: Sequence[str] = ()
    more_errors: int = 0


def overview_lines(run: Overview, *, columns: int, rows: int, unicode: bool = True) -> list[Line]:
    """Return at most `rows` lines (8 or more) of at most `columns`."""
    room = columns - 1  # the last one makes some terminals wrap
    busy, errors = _busy_lines(run, rows < 16), _error_lines(run, rows < 12)
    most = rows - 1 - len(busy) - len(errors)
    nodes = progress_lines(run.nodes, columns=columns, rows=most, unicode=unicode)
    return [cut(line, room) for line in (_head(run), *nodes, *busy, *errors)]


def overview_text(run: Overview) -> str:
    """Return how far a run is and what runs now, without its nodes."""
    parts = [f"{run.name} {run.state} {run.whole.amount}", *_pace(run.whole)]
    if run.busy:
        workers, oldest = words.plural(len(run.busy), "worker"), run.busy[0]
        parts.append(f"{workers} busy, longest with {oldest.label} for {words.duration(oldest.seconds)}")
    return ", ".join(parts)


def _head(run: Overview) -> Line:
    line: Line = [
        (run.name, "bold"),
        ("  ", ""),
        (run.state, STATE_STYLE.get(run.state, "")),
        (f"  {words.left(run.seconds)}", "dim"),
        (f"  {run.whole.amount}", ""),
    ]
    return line + [(f"  {text}", "") for text in _pace(run.whole)]


def _pace(whole: NodeProgress) -> list[str]:
    if whole.rate is None or whole.finished:
        return []
    left = whole.seconds_left
    return [words.rate(whole.rate), *([] if left is None else [f"{words.left(left)} left"])]


def _busy_lines(run: Overview, few: bool) -> list[Line]:
    """Return who is busy with what; with `few` on a single line."""
    if not run.busy:
        return []
    running = run.whole.counts[State.RUNNING]
    head = f"  {running:,} running on {words.plural(len(run.busy), 'worker')}"
    if few:
        return [[(head, "dim"), (f": {run.busy[0].label} for {words.brief(run.busy[0].seconds)}", "")]]
    shown = run.busy[:MAX_WORKERS]
    width = min(MAX_WORKER_COLUMNS, max(len(one.worker) for one in shown))
    lines: list[Line] = [[(head, "dim")]]
    for one in shown:
        # the end of a worker's name tells it from others
        worker = one.worker if len(one.worker) <= width else "…" + one.worker[1 - width :]
        lines.append(
            [(f"    {worker:<{width}}  ", "dim"), (f"{words.brief(one.seconds):>6}  {one.label}", "")]
        )
    if len(run.busy) > len(shown):
        lines.append([(f"    + {len(run.busy) - len(shown):,} more", "dim")])
    return lines


def _error_lines(run: Overview, few: bool) -> list[Line]:
    shown = run.errors[: 1 if few else MAX_ERRORS]
    lines: list[Line] = [[(f"  {text}", "red")] for text in shown]
    more = run.more_errors + len(run.errors) - len(shown)
    if more:
        lines.append([(f"  + {words.plural(more, 'other kind')} of error", "red")])
    return lines
