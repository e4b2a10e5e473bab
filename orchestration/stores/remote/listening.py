"""News by a stream of server-sent events; the data of an event is the topic."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence

from ..newsroom import LEASES, HearingNewsroom
from ..wire.port import ANY_TOPIC, LEASES_TOPIC
from .link import Link

_TOPICS = {LEASES_TOPIC: LEASES, ANY_TOPIC: None}


class RemoteNewsroom(HearingNewsroom):
    """Has a connection of its own while somebody listens."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def _hear(self) -> Generator[Sequence[str | None]]:
        with contextlib.closing(self._link.news()) as news:
            for k, topic in enumerate(news):
                if k == 0:
                    yield [None]  # what was to be heard while nobody listened
                yield [_TOPICS.get(topic, topic)] if topic else []
