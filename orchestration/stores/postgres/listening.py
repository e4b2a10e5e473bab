"""News of leases by LISTEN and NOTIFY; the schema's triggers notify."""

from __future__ import annotations

import contextlib
import threading

import psycopg

from ...errors import StoreError
from ..newsroom import Newsroom
from .database import Database

CHANNEL = "millrace_leases"
_WAIT_SECONDS = 0.5  # until the thread sees that nobody listens any more
_RETRY_SECONDS = 1.0  # while the server is away


class PostgresNewsroom(Newsroom):
    """Has a connection of its own while somebody listens."""

    def __init__(self, database: Database) -> None:
        super().__init__(every_seconds=_RETRY_SECONDS)
        self._database = database

    def _watch(self, over: threading.Event, every: float) -> None:
        while not over.is_set():
            with contextlib.suppress(psycopg.Error, StoreError), self._database.listener(CHANNEL) as raw:
                self.tell()  # what was to be heard while nobody listened
                while not over.is_set():
                    for _ in raw.notifies(timeout=_WAIT_SECONDS, stop_after=1):
                        self.tell()
            over.wait(every)
