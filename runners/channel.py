"""The worker's way to the flow's process: live events up, calls up and their answers down."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Protocol

from .context import listening
from .errors import BackendError
from .messages import BatchProgress, BatchStarted, Call

REPEAT_SECONDS = 2.0  # the live channels may lose messages: an unanswered call is sent again

Message = BatchStarted | BatchProgress | Call


class Channel(Protocol):
    """What a worker can do besides running items. Implementations are thread-safe."""

    def emit(self, event: BatchStarted | BatchProgress) -> None:
        """Send a hint. Never blocks for long, never raises."""

    def call(self, batch_id: int, execution_id: str, entry: int, kind: str, payload: bytes) -> bytes:
        """Ask the flow's process and wait for the answer; the slot is lent to other batches meanwhile."""


class CallBook:
    """Calls of this process that wait for their answers."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[threading.Event, list[bytes]]] = {}

    def ask(
        self, call: Call, send: Callable[[Call], None], alive: Callable[[], bool] = lambda: True
    ) -> bytes:
        """Send `call` until it is answered.

        Raises:
            BackendError: `alive` says that nobody will answer any more.
        """
        answered, reply = self._waiting[call.call_id] = (threading.Event(), [])
        try:
            with listening(answered.set):
                while alive():
                    send(call)
                    if answered.wait(REPEAT_SECONDS):
                        break
            # here without an interrupt, which would have been raised on leaving the block
            if not reply:
                raise BackendError("the flow's process has gone; nobody answers this task run's calls")
            return reply[0]
        finally:
            del self._waiting[call.call_id]

    def wake(self) -> None:
        """Let all that wait look again whether somebody will still answer. For the end of a connection."""
        for answered, _ in list(self._waiting.values()):
            answered.set()

    def answer(self, call_id: str, reply: bytes) -> bool:
        """Hand over an answer. Returns False if nobody here waits for it."""
        entry = self._waiting.get(call_id)
        if entry is None:
            return False
        answered, box = entry
        box.append(reply)
        answered.set()
        return True


def new_call_id() -> str:
    return uuid.uuid4().hex
