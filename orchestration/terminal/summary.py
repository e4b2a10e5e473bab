"""The first and the last lines of a run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from ..core.states import RunState, State
from ..stores.base import RunRow
from . import words
from .styled import STATE_STYLE, Line
from .tally import Failure, Tally

MAX_FAILURE_LINES = 3
MAX_TRACEBACK_LINES = 12
MAX_MESSAGE_CHARS = 160

_RAN = (State.COMPLETED, State.SKIPPED, State.FAILED)
_FILE = re.compile(r'^  File "(.+)", line (\d+)', re.MULTILINE)


def opening(row: RunRow, runner: str, store_url: str) -> list[Line]:
    """Say which run has begun, where it runs and where it is recorded."""
    return [
        [(row.name, "bold"), (f"  flow {row.flow_name} on {runner}", "")],
        [(f"  recorded in {short_store(store_url)}", "dim")],
    ]


def short_store(url: str) -> str:
    """Return a store's URL for people: a path as they would type it."""
    if url == "memory":
        return "memory only: it is gone when this process ends"
    path = url.removeprefix("sqlite:///")
    home = os.path.expanduser("~")
    return f"~{path[len(home) :]}" if path.startswith(home + os.sep) else path


def closing(
    row: RunRow,
    counts: Sequence[int],
    tally: Tally,
    seconds: float,
    *,
    starting_seconds: float = 0.0,
    recorded: bool,
) -> list[Line]:
    """Say how a run has ended, what became of its task runs, and where to look next.

    Args:
        seconds: that it took once its runner was there, which took `starting_seconds`.
    """
    total, ran = sum(counts), sum(counts[s] for s in _RAN)
    state = row.state_name or row.state.title
    speed = f", {words.rate(ran / seconds)}" if ran >= 10 and seconds > 0 else ""
    start = f" (+ {words.duration(starting_seconds)} to start)" if starting_seconds >= 1 else ""
    lines: list[Line] = [
        [
            (row.name, "bold"),
            (" ", ""),
            (state, STATE_STYLE.get(row.state.title, "")),
            (f" in {words.duration(seconds)}{start}: {words.plural(total, 'task run')}{speed}", ""),
        ]
    ]
    detail = words.kinds(counts, cached=tally.cached)
    events = [words.plural(tally.retries, "retry").replace("retrys", "retries")] if tally.retries else []
    events += [f"{tally.lost:,} lost with a worker"] if tally.lost else []
    if total and (events or detail != f"{total:,} completed"):
        lines.append([("  " + "; ".join([detail, *([", ".join(events)] if events else [])]), "")])
    if row.message and row.state is not RunState.COMPLETED and not _repeats(row.message, tally):
        lines.append([("  " + _shortened(row.message), STATE_STYLE.get(row.state.title, ""))])
    lines += failure_lines(tally.failures.values())
    if row.state is RunState.COMPLETED:
        lines += _first_traceback(tally)  # nobody raises it, so nobody else shows it
    if recorded:
        lines.append([(f"  millrace runs show {row.name}", "dim")])
        if row.state is RunState.CANCELLED and row.entrypoint:
            lines.append([(f"  millrace runs resume {row.name}", "dim")])
    return lines


def subflow_line(row: RunRow, counts: Sequence[int], seconds: float) -> Line:
    """Return the one line that a subflow leaves."""
    return [
        (f"  subflow {row.name} ({row.flow_name}) ", "dim"),
        (row.state_name or row.state.title, STATE_STYLE.get(row.state.title, "")),
        (f" in {words.duration(seconds)}: {words.kinds(counts) or 'no task runs'}", "dim"),
    ]


def failure_lines(failures: Iterable[Failure]) -> list[Line]:
    """Return the errors of task runs, most frequent first."""
    ordered = sorted(failures, key=lambda f: -f.count)
    lines: list[Line] = [[("  " + failure_text(f), "red")] for f in ordered[:MAX_FAILURE_LINES]]
    if len(ordered) > MAX_FAILURE_LINES:
        lines.append(
            [(f"  + {words.plural(len(ordered) - MAX_FAILURE_LINES, 'other kind')} of error", "red")]
        )
    return lines


def failure_text(failure: Failure) -> str:
    """Return such as `ValueError: bad 17 (3 task runs, first transform[17], flows.py:12)`."""
    name = failure.type_name.removeprefix("builtins.")
    message = _shortened(failure.message)
    what = ": ".join(part for part in (name, message) if part) or "failed"
    many = failure.count > 1 or not failure.first
    number = words.plural(failure.count, "task run") if many else ""
    first = f"first {failure.first}" if many and failure.first else failure.first
    notes = [part for part in (number, first, location(failure.traceback)) if part]
    return f"{what} ({', '.join(notes)})"


def location(traceback: str) -> str:
    """Return the file and line where an exception was raised, "" if its traceback does not tell."""
    found = _FILE.findall(traceback)
    return f"{os.path.basename(found[-1][0])}:{found[-1][1]}" if found else ""


def _first_traceback(tally: Tally) -> list[Line]:
    failure = next(iter(tally.failures.values()), None)
    if failure is None or not failure.traceback:
        return []
    lines = failure.traceback.rstrip().splitlines()
    if len(lines) > MAX_TRACEBACK_LINES:
        half = MAX_TRACEBACK_LINES // 2
        lines = [*lines[:half], f"  ... {len(lines) - 2 * half} lines ...", *lines[-half:]]
    return [[(f"    {line}", "dim")] for line in lines]


def _repeats(message: str, tally: Tally) -> bool:
    """Whether a run's message only says again what its state or one of its task runs says."""
    return message.startswith("cancelled while it ran") or any(
        f.message and message.endswith(f.message) for f in tally.failures.values()
    )


def _shortened(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= MAX_MESSAGE_CHARS else line[: MAX_MESSAGE_CHARS - 1] + "…"
