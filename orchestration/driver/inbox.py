"""Where events wait for the driver's next turn."""

from __future__ import annotations

import threading
from collections import deque
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

    def put(self, event: Any) -> None:
        self._events.append(event)
        if self._gate.locked():
            try:
                self._gate.release()
            except RuntimeError:  # another writer has opened it meanwhile
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
        events: list[Any] = []
        try:
            while True:
                events.append(self._events.popleft())
        except IndexError:
            return events
