"""Writing turns down, and what happens when that fails.

A store that is full or locked may become well again: the run waits, nothing is performed that is not
written, and somebody is told. A store that is broken stops the run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from ..core.journal import Entry
from ..errors import StoreFullError, StoreLockedError
from ..stores.base import Store

log = logging.getLogger("millrace.driver")

PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 0.5


class Journaling:
    """Appends a run's entries to its store."""

    def __init__(self, store: Store, run_id: str, epoch: int) -> None:
        self.store = store
        self.run_id = run_id
        self.epoch = epoch
        self._pause = threading.Event()

    def append(self, entries: Sequence[Entry], *, closing: Callable[[], bool]) -> None:
        """Append entries; wait up to PATIENCE_SECONDS for a store that is full or locked.

        Raises:
            StoreError: the entries are not written, and it is no use to try again.
        """
        began = 0.0
        while True:
            try:
                self.store.append(self.run_id, self.epoch, entries)
            except (StoreFullError, StoreLockedError) as error:
                now = time.monotonic()
                if not began:
                    began = now
                    log.error("the run waits for its store, for at most %g s: %s", PATIENCE_SECONDS, error)
                if now - began > PATIENCE_SECONDS or (closing() and now - began > RETRY_SECONDS):
                    raise
                self._pause.wait(RETRY_SECONDS)
            else:
                if began:
                    log.warning("the store can be written again; the run goes on")
                return
