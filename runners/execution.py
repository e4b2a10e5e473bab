"""One execution of a batch on this worker: its columns as they fill, and how to interrupt its current item.

Interrupting sync code from another thread has one rule: the exception must never land after the item has
ended. So `begin` and `end` open and close a window under a lock. At most one interrupt is sent in a window,
and one that was sent but not delivered when the window closes is taken back. It may still land in `begin` and
`end` themselves, which is why `window` calls `end` once more after an interrupt: by then it is spent.

An exception does not reach a thread that waits in C code. Who waits there says how to wake it: `listening`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from .async_raise import raise_in, take_back
from .body import TaskBody
from .channel import Channel
from .context import RunContext
from .messages import (
    Batch,
    BatchProgress,
    BatchStarted,
    Detail,
    LogLine,
    Outcome,
    Stored,
    Table,
    unstopped_detail,
)

if TYPE_CHECKING:
    from .arguments import Arguments

# Set where items run in their process's main thread, which a signal wakes from waiting in C code: called with
# the execution after an interrupt was sent to its thread, under its lock. See `ray_worker`.
nudge: Callable[[Execution], object] | None = None

BEAT_SECONDS = 1.0  # how often a batch with a timeout, or one that is closed, tells so again
LATE_SECONDS = 1.0  # beyond a timeout, until it is said how late an item was stopped
MAX_LOG_LINES = 5_000  # repeated in the table; what is beyond was sent live only


T = TypeVar("T")


class Interrupt(BaseException):
    """Raised asynchronously in the thread of an item that has to stop. Not for user code to catch."""


class TimeoutInterrupt(Interrupt):
    """The item ran into its `timeout_seconds`."""


class CancelInterrupt(Interrupt):
    """The item was cancelled."""


class GaveWay(Interrupt):
    """The item waits for what has ended in its own batch, and is told when the batch ends."""


class Execution:
    """The columns of a batch's table while it runs, and a handle on the item that runs now."""

    def __init__(
        self,
        batch: Batch,
        run: RunContext,
        channel: Channel,
        *,
        in_process: bool,
    ) -> None:
        self.batch = batch
        self.run = run
        self.bodies: list[TaskBody] = []  # of the stages that could be loaded
        self.arguments: list[Arguments] = []
        self.unloadable: Detail | None = None  # why the stage after the last of these could not be loaded
        self.channel = channel
        self.in_process = in_process
        self.n_stages = len(batch.stages)
        self.execution_id = os.urandom(8).hex()
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
        self.moved_bytes = 0
        self.copied_bytes = 0  # of results of other batches
        self.missing: dict[int, None] = {}  # batches whose results should be here and are not
        self.missing_files: dict[str, None] = {}  # the same of files in storage
        self.cancelled = False
        seconds = batch.deadline_seconds
        self.deadline = None if seconds is None else self.zero + seconds
        self.closed = False  # the deadline is over, and we have said so
        # the item that runs now
        self.entry = 0
        self.item_zero = self.zero
        self.timeout: float | None = None
        self.interrupted: type[Interrupt] | None = None
        self.interrupted_at = 0.0
        self.stop: Interrupt | None = None  # as it got out of the item's code, which shows where that was
        self._wakers: list[tuple[Callable[[], object], bool]] = []  # the flag: of the items' thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self.guest_loop: asyncio.AbstractEventLoop | None = None  # see run_batch
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
        self._told_at = self.zero
        self._told_closed = False
        self._timed = batch.timed

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that the async items of this batch share."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    def close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            # its default executor is not waited for: a thread that hangs there must not hold the batch
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    # --- the item's window ----------------------------------------------------------------------

    def window(
        self, entry: int, timeout: float | None, run: Callable[..., T], *args: Any
    ) -> tuple[T | None, bool]:
        """Call `run` so that it can be interrupted. Returns its value and whether the item was started.

        The value is None where an interrupt got out of `run`; then `interrupted` says which.
        """
        value = None
        try:
            try:
                if not self.begin(entry, timeout):
                    return None, False
                value = run(*args)
            finally:
                self.end()
        except Interrupt as stop:
            self.end()
            self.stop = stop
        return value, True

    def begin(self, entry: int, timeout: float | None) -> bool:
        """Open the window of an item: from here on it may be interrupted. False where it must not start."""
        with self._lock:
            now = self.clock()  # one look for both, since they cost each item 0.1 us
            if self.cancelled or (entry and self.deadline is not None and now > self.deadline):
                return False
            self.item_zero = now
            self.offsets[entry] = now - self.zero
            self.entry = entry
            self.timeout = timeout
            self.interrupted = self.stop = None
            self._open = True
        return True

    def end(self) -> None:
        """Close the window: when this has returned, no interrupt can arrive. Harmless on a closed window."""
        with self._lock:
            if self._open:
                self.durations[self.entry] = self.clock() - self.item_zero
                self._open = False
            if self.interrupted is not None:
                take_back(self._thread_id)

    @contextmanager
    def listening(self, wake: Callable[[], object]) -> Iterator[None]:
        """Inside the block an interrupt calls `wake`; it is raised when the block has ended.

        For waiting in C code. In the items' own thread nothing is raised asynchronously meanwhile, so what
        must not be torn, such as taking a slot again, is safe here. `wake` must be quick and not raise.
        """
        entry = wake, threading.get_ident() == self._thread_id
        before = self.interrupted
        try:
            with self._lock:
                before = self.interrupted
                self._wakers.append(entry)
            yield
        finally:
            with self._lock:
                if entry in self._wakers:
                    self._wakers.remove(entry)
                now = self.interrupted
            if now is not None and before is None:
                raise now from None

    def give_way(self, node_id: int, indices: Sequence[int] | None) -> None:
        """Called by an item's code that would wait for items. Where one of them has ended here, it would for ever.

        Not by one that may run once only: it has to wait.

        Args:
            indices: None: all of the node.

        Raises:
            GaveWay: it goes back as if it had not started, and runs again when the batch has ended.
        """
        for stage, spec in enumerate(self.batch.stages):
            if spec.node_id != node_id or self.batch.stages[self.entry % self.n_stages].permit:
                continue
            ended = self.outcomes[stage :: self.n_stages]
            if any(ended) and any(
                there and (indices is None or index in indices)
                for index, there in zip(self.batch.indices, ended, strict=True)
            ):
                raise GaveWay

    def interrupt(self, kind: type[Interrupt]) -> bool:
        """Interrupt the current item, from another thread. Returns False where nothing runs."""
        with self._lock:
            return self._interrupt(kind)

    @property
    def stops(self) -> bool:
        """Whether nothing more is to start, but for a batch's first item."""
        return self.cancelled or self._is_over()

    def _is_over(self) -> bool:
        return self.deadline is not None and self.clock() > self.deadline

    def close_late(self) -> None:
        """Give back what has not started, where the deadline is over and an item still runs."""
        with self._lock:
            if self._open and self.entry + 1 < len(self.outcomes) and self._is_over():
                self.closed = True

    def cancel(self) -> None:
        """Start no further item, and interrupt the one that runs."""
        with self._lock:
            self.cancelled = True
            self._interrupt(CancelInterrupt)

    def expire(self) -> bool:
        """Interrupt the current item if it has used up its time."""
        with self._lock:
            late = self.timeout is not None and self.clock() - self.item_zero > self.timeout
            return late and self._interrupt(TimeoutInterrupt)

    def _interrupt(self, kind: type[Interrupt]) -> bool:
        if not self._open or self.interrupted is not None:
            return False
        self.interrupted = kind
        self.interrupted_at = self.clock()
        for wake, _ in self._wakers:
            wake()
        if not any(own for _, own in self._wakers):
            raise_in(self._thread_id, kind)
            if nudge is not None:
                nudge(self)
        return True

    def unanswered(self) -> bool:
        """Whether an interrupt was sent whose item has not ended yet."""
        return self._open and self.interrupted is not None

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
            self.details[entry] = unstopped_detail(self.timeout if timed_out else None)
            self.cancelled = True  # what follows runs elsewhere: nobody knows when this comes to its end
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
        closed = self.closed  # first: from then on the entry stays
        entry = self.entry
        with self._log_lock:
            lines = self._log[self._log_sent :]
            self._log_sent = len(self._log)
        ended = entry + 1 if entry < len(self.outcomes) and self.outcomes[entry] else entry
        now = self.clock()
        beat = (self._timed or closed) and now - self._told_at >= BEAT_SECONDS
        if (entry, ended) == self._told and not lines and not beat and closed == self._told_closed:
            return None
        self._told_closed = closed
        self._told_at = now
        told = self._told[1]  # details are told once: a message must not grow with what was said before
        self._told = (entry, ended)
        # a log line must not overtake the end of its item, nor the other way round: one message has both
        return BatchProgress(
            self.batch.batch_id,
            self.execution_id,
            self.worker,
            entry,
            self.started + self.offsets[entry],
            bytes(self.outcomes[:ended]),
            {k: d for k, d in self.details.copy().items() if told <= k < ended},
            tuple(lines),
            closed,
        )

    def renew_locks(self) -> None:
        """After a fork, in the child: threads that it does not have may hold its copies of the locks."""
        self._lock = threading.Lock()
        self._log_lock = threading.Lock()

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
            moved_bytes=self.moved_bytes,
            missing=tuple(self.missing),
            missing_files=tuple(self.missing_files),
        )


def late_message(timeout: float | None, seconds: float, *, stopped: bool) -> str:
    """Say how an item ended that had used up its time.

    Code in C that holds the interpreter lets nobody interrupt it: on threads of the flow's process it is found out
    only when it has come to its end.
    """
    text = f"ran longer than its timeout of {timeout:g} s"
    if not stopped:
        return f"{text} and could not be stopped before it ended by itself, after {seconds:.3g} s"
    if timeout is not None and seconds > timeout + LATE_SECONDS:
        return f"{text} and could be stopped only after {seconds:.3g} s"
    return text


def worker_name() -> str:
    """`host:pid`, and the thread's name where that tells more."""
    thread = threading.current_thread().name
    suffix = f":{thread}" if thread.startswith("millrace-slot") else ""
    return f"{socket.gethostname()}:{os.getpid()}{suffix}"
