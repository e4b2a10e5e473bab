"""Waiting for a server that was there and is not any more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ..errors import StoreUnreachableError

PATIENCE_SECONDS = 60.0
FIRST_NAP_SECONDS = 0.02
_LONGEST_NAP_SECONDS = 1.0
_QUIET_SECONDS = 1.0  # shorter breaks are not worth a line

log = logging.getLogger("millrace.driver")


class Patience:
    """The wait of one call: naps that grow, a line in the log if it lasts, and an end.

    Args:
        explain: makes the error to raise of what was caught and the seconds waited.
        quiet: nothing waits that is worth a line.
    """

    def __init__(
        self,
        seconds: float,
        closing: threading.Event,
        explain: Callable[[Exception, float], StoreUnreachableError],
        *,
        quiet: bool = False,
    ) -> None:
        self._seconds = seconds
        self._closing = closing
        self._explain = explain
        self._began: float | None = None
        self._nap = 0.0  # a connection that was idle for long may be all that is broken
        self._quiet = quiet
        self._told = False

    def nap(self, error: Exception) -> None:
        """Return when it is time to try again.

        Raises:
            StoreUnreachableError: there is no more patience, or the store is being closed.
        """
        now = time.monotonic()
        began = self._began = now if self._began is None else self._began
        if now - began > self._seconds or self._closing.is_set():
            raise self._explain(error, now - began) from error
        if not self._told and not self._quiet and now - began > _QUIET_SECONDS:
            self._told = True
            log.error(
                "the run waits for its store, for at most %g s: %s", self._seconds, self._explain(error, 0.0)
            )
        self._closing.wait(self._nap)
        self._nap = min(max(self._nap * 1.5, FIRST_NAP_SECONDS), _LONGEST_NAP_SECONDS)

    def over(self) -> None:
        """Say that the wait has ended well, if it was told of."""
        if self._told:
            log.warning("the store can be reached again; the run goes on")
