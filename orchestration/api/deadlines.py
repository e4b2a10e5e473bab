"""The `timeout_seconds` of a flow: an exception in the thread that runs it."""

from __future__ import annotations

import ctypes
import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import FlowTimeoutError

if TYPE_CHECKING:
    from .running import RunningFlow


class Deadline:
    """Raises FlowTimeoutError in the current thread when the time is up, inside the `with` block.

    In the main thread by a signal, which also ends blocking calls; elsewhere at the next bytecode, and where
    the flow waits for its task runs.
    """

    def __init__(self, seconds: float | None, flow_name: str, run: RunningFlow) -> None:
        self.seconds = seconds
        self.passed = False
        self._run = run
        self._message = f"flow {flow_name!r} ran longer than its timeout of {seconds or 0:g} s"
        self._thread_id = threading.get_ident()
        self._main = threading.current_thread() is threading.main_thread()
        self._timer: threading.Timer | None = None
        self._before: Any = None

    def __enter__(self) -> Deadline:
        if self.seconds is None:
            return self
        if self._main:
            self._before = signal.signal(signal.SIGALRM, self._alarm)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)
        else:
            self._timer = threading.Timer(self.seconds, self._strike)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        elif self.seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before or signal.SIG_DFL)

    def _alarm(self, _signal: int, _frame: FrameType | None) -> None:
        self.passed = True
        raise FlowTimeoutError(self._message)

    def _strike(self) -> None:
        self.passed = True
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._thread_id), ctypes.py_object(FlowTimeoutError)
        )
        self._run.driver.board.poke()
