"""News by LISTEN and NOTIFY; the schema's triggers notify. The payload is the topic."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from ..newsroom import HearingNewsroom
from .database import Database

CHANNEL = "millrace"
_WAIT_SECONDS = 0.5  # until the thread sees that nobody listens any more


class PostgresNewsroom(HearingNewsroom):
    """Has a connection of its own while somebody listens."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    def _hear(self) -> Generator[Sequence[str | None]]:
        with self._database.listener(CHANNEL) as raw:
            yield [None]  # what was to be heard while nobody listened
            while True:
                yield [news.payload for news in raw.notifies(timeout=_WAIT_SECONDS, stop_after=1)]
