"""Where events wait for the driver's next turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Inbox:
    """A queue with many writers and one reader, who takes all there is at once. Implements `runners.base.Sink`.

    The reader sleeps on a bare lock that writers release: a tenth of what an Event costs, and nothing that a
    signal in a writer's thread could leave locked for the others.
    """

    def __init__(self) -> None:
        self._events: deque[Any] = deque()
        self._gate = threading.Lock()  # open while there may be events
        self._gate.acquire()
        self._lingers = False

    def put(self, event: Any) -> None:
        self._events.append(event)
        if self._gate.locked():
            try:
                self._gate.release()
            except RuntimeError:  # another writer has opened it meanwhile
                pass

    def knock(self) -> None:
        """Let the reader look up if it waits for more than it has: see `take_more`."""
        if self._lingers and self._gate.locked():
            try:
                self._gate.release()
            except RuntimeError:  # a writer has opened it meanwhile
                pass

    def leave(self, event: Any) -> None:
        """Put an event for whenever the next turn is. Takes no lock: for finalizers, which may run anywhere."""
        self._events.append(event)

    @property
    def empty(self) -> bool:
        return not self._events

    def take(self, timeout: float | None) -> list[Any]:
        """Wait for events, at most `timeout` seconds, and return all of them, oldest first."""
        self._gate.acquire(timeout=-1 if timeout is None else timeout)
        return self._all()

    def take_more(self, timeout: float, enough: Callable[[], bool]) -> list[Any]:
        """Wait for further events as `take` does, unless it is `enough` before or somebody knocks."""
        self._lingers = True  # before the look: who makes it enough later, knocks
        try:
            if not enough():
                self._gate.acquire(timeout=timeout)
        finally:
            self._lingers = False
        return self._all()

    def _all(self) -> list[Any]:
        events: list[Any] = []
        try:
            while True:
                events.append(self._events.popleft())
        except IndexError:
            return events
