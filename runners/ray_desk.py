"""The flow's side of one connection to Ray: what is in flight, and the threads that turn Ray's news into events.

A connection that has broken is not mended: its desk tells what was lost, and another one takes its place.
"""

from __future__ import annotations

import functools
import logging
import math
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

from . import codec, ray_session
from .base import Sink, Wanted
from .errors import InternalError, ResultLostError
from .messages import (
    HAS_RESULT,
    Batch,
    BatchFinished,
    BatchLost,
    Call,
    ResultsLost,
    SlotsChanged,
    Table,
)
from .ray import SHUT_DOWN
from .ray_cluster import Cluster, open_mailbox
from .ray_failures import ending, rejected
from .ray_results import bring
from .ray_submission import Submission
from .results import PackedResults
from .tables import starved_table
from .unpacked import Brought, Unpacked

logger = logging.getLogger("millrace.ray")

CANCEL_SECONDS = (0.1, 0.3, 1.0, 5.0)  # until Ray is asked again to cancel a batch
HEAD_SECONDS = 2.0  # for the head to take a connection
STOP_SECONDS = 2.0  # for our thread, where the connection is broken


@dataclass(slots=True, eq=False)
class Pending:
    """A batch at the engine."""

    batch: Batch
    results: Any  # object refs
    table: Any
    started: bool = False
    forced: bool = False
    cancels: int = 0  # how often Ray has been asked to cancel it
    cancel_again: float = math.inf


class Desk:
    """Bookkeeping of one started connection.

    Args:
        gone: told, in a thread of this desk, why there is no Ray any more.
    """

    def __init__(
        self, session: ray_session.Session, sink: Sink, gone: Callable[[Desk, str, bool], None]
    ) -> None:
        self.session = session
        self.away = False  # our own Ray has died, and another one is being started
        self.failed = False  # Ray has gone for good
        self.progressed = False  # a batch has ended here with results
        self.pending: dict[int, Pending] = {}  # in the order of submission
        self.results: dict[int, Any] = {}  # object refs
        self.unpacked = Unpacked()
        self.mailbox: Any = None
        self.submission: Any = None
        self.cluster = Cluster(session, self._slots_changed, functools.partial(gone, self))
        self._sink = sink
        self._slots, self._told_slots = 1, 0
        self._callers: set[int] = set()
        self._cancelled: set[Pending] = set()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="millrace-ray", daemon=True)

    @property
    def replaceable(self) -> bool:
        """Whether another Ray is, or will be, started in place of this one: the flow's batches wait for it."""
        return self.session.is_local and (self.away or self.session.over)

    def start(self) -> None:
        self.cluster.check_version()
        name = f"millrace-{uuid.uuid4().hex}"
        self.mailbox = open_mailbox(name)
        self.submission = Submission(name, self._has_head)
        if not self.session.is_client:
            self.submission.prepare()
        self._take()
        self._thread.start()
        self.cluster.watch()

    def _has_head(self) -> bool:
        return self.session.head_error(HEAD_SECONDS) is None

    def close(self) -> None:
        """End what is still running and the mailbox; a cluster of others goes on."""
        self._stop(None)
        with self.session.calls() as live:
            if live and not self.failed:
                self._let_go()
        self._forget()
        self.session.release()

    def abandon(self) -> None:
        """Ray has gone: say nothing more, and let go of all that refers to it."""
        self._stop(STOP_SECONDS)
        self._forget()

    def _stop(self, seconds: float | None) -> None:
        self.cluster.close()
        self._inbox.put(None)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _let_go(self) -> None:
        for pending in list(self.pending.values()):
            with suppress(Exception):
                _handled(pending.table)
                _handled(pending.results)
                ray.cancel(pending.table, force=True)
        if self.mailbox is not None:
            with suppress(Exception):
                ray.kill(self.mailbox)

    def _forget(self) -> None:
        for kept in (self.pending, self._cancelled, self.results, self.unpacked):
            kept.clear()
        self.mailbox = self.submission = None

    # --- batches --------------------------------------------------------------------------------

    def submit(self, batch: Batch) -> None:
        """Hand a batch to Ray. Whatever hinders that is told as its end."""
        with self.session.calls() as live:
            if not live:
                self._sink.put(BatchLost(batch.batch_id, SHUT_DOWN, suspect=False))
                return
            try:
                self._submit(batch)
            except Exception as error:  # options that Ray does not take, and the like
                self._sink.put(rejected(batch, error))

    def _submit(self, batch: Batch) -> None:
        generation = len(self._callers) // self._slots
        missing = [batch_id for batch_id in batch.reads if batch_id not in self.results]
        if missing:
            self._sink.put(BatchFinished(starved_table(batch, missing, "Ray does not have it any more")))
            return
        results, table = self.submission.submit(batch, self.results, generation)
        self.pending[batch.batch_id] = Pending(batch, results, table)
        table.future().add_done_callback(functools.partial(self._ended, batch.batch_id))

    def _ended(self, batch_id: int, done: Any) -> None:
        """Tell how a batch ended. In Ray's own thread where it finished: a hand-over would cost 0.1 ms."""
        try:
            error = done.exception() or self._finished(batch_id, done.result())
        except Exception as unforeseen:
            error = unforeseen
        if error is not None:
            self._inbox.put(functools.partial(self._broke, batch_id, error))

    def _finished(self, batch_id: int, data: bytes) -> InternalError | None:
        """Take a batch's table. Returns what is wrong with it."""
        try:
            table = codec.unpack(data)
            assert isinstance(table, Table)
        except InternalError as unreadable:
            return unreadable
        pending = self.pending.pop(batch_id, None)
        if pending is not None:
            self._callers.discard(batch_id)
            self.results[batch_id] = pending.results
            if not HAS_RESULT.isdisjoint(table.outcomes):
                self.progressed = True
            if table.results:
                packed = PackedResults.of_small(table.results)
                self.unpacked.put_packed(batch_id, packed, self.results)
            self._sink.put(BatchFinished(table))
        return None

    def _broke(self, batch_id: int, error: BaseException) -> None:
        pending = self.pending.pop(batch_id, None)
        if pending is None:
            return
        self._callers.discard(batch_id)
        _handled(pending.results)
        own = {pending.table.hex() if hasattr(pending.table, "hex") else "", pending.results.hex()}
        read = {ref.hex(): b for b in pending.batch.reads if (ref := self.results.get(b)) is not None}
        self._sink.put(
            ending(pending.batch, error, own, read, forced=pending.forced, started=pending.started)
        )

    def lose_all(self, reason: str) -> None:
        """Ray has gone with all that it was given and has made."""
        self._sink.put(SlotsChanged(0))
        lost = tuple(self.results)
        self.results.clear()
        if lost:
            self._sink.put(ResultsLost(lost, reason))
        running = self._slots  # the oldest may have begun, although nobody has heard of it
        for batch_id in list(self.pending):
            pending = self.pending.pop(batch_id, None)
            if pending is not None:
                self._sink.put(BatchLost(batch_id, reason, suspect=pending.started or running > 0))
                running -= 1

    # --- results --------------------------------------------------------------------------------

    def bring(self, wanted: Sequence[Wanted]) -> list[Brought | ResultLostError]:
        """Return what Ray has of batches."""
        try:
            return bring(self.results, wanted)
        except (Exception, SystemExit) as error:  # as Ray has it, where it is ended meanwhile
            if self.session.live():
                raise
            lost = ResultLostError("results are gone: their Ray has ended")
            lost.__cause__ = error
            return [lost] * len(wanted)

    def release(self, batch_ids: Sequence[int]) -> None:
        for batch_id in batch_ids:
            self.results.pop(batch_id, None)
        self.unpacked.drop(batch_ids)

    # --- events ---------------------------------------------------------------------------------

    def answer(self, call_id: str, reply: bytes) -> None:
        # where the mailbox is being restarted, the call will come again
        with self.session.calls() as live, suppress(Exception):
            if live:
                _handled(self.mailbox.answer.remote(call_id, reply))

    def _take(self) -> None:
        """Ask for messages; Ray starts the actor meanwhile, so nobody waits for it here."""
        with self.session.calls() as live:
            if live and self.mailbox is not None:
                self._on_ready(self.mailbox.take.remote(), self._taken)

    def _taken(self, done: Any) -> None:
        error = done.exception()
        for data in () if error else done.result():
            self._tell(data)
        if error is not None:
            logger.debug("the mailbox is away: %s", error)
            if self.cluster.paused():  # for a moment, in which Ray restarts it; True when we close
                return
        self._take()

    def _tell(self, data: bytes) -> None:
        try:
            event = codec.unpack(data)
        except InternalError as unreadable:
            logger.warning("a live event was dropped: %s", unreadable)
            return
        assert not isinstance(event, Table)
        pending = self.pending.get(event.batch_id)
        if pending is not None:
            pending.started = True
            if isinstance(event, Call):
                self._callers.add(event.batch_id)
        self._sink.put(event)

    def _on_ready(self, ref: Any, act: Callable[[Any], None]) -> None:
        """Have our thread call `act` with a finished future of `ref`. Ray's own thread only queues it."""
        ref.future().add_done_callback(lambda done: self._inbox.put(functools.partial(act, done)))

    def _serve(self) -> None:
        while True:
            try:
                job = self._inbox.get(timeout=self._cancel_due())
            except queue.Empty:
                continue
            if job is None:
                return
            try:
                job()
            except Exception:
                logger.exception("RayTaskRunner: an event could not be handled")

    def _slots_changed(self, slots: int) -> None:
        if slots != self._told_slots:
            self._slots = self._told_slots = slots
            self._sink.put(SlotsChanged(slots))

    # --- cancelling -----------------------------------------------------------------------------

    def cancel(self, batch_ids: Sequence[int], *, force: bool) -> None:
        for batch_id in batch_ids:
            pending = self.pending.get(batch_id)
            if pending is None:
                continue
            pending.forced = pending.forced or force
            pending.cancels = 0
            self._cancel(pending)
        self._inbox.put(lambda: None)  # our thread looks at the clock

    def _cancel_due(self) -> float | None:
        """Repeat cancellations that are due; return the seconds to the next one.

        Ray forgets a cancellation that overtakes its task on the way to the worker. On the worker one more
        does nothing.
        """
        if not self.session.live():
            return None
        now, due = time.monotonic(), math.inf
        for pending in self._cancelled.copy():
            if pending.batch.batch_id not in self.pending:
                self._cancelled.discard(pending)
            elif pending.cancel_again <= now:
                self._cancel(pending)
            due = min(due, pending.cancel_again)
        return None if not self._cancelled else max(0.0, due - now)

    def _cancel(self, pending: Pending) -> None:
        pause = CANCEL_SECONDS[min(pending.cancels, len(CANCEL_SECONDS) - 1)]
        pending.cancels += 1
        pending.cancel_again = time.monotonic() + pause
        self._cancelled.add(pending)
        with self.session.calls() as live, suppress(Exception):  # it has ended meanwhile
            if live:
                ray.cancel(pending.table, force=pending.forced)


def _handled(ref: Any) -> None:
    """Take note of a ref's error, which Ray would otherwise log as unhandled."""
    ref.future()
