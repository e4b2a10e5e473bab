"""Which batches of a run may not start on any worker, also on one that joins later.

They are told to the workers that are there. A worker that comes later is sent them all when it joins; Dask may give it
a batch before, so it asks for them before the first batch of a run that it starts. What the desk has decided by then,
it learns with the answer; what is decided later reaches it as it reaches the others.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dask_desk import Desk

BANS_CALL = "bans"  # the kind of call that asks for them
MAX_BANS = 10_000  # batches, the last ones


class Bans:
    """The batches that were stopped, and those that are barred until it is known whether they can be taken back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped: OrderedDict[int, None] = OrderedDict()
        self._barred: dict[int, None] = {}

    def stop(self, batch_ids: Iterable[int]) -> None:
        with self._lock:
            for batch_id in batch_ids:
                self._stopped[batch_id] = None
            while len(self._stopped) > MAX_BANS:
                self._stopped.popitem(last=False)

    def bar(self, batch_ids: Iterable[int]) -> None:
        with self._lock:
            self._barred.update(dict.fromkeys(batch_ids))

    def unbar(self, batch_ids: Iterable[int]) -> None:
        with self._lock:
            for batch_id in batch_ids:
                self._barred.pop(batch_id, None)

    def all(self) -> tuple[list[int], list[int]]:
        """Return the batches that are stopped, and those that are barred."""
        with self._lock:
            return list(self._stopped), list(self._barred)


def welcome(desk: Desk, workers: list[str] | None, call_id: str = "") -> None:
    """Tell workers, None for all, what they may not start; `call_id` is the call of one that has asked."""
    from .dask_worker import take_bans

    run = partial(desk.client.run, workers=workers, on_error="ignore", asynchronous=True)
    desk.spawn(lambda: run(take_bans, desk.topic, *desk.bans.all(), call_id))
