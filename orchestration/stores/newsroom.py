"""Tells those who wait that there are news: for leases that some may have come free, for a run of requests."""

from __future__ import annotations

import abc
import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Sequence

from ..core.journal import Entry, LeasesReturned, RunMoved
from ..core.states import RUN_TERMINAL

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
MOST_AT_ONCE = 100  # news that are told one by one: who waits counts them
RETRY_SECONDS = 1.0  # while what news come from is away
LEASES = ""  # the topic of leases that may have come free; other topics are runs, of which something is asked


class Newsroom:
    """Listeners, and a thread that looks for news as long as there are any.

    Args:
        look: how many news there may be from other processes. Called from the thread.
        every_seconds: how often to look; None: never, this process makes all news itself.
    """

    def __init__(
        self, look: Callable[[], int] = lambda: 1, every_seconds: float | None = POLL_SECONDS
    ) -> None:
        self._look = look
        self._every = every_seconds
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew: neither threads nor those who waited are in the child process."""
        self._lock = threading.Lock()
        self._listeners: list[tuple[str | None, Callable[[str | None], None]]] = []
        self._over = threading.Event()  # of the thread that looks now

    def listen(self, notice: Callable[[], None], topic: str = LEASES) -> Callable[[], None]:
        """Call `notice` at news of a topic until what this returns is called."""
        return self._add(topic, lambda told: notice())

    def listen_to_all(self, notice: Callable[[str | None], None]) -> Callable[[], None]:
        """As `listen`, for news of any topic; `notice` gets the topic, None for any."""
        return self._add(None, notice)

    def _add(self, topic: str | None, notice: Callable[[str | None], None]) -> Callable[[], None]:
        def stop() -> None:
            with self._lock:
                if entry in self._listeners:
                    self._listeners.remove(entry)
                    if not self._is_wanted():
                        self._over.set()

        def own(told: str | None) -> None:
            notice(told)

        entry = topic, own  # no other one's, though the same may listen twice
        with self._lock:
            before = self._is_wanted()
            self._listeners.append(entry)
            if not before and self._is_wanted() and self._every is not None:
                self._begin(self._every)
        return stop

    def tell(self, topic: str | None = LEASES) -> None:
        """Call who listens for a topic now, None: for any: this process has made news."""
        for wanted, notice in list(self._listeners):
            if wanted is None or topic in (None, wanted):
                notice(topic)

    def _is_wanted(self) -> bool:
        """Whether anybody listens for what the thread tells. Called with the lock held."""
        return any(topic in (None, LEASES) for topic, _ in self._listeners)

    def _begin(self, every: float) -> None:
        """Look for news as long as anybody listens. Called with the lock held."""
        self._over = threading.Event()
        threading.Thread(
            target=self._watch, args=(self._over, every), name="millrace-leases", daemon=True
        ).start()

    def _watch(self, over: threading.Event, every: float) -> None:
        while not over.wait(every):
            try:
                for _ in range(min(self._look(), MOST_AT_ONCE)):
                    self.tell()
            except Exception:  # a store that cannot be read now; those who wait ask again by themselves, too
                log.debug("looking for free leases failed", exc_info=True)


class HearingNewsroom(Newsroom, abc.ABC):
    """Hears of all topics from elsewhere while somebody listens, and a moment longer: the next may come soon."""

    def __init__(self) -> None:
        super().__init__(every_seconds=RETRY_SECONDS)

    @abc.abstractmethod
    def _hear(self) -> Generator[Sequence[str | None]]:
        """Connect, then yield topics as they come, and nothing now and then; it is closed when nobody listens."""

    def after_fork(self) -> None:
        super().after_fork()
        self._hearing = False

    def _is_wanted(self) -> bool:
        return bool(self._listeners)

    def _begin(self, every: float) -> None:
        if not self._hearing:
            self._hearing = True
            super()._begin(every)

    def _watch(self, over: threading.Event, every: float) -> None:
        pause = threading.Event()
        while not self._is_over():
            try:
                with contextlib.closing(self._hear()) as heard:
                    for topics in heard:
                        for topic in topics:
                            self.tell(topic)
                        if self._is_over():
                            return
            except Exception as error:
                log.debug("listening for news failed: %s", error)
                pause.wait(every)

    def _is_over(self) -> bool:
        with self._lock:
            self._hearing = bool(self._listeners)
            return not self._hearing


def frees_leases(entries: Sequence[Entry]) -> bool:
    """Whether leases end with these entries."""
    return any(
        type(entry) is LeasesReturned or (type(entry) is RunMoved and entry.state in RUN_TERMINAL)
        for entry in entries
    )
