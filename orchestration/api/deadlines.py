"""The `timeout_seconds` of a flow: an exception in the code that runs it."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from runners.async_raise import raise_in, take_back

from ..errors import FlowTimeoutError


class Deadline:
    """Raises FlowTimeoutError inside its `with` blocks once the time since the first of them is up.

    A sync flow in the main thread is stopped by a signal, which also ends blocking calls; in another thread at
    the next bytecode, and where it waits for its task runs. An async flow's await is cancelled.
    """

    def __init__(
        self, seconds: float | None, flow_name: str, wake: Callable[[], None], *, is_async: bool
    ) -> None:
        self.is_async = is_async
        self.seconds = seconds
        self.passed = False
        self._message = f"flow {flow_name!r} ran longer than its timeout of {seconds or 0:g} s"
        self._wake = wake
        self._due = 0.0
        self._way: _Way | None = None

    def __enter__(self) -> Deadline:
        if self.seconds is None:
            return self
        now = time.monotonic()
        self._due = self._due or now + self.seconds
        if self._due <= now:
            self.passed = True
            raise FlowTimeoutError(self._message)
        self._way = _way_here(self.is_async)
        self._way.arm(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        way, self._way = self._way, None
        if way is not None:
            way.disarm()
        if self.passed and isinstance(error, asyncio.CancelledError | FlowTimeoutError):
            raise FlowTimeoutError(self._message) from None

    @property
    def left(self) -> float:
        return max(0.001, self._due - time.monotonic())

    def strike(self) -> FlowTimeoutError:
        self.passed = True
        return FlowTimeoutError(self._message)


class _Way:
    """How to interrupt the code that runs here."""

    def arm(self, deadline: Deadline) -> None:
        raise NotImplementedError

    def disarm(self) -> None:
        raise NotImplementedError


def _way_here(is_async: bool) -> _Way:
    if is_async:
        return _ByLoop(asyncio.get_running_loop())
    return _BySignal() if threading.current_thread() is threading.main_thread() else _ByThread()


class _BySignal(_Way):
    """SIGALRM. A timer that was set before, of a flow around this one for instance, keeps its time."""

    def arm(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._handler: Any = signal.signal(signal.SIGALRM, self._alarm)
        other, _ = signal.setitimer(signal.ITIMER_REAL, deadline.left)
        self._other_due = time.monotonic() + other if other else None
        if other and other < deadline.left:
            signal.setitimer(signal.ITIMER_REAL, other)

    def disarm(self) -> None:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:  # also where the alarm goes off in the last moment
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._handler if self._handler is not None else signal.SIG_DFL)
            if self._other_due is not None:
                signal.setitimer(signal.ITIMER_REAL, max(0.001, self._other_due - time.monotonic()))

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        due, self._other_due = self._other_due, None
        if due is not None and due <= time.monotonic() + 0.001 and callable(self._handler):
            signal.setitimer(signal.ITIMER_REAL, self._deadline.left)
            self._handler(number, frame)
            return
        self._other_due = due
        raise self._deadline.strike()


class _ByThread(_Way):
    """An exception set from a timer's thread; taken back if it is too late."""

    def __init__(self) -> None:
        self._thread_id = threading.get_ident()
        self._lock = threading.Lock()
        self._over = False

    def arm(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._timer = threading.Timer(deadline.left, self._strike)
        self._timer.name = "millrace-deadline"
        self._timer.daemon = True
        self._timer.start()

    def disarm(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
        if self._deadline.passed:
            take_back(self._thread_id)

    def _strike(self) -> None:
        with self._lock:
            if self._over:
                return
            self._deadline.strike()
            raise_in(self._thread_id, FlowTimeoutError)
        self._deadline._wake()


class _ByLoop(_Way):
    """The flow's asyncio task is cancelled, and the cancellation taken back on its way out."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task = asyncio.current_task(loop)

    def arm(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._handle = self._loop.call_later(deadline.left, self._strike)

    def disarm(self) -> None:
        self._handle.cancel()
        if self._deadline.passed and self._task is not None:
            self._task.uncancel()

    def _strike(self) -> None:
        self._deadline.strike()
        if self._task is not None:
            self._task.cancel()
