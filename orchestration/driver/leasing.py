"""Leases of batches: asking the store, asking again while others hold them, waking other runs of this process."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from ..core.commands import AskLeases
from ..core.events import LeasesAnswered
from ..stores.base import Store

if TYPE_CHECKING:
    from .loop import Driver

POLL_SECONDS = 0.05  # other processes on one store learn of a release by asking this often

_waiting: weakref.WeakSet[Leasing] = weakref.WeakSet()


class Leasing:
    """The leases of one run's batches. Used from its driver's thread, but for `wake`."""

    def __init__(self, store: Store, run_id: str, driver: Driver) -> None:
        self._store = store
        self._run_id = run_id
        self._driver = driver
        self._asks: dict[int, AskLeases] = {}  # not granted yet, in the order of asking
        self._polling = False

    def ask(self, request: AskLeases) -> None:
        """Ask for a batch's leases; if they are not free, go on asking."""
        if not self._try(request):
            self._asks[request.batch_id] = request
            _waiting.add(self)
            self._poll_later()

    def withdraw(self, batch_ids: tuple[int, ...]) -> None:
        """Stop asking, and give back what was granted meanwhile."""
        for batch_id in batch_ids:
            self._asks.pop(batch_id, None)
        self._store.release([self._holder(batch_id) for batch_id in batch_ids])
        self.tell_others()

    def tell_others(self) -> None:
        """A lease of this process has come free: let its other runs ask at once."""
        for leasing in list(_waiting):
            if leasing._store is self._store:
                leasing._driver.do(leasing._poll)

    def close(self) -> None:
        _waiting.discard(self)
        self._asks.clear()

    def _holder(self, batch_id: int) -> str:
        return f"{self._run_id}/batch/{batch_id}"

    def _try(self, request: AskLeases) -> bool:
        grant = self._store.acquire(
            request.names,
            holder=self._holder(request.batch_id),
            run_id=self._run_id,
            label=request.label,
            slots=1,
            now=self._store.now(),
        )
        if grant.granted or request.batch_id not in self._asks:  # tell of a refusal once
            self._driver.post(LeasesAnswered(request.batch_id, grant.granted, grant.blocked_by))
        return grant.granted

    def _poll(self) -> None:
        for batch_id, request in list(self._asks.items()):
            if batch_id in self._asks and self._try(request):
                del self._asks[batch_id]
        if not self._asks:
            _waiting.discard(self)

    def _poll_later(self) -> None:
        if self._polling or not self._asks:
            return
        self._polling = True

        def again() -> None:
            self._polling = False
            self._poll()
            self._poll_later()

        self._driver.timers.at(self._driver.clock.now() + POLL_SECONDS, again)
