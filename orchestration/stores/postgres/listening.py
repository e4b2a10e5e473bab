"""News by LISTEN and NOTIFY; the schema's triggers notify. The payload is the topic."""

from __future__ import annotations

import logging
import threading

import psycopg

from ...errors import StoreError
from ..newsroom import Newsroom
from .database import Database

CHANNEL = "millrace"
_WAIT_SECONDS = 0.5  # until the thread sees that nobody listens any more
_RETRY_SECONDS = 1.0  # while the server is away

log = logging.getLogger(__name__)


class PostgresNewsroom(Newsroom):
    """Has a connection of its own while somebody listens, and for a moment longer: the next one may come soon."""

    def __init__(self, database: Database) -> None:
        super().__init__(every_seconds=_RETRY_SECONDS)
        self._database = database

    def after_fork(self) -> None:
        super().after_fork()
        self._listening = False

    def _begin(self, every: float) -> None:
        if not self._listening:
            self._listening = True
            super()._begin(every)

    def _watch(self, over: threading.Event, every: float) -> None:
        pause = threading.Event()
        while not self._is_over():
            try:
                with self._database.listener(CHANNEL) as raw:
                    self.tell(None)  # what was to be heard while nobody listened
                    while not self._is_over():
                        for news in raw.notifies(timeout=_WAIT_SECONDS, stop_after=1):
                            self.tell(news.payload)
            except (psycopg.Error, StoreError) as error:
                log.debug("listening at %s failed: %s", self._database.address.shown, error)
                pause.wait(every)

    def _is_over(self) -> bool:
        with self._lock:
            self._listening = bool(self._listeners)
            return not self._listening
