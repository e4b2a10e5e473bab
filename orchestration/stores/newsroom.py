"""Tells those who wait that there are news: for leases that some may have come free, for a run of requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ..core.journal import Entry, LeasesReturned, RunMoved
from ..core.states import RUN_TERMINAL

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
LEASES = ""  # the topic of leases that may have come free; other topics are runs, of which something is asked


class Newsroom:
    """Listeners, and a thread that looks for news as long as there are any.

    Args:
        look: whether there may be news from other processes. Called from the thread.
        every_seconds: how often to look; None: never, this process makes all news itself.
    """

    def __init__(
        self, look: Callable[[], bool] = lambda: True, every_seconds: float | None = POLL_SECONDS
    ) -> None:
        self._look = look
        self._every = every_seconds
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew: neither threads nor those who waited are in the child process."""
        self._lock = threading.Lock()
        self._listeners: list[tuple[str, Callable[[], None]]] = []
        self._over = threading.Event()  # of the thread that looks now

    def listen(self, notice: Callable[[], None], topic: str = LEASES) -> Callable[[], None]:
        """Call `notice` at news of a topic until what this returns is called."""

        def stop() -> None:
            with self._lock:
                if entry in self._listeners:
                    self._listeners.remove(entry)
                    if not self._listeners:
                        self._over.set()

        def own() -> None:
            notice()

        entry = topic, own  # no other one's, though the same may listen twice
        with self._lock:
            self._listeners.append(entry)
            if len(self._listeners) == 1 and self._every is not None:
                self._begin(self._every)
        return stop

    def tell(self, topic: str | None = LEASES) -> None:
        """Call who listens for a topic now, None: for any: this process has made news."""
        for wanted, notice in list(self._listeners):
            if topic in (None, wanted):
                notice()

    def _begin(self, every: float) -> None:
        """Look for news as long as anybody listens. Called with the lock held."""
        self._over = threading.Event()
        threading.Thread(
            target=self._watch, args=(self._over, every), name="millrace-leases", daemon=True
        ).start()

    def _watch(self, over: threading.Event, every: float) -> None:
        while not over.wait(every):
            try:
                if self._look():
                    self.tell()
            except Exception:  # a store that cannot be read now; those who wait ask again by themselves, too
                log.debug("looking for free leases failed", exc_info=True)


def frees_leases(entries: Sequence[Entry]) -> bool:
    """Whether leases end with these entries."""
    return any(
        isinstance(entry, LeasesReturned) or (isinstance(entry, RunMoved) and entry.state in RUN_TERMINAL)
        for entry in entries
    )
