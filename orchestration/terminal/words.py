"""How numbers, times and durations read."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..core.states import State

BAD = (State.FAILED, State.CRASHED, State.UPSTREAM_FAILED, State.CANCELLED)


def duration(seconds: float) -> str:
    """Return a duration as `0.28 ms`, `41 ms`, `0.34 s`, `12.3 s`, `2 min 5 s`, `3 h 20 min`, `4 d 2 h`."""
    seconds = max(0.0, seconds)
    if 0 < seconds < 0.0995:
        thousandths = 1000 * seconds
        digits = 2 if thousandths < 0.995 else 1 if thousandths < 9.95 else 0
        return f"{thousandths:.{digits}f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, lower_size, lower in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // lower_size
            return f"{whole // size} {unit} {rest} {lower}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def brief(seconds: float) -> str:
    """Return a duration for narrow columns: `3ms`, `0.34s`, `12.3s`, `2m05s`, `3h20m`, `4d02h`."""
    seconds = max(0.0, seconds)
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f}ms" if seconds else "0s"
    if seconds < 59.95:
        return f"{seconds:.2f}s" if seconds < 9.995 else f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def ago(at: float | None, now: float) -> str:
    """Return how long ago something was; a date if that is more than 30 days."""
    if at is None:
        return "-"
    seconds = now - at
    if seconds < 1:
        return "now"
    if seconds >= 30 * 86400:
        return time.strftime("%Y-%m-%d", time.localtime(at))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "now"


def left(seconds: float) -> str:
    """Return a remaining time as `0:09`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rate(per_second: float) -> str:
    """Return a speed as `1,234/s`, `8.5/s` or `3.2/min`."""
    if per_second >= 99.5:
        return f"{per_second:,.0f}/s"
    if per_second >= 1:
        return f"{per_second:.1f}/s"
    return f"{per_second * 60:.1f}/min"


def clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def label(task_name: str, kind: str, index: int) -> str:
    """Return what people call a task run: `extract[17]` in a map, else `extract`."""
    return f"{task_name}[{index}]" if kind == "map" else task_name


def kinds(counts: Sequence[int], *, cached: int = 0) -> str:
    """Return counts by state in words, such as `9,940 completed (4 cached), 20 failed`."""
    parts = []
    for state in (
        State.COMPLETED,
        State.SKIPPED,
        State.FAILED,
        State.UPSTREAM_FAILED,
        State.CRASHED,
        State.CANCELLED,
        State.RUNNING,
        State.SUBMITTED,
        State.READY,
        State.PENDING,
        State.AWAITING_LIMIT,
        State.AWAITING_RETRY,
        State.PAUSED,
    ):
        if counts[state]:
            note = f" ({cached:,} cached)" if state is State.COMPLETED and cached else ""
            parts.append(f"{counts[state]:,} {_WORDS[state]}{note}")
    return ", ".join(parts)


_WORDS = {
    State.PENDING: "waiting for upstream",
    State.READY: "ready",
    State.AWAITING_LIMIT: "waiting for a limit",
    State.SUBMITTED: "submitted",
    State.RUNNING: "running",
    State.AWAITING_RETRY: "waiting to retry",
    State.PAUSED: "paused",
    State.COMPLETED: "completed",
    State.SKIPPED: "skipped",
    State.FAILED: "failed",
    State.UPSTREAM_FAILED: "upstream failed",
    State.CRASHED: "crashed",
    State.CANCELLED: "cancelled",
}
