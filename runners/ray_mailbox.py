"""Live events and calls on Ray: an async actor per flow run, between its workers and the flow's process.

Workers push packed messages, the flow's process waits in `take`. A message is a hint and may be lost with the
actor; a call is kept by the worker that waits for its answer, and asked again when the actor was restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict, deque
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, TaskCancelledError

from . import codec
from .channel import new_call_id
from .context import listening
from .errors import BackendError
from .messages import BatchProgress, BatchStarted, Call, Table

MAX_HINTS = 10_000  # kept for a flow process that does not come for them
LINGER_SECONDS = 0.02  # hints wait for company; calls do not
REPEAT_SECONDS = 30.0  # the answer to a `take` may get lost with its connection: open calls are told again
SETTLE_SECONDS = 0.02  # before hints are pushed
FLUSH_SECONDS = 0.03  # between two pushes of a worker
REACH_SECONDS = 60.0  # for the actor to come up (a node may have to start first)
INTERRUPT_SECONDS = 30.0  # within which the interrupt of a cancelled task must arrive
MAX_ATTEMPTS = 5
MAX_HANDLES = 16


class Mailbox:
    """The actor."""

    def __init__(self) -> None:
        self._hints: deque[bytes] = deque(maxlen=MAX_HINTS)
        self._calls: list[bytes] = []
        self._arrived = asyncio.Event()
        self._called = asyncio.Event()
        self._replies: dict[str, asyncio.Future[bytes]] = {}

    async def reach(self) -> None:
        """Answer, to show that this actor lives."""

    async def push(self, hints: list[bytes]) -> None:
        self._hints.extend(hints)
        self._arrived.set()

    async def take(self) -> list[bytes]:
        """Wait for messages and return them."""
        await self._arrived.wait()
        if not self._called.is_set():
            try:
                await asyncio.wait_for(self._called.wait(), LINGER_SECONDS)
            except TimeoutError:
                pass
        taken = [*self._hints, *self._calls]
        self._hints.clear()
        self._calls.clear()
        self._arrived.clear()
        self._called.clear()
        return taken

    async def ask(self, call_id: str, call: bytes) -> bytes:
        """Deliver a call and wait for its answer."""
        reply = self._replies.setdefault(call_id, asyncio.get_running_loop().create_future())
        try:
            while True:
                self._calls.append(call)
                self._called.set()
                self._arrived.set()
                done, _ = await asyncio.wait([reply], timeout=REPEAT_SECONDS)
                if done:
                    return reply.result()
        finally:
            self._replies.pop(call_id, None)

    async def answer(self, call_id: str, answer: bytes) -> None:
        reply = self._replies.get(call_id)
        if reply is not None and not reply.done():
            reply.set_result(answer)


class MailboxChannel:
    """The channel of batches in a Ray worker.

    Args:
        tells_first: what it tells of the start is with Ray before user code runs. Code that holds the interpreter would
            keep it here, and nobody would know that its time runs.
    """

    def __init__(self, name: str, *, tells_first: bool = False) -> None:
        self._name = name
        self._tells_first = tells_first

    def emit(self, event: BatchStarted | BatchProgress) -> None:
        if self._tells_first and isinstance(event, BatchStarted):
            with contextlib.suppress(Exception):  # no mailbox: hints are hints
                _handles.get(self._name).push.remote([codec.pack(event)])  # Ray's own threads send it
        else:
            _courier.post(self._name, event)

    def ended(self, table: Table) -> None:
        """The batch has ended: its table says what hints that have not been sent yet would say."""
        if not table.logs_dropped:
            _courier.drop(self._name)

    def call(self, batch_id: int, execution_id: str, entry: int, kind: str, payload: bytes) -> bytes:
        call = Call(new_call_id(), batch_id, execution_id, entry, kind, payload)
        packed = codec.pack(call)
        for attempt in range(MAX_ATTEMPTS):
            try:
                return _ask(_handles.reached(self._name), call.call_id, packed)
            except (RayActorError, ValueError) as error:  # it died meanwhile, or is not there (any more)
                _handles.forget(self._name)
                problem = error
                time.sleep(0.2 * (attempt + 1))
        raise BackendError(
            f"the flow's process cannot be reached: the actor {self._name!r} that carries this task run's "
            f"calls is gone ({type(problem).__name__})"
        ) from problem


def _ask(mailbox: Any, call_id: str, packed: bytes) -> bytes:
    interrupted = threading.Event()

    def wake() -> None:
        interrupted.set()
        with contextlib.suppress(Exception):
            mailbox.answer.remote(call_id, b"")  # nobody reads it: leaving the block raises the interrupt

    with listening(wake):
        # Waiting in ray.get, in the task's own thread, is what lends this task's CPU to other tasks.
        try:
            return bytes(ray.get(mailbox.ask.remote(call_id, packed)))
        except TaskCancelledError:
            # Ray cancels what a task has submitted along with it, and that may overtake the task's interrupt.
            interrupted.wait(INTERRUPT_SECONDS)
            raise


class _Handles:
    """Handles of the mailboxes that this process has used."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._reached: set[str] = set()
        self._lock = threading.Lock()

    def get(self, name: str) -> Any:
        with self._lock:
            if name not in self._known:
                self._known[name] = ray.get_actor(name)
                while len(self._known) > MAX_HANDLES:
                    self._reached.discard(self._known.popitem(last=False)[0])
            self._known.move_to_end(name)
            return self._known[name]

    def reached(self, name: str) -> Any:
        """Return the handle of a mailbox that has answered once.

        Raises:
            BackendError: it does not come up.
        """
        handle = self.get(name)
        if name not in self._reached:
            try:
                ray.get(handle.reach.remote(), timeout=REACH_SECONDS)
            except GetTimeoutError:
                raise BackendError(
                    f"the actor {name!r} that carries calls to the flow's process has not started within "
                    f"{REACH_SECONDS:g} s"
                ) from None
            self._reached.add(name)
        return handle

    def forget(self, name: str) -> None:
        with self._lock:
            self._known.pop(name, None)
            self._reached.discard(name)


class _Courier:
    """Pushes hints from a thread of its own, at most one push in flight, so that items never wait for it.

    It lets a moment pass first: most batches have ended by then, and a push costs as much as a short batch.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, BatchStarted | BatchProgress]] = deque(maxlen=MAX_HINTS)
        self._posted = threading.Event()
        self._thread: threading.Thread | None = None

    def post(self, name: str, event: BatchStarted | BatchProgress) -> None:
        self._waiting.append((name, event))
        self._posted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="millrace-courier", daemon=True)
            self._thread.start()

    def drop(self, name: str) -> None:
        """Forget what waits for a mailbox. A worker runs one batch at a time, so all of it is of that batch."""
        with contextlib.suppress(IndexError):  # the other thread is taking it
            while self._waiting and self._waiting[0][0] == name:
                self._waiting.popleft()

    def _serve(self) -> None:
        pause = threading.Event()
        while True:
            self._posted.wait()
            pause.wait(SETTLE_SECONDS)
            self._posted.clear()
            by_name: dict[str, list[bytes]] = {}
            while self._waiting:
                name, event = self._waiting.popleft()
                by_name.setdefault(name, []).append(codec.pack(event))
            for name, hints in by_name.items():
                try:
                    ray.get(_handles.get(name).push.remote(hints), timeout=REACH_SECONDS)
                except Exception:  # no mailbox: hints are hints
                    _handles.forget(name)
            pause.wait(FLUSH_SECONDS)


_handles = _Handles()
_courier = _Courier()
