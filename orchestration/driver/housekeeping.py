"""What a run does beside its work: it says that it lives, and looks for what others ask of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.events import CancelRequested, LimitsKnown, PauseRequested, ResumeRequested
from ..errors import FencedError, StoreError
from ..stores.base import HEARTBEAT_SECONDS, Requests, Store

if TYPE_CHECKING:
    from .loop import Driver

log = logging.getLogger("millrace.driver")

LOOK_SECONDS = 0.5


class Housekeeping:
    """A thread per run: heartbeat, requests of other processes, limits that were set meanwhile."""

    def __init__(self, driver: Driver, store: Store, epoch: int) -> None:
        self._driver = driver
        self._store = store
        self._epoch = epoch
        self._stop = threading.Event()
        self._look = threading.Event()
        self._stop_listening: Callable[[], None] = lambda: None
        self._seen = Requests()
        self._limits: frozenset[str] = frozenset()
        name = f"millrace-heartbeat-{driver.run_id[:8]}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Tell the limits before anything runs, then begin."""
        self._look_at_limits()
        self._stop_listening = self._store.listen_for_requests(self._driver.run_id, self._look.set)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._look.set()
        self._stop_listening()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        beats = 0.0
        while not self._waited():
            now = self._store.now()
            try:
                if now - beats >= HEARTBEAT_SECONDS:
                    beats = now
                    found = self._store.heartbeat(self._driver.run_id, self._epoch, now)
                    self._store.reap(now)  # frees the leases of runs that have died, for those that wait
                else:
                    found = self._store.requests(self._driver.run_id, self._epoch)
                self._look_at_limits()
            except StoreError as error:  # the journal will tell if it lasts
                log.debug("heartbeat of run %s: %s", self._driver.run_id, error)
                continue
            except FencedError:
                found = Requests(fenced=True)
            self._act(found)

    def _waited(self) -> bool:
        """Wait until it is time to look; return whether it is time to stop."""
        self._look.wait(LOOK_SECONDS)
        self._look.clear()
        return self._stop.is_set()

    def _look_at_limits(self) -> None:
        names = frozenset(
            limit.name for limit in self._store.limits(self._store.now()) if limit.per_second is None
        )
        if names != self._limits:
            self._limits = names
            self._driver.post(LimitsKnown(names))

    def _act(self, found: Requests) -> None:
        seen, self._seen = self._seen, found
        if found.fenced and not seen.fenced:
            self._driver.do(self._fence)
        if found.cancel and not seen.cancel:
            self._driver.post(CancelRequested())
        if found.pause != seen.pause:
            self._driver.post(PauseRequested() if found.pause else ResumeRequested())

    def _fence(self) -> None:
        raise FencedError(f"run {self._driver.run_id} was taken over by another process; this one stops")
