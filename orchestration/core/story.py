"""What happened to a task run, in words."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .states import TABLE, Cause

KEPT = 20_000  # newest transitions, one per batch ...
KEPT_ITEMS = 1_000_000  # ... with at most so many items that are not in ranges

_WORDS = {
    Cause.UPSTREAM_DONE: "its upstream has ended, it may run",
    Cause.UPSTREAM_FAILED: "its trigger can no longer hold",
    Cause.UPSTREAM_SKIPPED: "an upstream was skipped",
    Cause.UPSTREAM_UNUSABLE: "its upstream result cannot be mapped over",
    Cause.LIMIT_REACHED: "it waits for a limit",
    Cause.LIMIT_FREED: "it has what it waited for",
    Cause.DISPATCHED: "it went to the engine",
    Cause.STARTED: "its code has started",
    Cause.COMPLETED: "it completed",
    Cause.SKIPPED: "it asked to be skipped",
    Cause.FAILED: "it failed",
    Cause.WILL_RETRY: "it failed and will be tried again",
    Cause.RETURNED: "it came back unstarted",
    Cause.LOST: "it was lost with its worker and will run again",
    Cause.LOST_FOR_GOOD: "it was lost with its worker for good",
    Cause.TIMER: "its delay is over",
    Cause.PAUSED: "it was paused",
    Cause.RESUMED: "it was resumed",
    Cause.CANCELLED: "it was cancelled",
    Cause.RECOVERED: "its result was already stored",
    Cause.INTERRUPTED: "the run ended before it could",
    Cause.RODE_ALONG: "it went to the engine in one batch with its upstream",
    Cause.WAITS_AGAIN: "it came back unstarted and waits for its upstream",
    Cause.LOST_ON_THE_WAY: "it was lost with its worker and will run again after its upstream",
    Cause.INPUT_LOST: "a result that it reads is gone and is made again",
    Cause.SKIPPED_BEFORE: "it had already asked to be skipped",
}


class Story:
    """The newest transitions of a run, one line per batch."""

    def __init__(self) -> None:
        self._lines: deque[tuple[float, int, Sequence[int], Cause, str]] = deque()
        self._items = 0

    def add(self, at: float, node_id: int, indices: Sequence[int], cause: Cause, reason: str) -> None:
        lines = self._lines
        if not isinstance(indices, range):
            self._items += len(indices)
            while self._items > KEPT_ITEMS and lines:
                self._drop(lines.popleft()[2])
        if len(lines) == KEPT:
            self._drop(lines.popleft()[2])
        lines.append((at, node_id, indices, cause, reason))

    def _drop(self, indices: Sequence[int]) -> None:
        if not isinstance(indices, range):
            self._items -= len(indices)

    def of(self, node_id: int, index: int) -> list[str]:
        """Return the lines about one item, oldest first."""
        return [
            line(at, cause, reason)
            for at, node, indices, cause, reason in self._lines
            if node == node_id and index in indices
        ]


def line(at: float, cause: Cause, reason: str) -> str:
    """Return one transition in words."""
    words = f"{at:.3f} {TABLE[cause][1].title}: {_WORDS[cause]}"
    return f"{words} ({reason})" if reason else words
