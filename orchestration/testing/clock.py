"""Time that stands still until it is told to pass."""

from __future__ import annotations


class ManualClock:
    """A clock for tests: `now()` is what it was set to. Fits wherever the driver takes a clock."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Let time pass and return the new time."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._now += seconds
        return self._now

    def jump(self, to: float) -> None:
        """Go to a time that is not before the present one."""
        self.advance(to - self._now)
