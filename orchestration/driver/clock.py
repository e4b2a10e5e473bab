"""Time for the driver."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Return seconds since the epoch; never goes back."""


class SteadyClock:
    """Wall time as it was at the start, carried on by the monotonic clock: clock changes do not move timers."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()
