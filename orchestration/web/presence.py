"""What a server that was away must not conclude: that those are dead who could not be heard."""

from __future__ import annotations

import threading
import time

from ..stores.base import DEAD_AFTER_SECONDS
from ..stores.served import ServedStore
from ..stores.sql.store import SqlStore

ABSENT_SECONDS = (
    DEAD_AFTER_SECONDS / 2
)  # without a sign of life of its own the server was away: stopped, or suspended
HEARD_WITHIN_SECONDS = DEAD_AFTER_SECONDS  # of its return, whoever lives


class Presence:
    """Knows whether the server has been there long enough to have heard of whoever lives."""

    def __init__(self, store: ServedStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._last = float("-inf")
        self._sure = 0.0  # from then on silence counts

    def here(self) -> None:
        """Note that the server is at work; after an absence the leases of live runs are renewed first.

        They were to be renewed by heartbeats that could not arrive. It is called before each request is answered,
        so nobody gets a limit before that.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._last > ABSENT_SECONDS:
                if isinstance(self._store, SqlStore):
                    self._store.keep_leases(self._store.now())
                self._sure = now + HEARD_WITHIN_SECONDS
            self._last = now

    def reap(self, now: float, *, proven: bool = False) -> list[str]:
        """Mark runs of dead processes as Crashed; soon after an absence only those whose end is proven."""
        self.here()
        return self._store.reap(now, proven=proven or time.monotonic() < self._sure)
