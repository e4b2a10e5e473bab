"""One execution of a batch on this worker: its columns as they fill, and how to interrupt its current item.

Interrupting sync code from another thread has one rule: the exception must never land after the item has
ended. So `begin` and `end` open and close a window under a lock; an interrupt is only sent inside the window,
and one that was sent but not delivered when the window closes is taken back.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
import time
import uuid
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .body import TaskBody
from .channel import Channel
from .context import RunContext
from .messages import Batch, BatchProgress, BatchStarted, Detail, LogLine, Outcome, Stored, Table

if TYPE_CHECKING:
    from .arguments import Arguments

MAX_LOG_LINES = 5_000  # repeated in the table; what is beyond was sent live only


class Interrupt(BaseException):
    """Raised asynchronously in the thread of an item that has to stop. Not for user code to catch."""


class TimeoutInterrupt(Interrupt):
    """The item ran into its `timeout_seconds`."""


class CancelInterrupt(Interrupt):
    """The item was cancelled."""


class Execution:
    """The columns of a batch's table while it runs, and a handle on the item that runs now."""

    def __init__(
        self,
        batch: Batch,
        run: RunContext,
        bodies: Sequence[TaskBody],
        arguments: Sequence[Arguments],
        channel: Channel,
        *,
        in_process: bool,
    ) -> None:
        self.batch = batch
        self.run = run
        self.bodies = bodies
        self.arguments = arguments
        self.channel = channel
        self.in_process = in_process
        self.n_stages = len(batch.stages)
        self.execution_id = uuid.uuid4().hex[:16]
        self.worker = worker_name()
        self.started = time.time()
        self.clock = time.perf_counter
        self.zero = self.clock()
        entries = len(batch.indices) * self.n_stages
        self.outcomes = bytearray(entries)
        self.offsets = array("d", bytes(8 * entries))
        self.durations = array("d", bytes(8 * entries))
        self.details: dict[int, Detail] = {}
        self.lengths: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self.stored: list[Stored | None] = [None] * self.n_stages
        self.cancelled = False
        # the item that runs now
        self.entry = 0
        self.item_zero = self.zero
        self.timeout: float | None = None
        self.interrupted: type[Interrupt] | None = None
        self.interrupted_at = 0.0
        self.interrupt_hook: Callable[[type[Interrupt]], None] | None = None  # async items bring their own
        self._loop: asyncio.Runner | None = None
        self._thread_id = threading.get_ident()
        self._open = False
        self._lock = threading.Lock()
        # log lines
        self._log_lock = threading.Lock()
        self._log: list[LogLine] = []
        self._log_seq = 0
        self._log_sent = 0
        self._log_dropped = 0
        # what the monitor has already told
        self._told = (-1, 0)

    def event_loop(self) -> asyncio.Runner:
        """Return the event loop that the async items of this batch share."""
        if self._loop is None:
            self._loop = asyncio.Runner()
        return self._loop

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()

    # --- the item's window ----------------------------------------------------------------------

    def begin(self, entry: int, timeout: float | None) -> None:
        """Open the window of an item: from here on it may be interrupted."""
        self.entry = entry
        self.timeout = timeout
        self.interrupted = None
        self.item_zero = now = self.clock()
        self.offsets[entry] = now - self.zero
        with self._lock:
            self._open = True

    def end(self) -> float:
        """Close the window. Returns the seconds that the item took. Afterwards no interrupt can arrive."""
        while True:
            try:
                with self._lock:
                    self._open = False
                    if self.interrupted is not None and self.interrupt_hook is None:
                        _take_back(self._thread_id)
                    self.interrupt_hook = None
                seconds = self.clock() - self.item_zero
                self.durations[self.entry] = seconds
                return seconds
            except Interrupt:  # arrived while closing: it is spent now, close again
                continue

    def interrupt(self, kind: type[Interrupt]) -> bool:
        """Interrupt the current item, from another thread. Returns False where nothing runs."""
        with self._lock:
            if not self._open or self.interrupted is not None:
                return False
            self.interrupted = kind
            self.interrupted_at = self.clock()
            if self.interrupt_hook is not None:
                self.interrupt_hook(kind)
            else:
                _raise_in(self._thread_id, kind)
            return True

    def cancel(self) -> None:
        """Stop after the current item, and interrupt that."""
        self.cancelled = True
        self.interrupt(CancelInterrupt)

    def overdue(self) -> bool:
        """Whether the current item has used up its time and has not been interrupted yet."""
        limit = self.timeout
        return (
            limit is not None
            and self._open
            and self.interrupted is None
            and self.clock() - self.item_zero > limit
        )

    def give_up(self, grace_seconds: float) -> bool:
        """Say of an interrupted item that does not stop how it ended: abandoned. Returns True once."""
        with self._lock:
            entry = self.entry
            if (
                not self._open
                or self.interrupted is None
                or self.clock() - self.interrupted_at < grace_seconds
                or self.outcomes[entry]
            ):
                return False
            timed_out = self.interrupted is TimeoutInterrupt
            self.outcomes[entry] = Outcome.TIMED_OUT if timed_out else Outcome.CANCELLED
            self.details[entry] = abandoned_detail(self.timeout if timed_out else None)
            return True

    # --- log lines ------------------------------------------------------------------------------

    def log(self, entry: int, at: float, level: int, logger: str, message: str) -> None:
        """Add a log line of the item at `entry`. Thread-safe."""
        position, stage = divmod(entry, self.n_stages)
        with self._log_lock:
            self._log.append(LogLine(self._log_seq, position, stage, at, level, logger, message))
            self._log_seq += 1
            excess = len(self._log) - MAX_LOG_LINES
            if excess > 0 and self._log_sent >= excess:  # only what was sent live may be forgotten here
                del self._log[:excess]
                self._log_sent -= excess
                self._log_dropped += excess

    # --- telling --------------------------------------------------------------------------------

    def started_event(self) -> BatchStarted:
        return BatchStarted(self.batch.batch_id, self.execution_id, self.worker, self.started)

    def progress(self) -> BatchProgress | None:
        """Return what is new since the last call, or None. Called by the monitor only."""
        entry = self.entry
        with self._log_lock:
            lines = self._log[self._log_sent :]
            self._log_sent = len(self._log)
        ended = entry + 1 if entry < len(self.outcomes) and self.outcomes[entry] else entry
        if (entry, ended) == self._told and not lines:
            return None
        self._told = (entry, ended)
        # a log line must not overtake the end of its item, nor the other way round: one message has both
        return BatchProgress(
            self.batch.batch_id,
            self.execution_id,
            self.worker,
            entry,
            self.started + self.offsets[entry],
            bytes(self.outcomes[:ended]),
            {k: d for k, d in list(self.details.items()) if k < ended},
            tuple(lines),
        )

    def table(self, cpu_seconds: float) -> Table:
        with self._log_lock:
            lines, dropped = tuple(self._log), self._log_dropped
        return Table(
            batch_id=self.batch.batch_id,
            execution_id=self.execution_id,
            worker=self.worker,
            started=self.started,
            outcomes=bytes(self.outcomes),
            offsets=self.offsets,
            durations=self.durations,
            details=self.details,
            lengths=self.lengths,
            logs=lines,
            stored=tuple(self.stored) if any(self.stored) else (),
            names=self.names,
            cpu_seconds=cpu_seconds,
            logs_dropped=dropped,
        )


def abandoned_detail(timeout: float | None) -> Detail:
    what = "was cancelled" if timeout is None else f"ran longer than its timeout of {timeout:g} s"
    return Detail(
        type_name="TaskCancelledError" if timeout is None else "TaskTimeoutError",
        message=f"{what} and could not be stopped: its code may still be running",
        abandoned=True,
    )


def worker_name() -> str:
    """`host:pid`, and the thread's name where that tells more."""
    thread = threading.current_thread().name
    suffix = f":{thread}" if thread.startswith("millrace-slot") else ""
    return f"{socket.gethostname()}:{os.getpid()}{suffix}"


def _raise_in(thread_id: int, kind: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(kind))


def _take_back(thread_id: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), None)
