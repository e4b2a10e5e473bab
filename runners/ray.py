"""Task runs on Ray: a local one of our own, one that the program has initialised, or a cluster by address.

One remote function runs batches and returns two objects: the results, which stay where they were made, and
the table, which Ray hands to us when it is there (a callback, so nothing is polled). Ray's own retries are
off. Cancelling is `ray.cancel`; see `ray_worker` for what it does to a batch that runs.
"""

from __future__ import annotations

import functools
import logging
import math
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from . import codec, ray_session
from .base import Capabilities, Sink, TaskRunner, Wanted
from .errors import (
    InternalError,
    MissingExtraError,
    ResultLostError,
    RunnerNotStartedError,
    RunnerOptionError,
)
from .messages import (
    Batch,
    BatchFinished,
    BatchLost,
    Call,
    RunnerFailed,
    SlotsChanged,
    Table,
)
from .options import using_options
from .results import PackedResults
from .tables import starved_table
from .unpacked import Brought, Unpacked, unless_lost

logger = logging.getLogger("millrace.ray")

CANCEL_SECONDS = (0.1, 0.3, 1.0, 5.0)  # until Ray is asked again to cancel a batch
SHUT_DOWN = "the program has shut Ray down"


def remote_options(**options: Any) -> AbstractContextManager[None]:
    """Give task submissions within the block these runner options: `with remote_options(num_gpus=1): ...`."""
    return using_options(options)


@dataclass(slots=True, eq=False)
class _Pending:
    """A batch at the engine."""

    batch: Batch
    results: Any  # object refs
    table: Any
    started: bool = False
    forced: bool = False
    cancels: int = 0  # how often Ray has been asked to cancel it
    cancel_again: float = math.inf


class RayTaskRunner(TaskRunner):
    """Runs batches as Ray tasks.

    Args:
        address: "auto", "host:port" or "ray://host:port" of a cluster. None takes a Ray that this process has
            already initialised, then RAY_ADDRESS, else starts a local one that ends with the run.
        init_kwargs: further arguments of `ray.init`.
    """

    name: ClassVar[str] = "ray"
    capabilities: ClassVar[Capabilities] = Capabilities(
        prefetch=2,
        options=frozenset(
            {
                "num_cpus",
                "num_gpus",
                "resources",
                "memory",
                "accelerator_type",
                "scheduling_strategy",
                "runtime_env",
            }
        ),
    )

    def __init__(self, address: str | None = None, init_kwargs: Mapping[str, Any] | None = None) -> None:
        self.address = address
        self.init_kwargs = dict(init_kwargs or {})
        self._session: ray_session.Session | None = None
        self._cluster: Any = None
        self._mailbox: Any = None
        self._submission: Any = None
        self._slots, self._told_slots = 1, 0
        self._callers: set[int] = set()
        self._failed = False
        self._pending: dict[int, _Pending] = {}
        self._cancelled: set[_Pending] = set()
        self._results: dict[int, Any] = {}
        self._unpacked = Unpacked()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def duplicate(self) -> Any:
        twin = super().duplicate()
        RayTaskRunner.__init__(twin, self.address, self.init_kwargs)
        return twin

    # --- the port -------------------------------------------------------------------------------

    def start(self, sink: Sink) -> None:
        self.sink = sink
        self._failed = False
        self._inbox = queue.SimpleQueue()
        self._session = ray_session.connect(self, self.address, self.init_kwargs)
        try:
            from . import ray_cluster

            self._cluster = ray_cluster.Cluster(self._session, self._slots_changed, self._engine_gone)
            self._cluster.check_version()
            self._open_mailbox()
            self._thread = threading.Thread(target=self._serve, name="millrace-ray", daemon=True)
            self._thread.start()
            self._cluster.watch()
        except BaseException:
            self.close()
            raise

    def submit(self, batches: Sequence[Batch]) -> None:
        live = self._started()
        for batch in batches:
            if not live:
                self._emit(BatchLost(batch.batch_id, SHUT_DOWN, suspect=False))
                continue
            try:
                self._submit(batch)
            except Exception as error:  # options that Ray does not take, and the like
                from .ray_failures import rejected

                self._emit(rejected(batch, error))

    def cancel(self, batch_ids: Sequence[int], *, force: bool = False) -> None:
        if not self._started():
            return
        for batch_id in batch_ids:
            pending = self._pending.get(batch_id)
            if pending is None:
                continue
            pending.forced = pending.forced or force
            pending.cancels = 0
            self._cancel(pending)
        self._inbox.put(lambda: None)  # our thread looks at the clock

    def fetch(self, batch_id: int, stage: int, positions: Sequence[int]) -> list[Any]:
        (found,) = self.fetch_many([(batch_id, stage, positions)])
        return unless_lost(found)

    def fetch_many(self, wanted: Sequence[Wanted]) -> list[list[Any] | ResultLostError]:
        if not self._started():
            return [ResultLostError(f"results of batch {w[0]} are gone: {SHUT_DOWN}") for w in wanted]
        return self._unpacked.fetch_many(wanted, self._results, self._bring)

    def _bring(self, wanted: Sequence[Wanted]) -> list[Brought | ResultLostError]:
        from .ray_results import bring

        return bring(self._results, wanted)

    def release(self, batch_ids: Sequence[int]) -> None:
        for batch_id in batch_ids:
            self._results.pop(batch_id, None)
        self._unpacked.drop(batch_ids)

    def answer(self, call_id: str, reply: bytes) -> None:
        if not self._started():
            return
        with suppress(Exception):  # the mailbox is being restarted: the call will come again
            _handled(self._mailbox.answer.remote(call_id, reply))

    def close(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        if self._cluster is not None:
            self._cluster.close()
        self._inbox.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if not self._failed and session.live():
            self._let_go()
        for kept in (self._pending, self._cancelled, self._results, self._unpacked):
            kept.clear()
        self._mailbox = self._submission = None
        session.release()

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        if not options:
            return
        try:
            from .ray_submission import remote_function
        except ImportError:
            raise MissingExtraError("ray", "ray") from None
        try:
            remote_function(0).options(**options)
        except (TypeError, ValueError) as error:
            raise RunnerOptionError(f"runner_options {dict(options)!r}: {error}") from error
        if self._cluster is not None:
            self._cluster.check_feasible(options)

    def describe(self) -> str:
        if self._cluster is None:
            return f"RayTaskRunner, {self.address or 'not started'}"
        return str(self._cluster.describe())

    # --- batches --------------------------------------------------------------------------------

    def _submit(self, batch: Batch) -> None:
        generation = len(self._callers) // self._slots
        missing = [batch_id for batch_id in batch.reads if batch_id not in self._results]
        if missing:
            self._emit(BatchFinished(starved_table(batch, missing, "Ray does not have it any more")))
            return
        results, table = self._submission.submit(batch, self._results, generation)
        self._pending[batch.batch_id] = _Pending(batch, results, table)
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
        pending = self._pending.pop(batch_id, None)
        if pending is not None:
            self._callers.discard(batch_id)
            self._results[batch_id] = pending.results
            if table.results:
                packed = PackedResults.of_small(table.results)
                self._unpacked.put_packed(batch_id, packed, self._results)
            self._emit(BatchFinished(table))
        return None

    def _broke(self, batch_id: int, error: BaseException) -> None:
        pending = self._pending.pop(batch_id, None)
        if pending is None:
            return
        self._callers.discard(batch_id)
        from .ray_failures import ending

        _handled(pending.results)
        own = {pending.table.hex() if hasattr(pending.table, "hex") else "", pending.results.hex()}
        read = {ref.hex(): b for b in pending.batch.reads if (ref := self._results.get(b)) is not None}
        self._emit(ending(pending.batch, error, own, read, forced=pending.forced, started=pending.started))

    # --- events ---------------------------------------------------------------------------------

    def _open_mailbox(self) -> None:
        from .ray_cluster import open_mailbox
        from .ray_submission import Submission

        name = f"millrace-{uuid.uuid4().hex}"
        self._mailbox = open_mailbox(name)
        self._submission = Submission(name)
        self._take()

    def _take(self) -> None:
        """Ask for messages; Ray starts the actor meanwhile, so nobody waits for it here."""
        session = self._session
        if session is not None and session.live():
            self._on_ready(self._mailbox.take.remote(), self._taken)

    def _taken(self, done: Any) -> None:
        error = done.exception()
        for data in () if error else done.result():
            self._tell(data)
        if error is not None:
            logger.debug("the mailbox is away: %s", error)
            if self._cluster.paused():  # for a moment, in which Ray restarts it; True when we close
                return
        self._take()

    def _tell(self, data: bytes) -> None:
        try:
            event = codec.unpack(data)
        except InternalError as unreadable:
            logger.warning("a live event was dropped: %s", unreadable)
            return
        assert not isinstance(event, Table)
        pending = self._pending.get(event.batch_id)
        if pending is not None:
            pending.started = True
            if isinstance(event, Call):
                self._callers.add(event.batch_id)
        self._emit(event)

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

    def _cancel_due(self) -> float | None:
        """Repeat cancellations that are due; return the seconds to the next one.

        Ray forgets a cancellation that overtakes its task on the way to the worker. On the worker one more
        does nothing.
        """
        session = self._session
        if session is None or not session.live():
            return None
        now, due = time.monotonic(), math.inf
        for pending in self._cancelled.copy():
            if pending.batch.batch_id not in self._pending:
                self._cancelled.discard(pending)
            elif pending.cancel_again <= now:
                self._cancel(pending)
            due = min(due, pending.cancel_again)
        return None if not self._cancelled else max(0.0, due - now)

    def _cancel(self, pending: _Pending) -> None:
        import ray

        pause = CANCEL_SECONDS[min(pending.cancels, len(CANCEL_SECONDS) - 1)]
        pending.cancels += 1
        pending.cancel_again = time.monotonic() + pause
        self._cancelled.add(pending)
        with suppress(Exception):  # it has ended meanwhile
            ray.cancel(pending.table, force=pending.forced)

    def _slots_changed(self, slots: int) -> None:
        if slots != self._told_slots:
            self._slots = self._told_slots = slots
            self._emit(SlotsChanged(slots))

    def _engine_gone(self, reason: str) -> None:
        self._failed = True
        self._emit(RunnerFailed(reason))

    def _let_go(self) -> None:
        """End what is still running and the mailbox; a cluster of others goes on."""
        import ray

        for pending in list(self._pending.values()):
            with suppress(Exception):
                _handled(pending.table)
                _handled(pending.results)
                ray.cancel(pending.table, force=True)
        if self._mailbox is not None:
            with suppress(Exception):
                ray.kill(self._mailbox)

    def _started(self) -> bool:
        """Whether Ray may be called; raise where this is not for Ray to say."""
        if self._session is None:
            raise RunnerNotStartedError("RayTaskRunner is not running: it was closed or never started")
        return self._session.live()


def _handled(ref: Any) -> None:
    """Take note of a ref's error, which Ray would otherwise log as unhandled."""
    ref.future()
