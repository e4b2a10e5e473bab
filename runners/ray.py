"""Task runs on Ray: a local one of our own, one that the program has initialised, or a cluster by address.

One remote function runs batches and returns two objects: the results, which stay where they were made, and
the table, which Ray hands to us when it is there (a callback, so nothing is polled). Ray's own retries are
off. Cancelling is `ray.cancel`; see `ray_worker` for what it does to a batch that runs.
"""

from __future__ import annotations

import functools
import logging
import pickle
import queue
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from . import codec, ray_session
from .base import Capabilities, Sink, TaskRunner
from .errors import InternalError, ResultLostError, RunnerNotStartedError, RunnerOptionError
from .messages import (
    Batch,
    BatchFinished,
    BatchLost,
    Call,
    Payload,
    RunnerFailed,
    SlotsChanged,
    Table,
)
from .options import using_options
from .storage import MISSING

logger = logging.getLogger("millrace.ray")

SHARED_BYTES = 100_000  # a payload this large is put into the object store once, not into every message
MAX_SHARED = 256
SHUT_DOWN = "the program has shut Ray down"
MAX_UNPACKED = 8
MAX_GENERATIONS = 64


def remote_options(**options: Any) -> AbstractContextManager[None]:
    """Give task submissions within the block these runner options: `with remote_options(num_gpus=1): ...`."""
    return using_options(options)


@dataclass(slots=True)
class _Pending:
    """A batch at the engine."""

    batch: Batch
    results: Any  # object refs
    table: Any
    started: bool = False
    forced: bool = False


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
        self._mailbox_name = ""
        self._slots, self._told_slots = 1, 0
        self._callers: set[int] = set()
        self._failed = False
        self._pending: dict[int, _Pending] = {}
        self._results: dict[int, Any] = {}
        self._unpacked: OrderedDict[tuple[int, int], list[Any]] = OrderedDict()
        self._shared: OrderedDict[str, Any] = OrderedDict()
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
        import ray

        if not self._started():
            return
        for batch_id in batch_ids:
            pending = self._pending.get(batch_id)
            if pending is None:
                continue
            pending.forced = pending.forced or force
            with suppress(Exception):  # it has ended meanwhile
                ray.cancel(pending.table, force=force)

    def fetch(self, batch_id: int, stage: int, positions: Sequence[int]) -> list[Any]:
        if not self._started():
            raise ResultLostError(f"results of batch {batch_id} are gone: {SHUT_DOWN}")
        key = batch_id, stage
        values = self._unpacked.get(key)
        if values is None:
            values = self._unpacked[key] = self._load(batch_id, stage)
            while len(self._unpacked) > MAX_UNPACKED:
                self._unpacked.popitem(last=False)
        picked = [values[p] for p in positions]
        if any(value is MISSING for value in picked):
            raise ResultLostError(
                f"some of the items {list(positions)[:10]} of batch {batch_id} have no result"
            )
        return picked

    def release(self, batch_ids: Sequence[int]) -> None:
        gone = set(batch_ids)
        for batch_id in gone:
            self._results.pop(batch_id, None)
        for key in [key for key in self._unpacked if key[0] in gone]:
            del self._unpacked[key]

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
        for kept in (self._pending, self._results, self._unpacked, self._shared):
            kept.clear()
        self._mailbox = None
        session.release()

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        if not options:
            return
        try:
            _function(0).options(**options)
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
        from .ray_worker import Order, map_payloads, own_version

        held: list[Any] = []
        try:
            sources = _places(
                [None if i.batch_id is None else self._results[i.batch_id] for i in batch.inputs], held
            )
        except KeyError as error:
            self._emit(BatchLost(batch.batch_id, f"the results of batch {error} have gone", suspect=False))
            return
        shared: dict[str, int] = {}

        def slim(payload: Payload) -> Payload:
            if not payload.digest or payload.data is None or len(payload.data) < SHARED_BYTES:
                return payload
            if payload.digest not in shared:
                shared[payload.digest] = len(held)
                held.append(self._share(payload))
            return replace(payload, data=None)

        order = Order(map_payloads(batch, slim), self._mailbox_name, sources, shared)
        message = pickle.dumps(order, codec.PROTOCOL)
        generation = len(self._callers) // self._slots % MAX_GENERATIONS
        results, table = _named_function(batch, generation).remote(own_version(), message, *held)
        self._pending[batch.batch_id] = _Pending(batch, results, table)
        self._on_ready(table, functools.partial(self._ended, batch.batch_id))

    def _share(self, payload: Payload) -> Any:
        import ray

        from .ray_worker import SharedData

        ref = self._shared.get(payload.digest)
        if ref is None:
            ref = self._shared[payload.digest] = ray.put(SharedData(payload.data))
            while len(self._shared) > MAX_SHARED:
                self._shared.popitem(last=False)
        self._shared.move_to_end(payload.digest)
        return ref

    def _ended(self, batch_id: int, done: Any) -> None:
        pending = self._pending.pop(batch_id, None)
        if pending is None:
            return
        self._callers.discard(batch_id)
        error: BaseException | None = done.exception()
        if error is None:
            try:
                table = codec.unpack(done.result())
                assert isinstance(table, Table)
                self._results[batch_id] = pending.results
                self._emit(BatchFinished(table))
                return
            except InternalError as unreadable:
                error = unreadable
        from .ray_failures import ending

        _handled(pending.results)
        own = {pending.table.hex() if hasattr(pending.table, "hex") else "", pending.results.hex()}
        self._emit(ending(pending.batch, error, own, forced=pending.forced, started=pending.started))

    def _load(self, batch_id: int, stage: int) -> list[Any]:
        import ray

        ref = self._results.get(batch_id)
        if ref is None:
            raise ResultLostError(f"results of batch {batch_id} have been released")
        try:
            values: list[Any] = ray.get(ref).load(stage)
            return values
        except ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ResultLostError(f"Ray has lost the results of batch {batch_id}: {reason}") from error

    # --- events ---------------------------------------------------------------------------------

    def _open_mailbox(self) -> None:
        from .ray_cluster import open_mailbox

        self._mailbox_name = f"millrace-{uuid.uuid4().hex}"
        self._mailbox = open_mailbox(self._mailbox_name)
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
            logger.debug("the mailbox %s is away: %s", self._mailbox_name, error)
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
        while (job := self._inbox.get()) is not None:
            try:
                job()
            except Exception:
                logger.exception("RayTaskRunner: an event could not be handled")

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


@functools.cache
def _function(generation: int) -> Any:
    """The remote function of this process, once for each generation of batches that wait for others.

    Ray holds back tasks of a function of which as many run as there are CPUs, also when these wait and have
    lent their CPUs: for 1, 2, 4 and at last 10 s each. Batches that are submitted while others wait for them
    are therefore a function of their own (measured: 50 levels took 514 s before).
    """
    import ray

    from .ray_worker import run

    return ray.remote(max_retries=0, num_returns=2)(run)


def _named_function(batch: Batch, generation: int) -> Any:
    """The remote function with the batch's name and options."""
    name = "+".join(stage.task_name for stage in batch.stages)
    return _function(generation).options(name=name, **batch.options)


def _places(refs: Sequence[Any], held: list[Any]) -> tuple[int | None, ...]:
    """Append each ref to `held` once and return where it is."""
    places: dict[Any, int] = {}
    for ref in refs:
        if ref is not None and ref not in places:
            places[ref] = len(held)
            held.append(ref)
    return tuple(None if ref is None else places[ref] for ref in refs)


def _handled(ref: Any) -> None:
    """Take note of a ref's error, which Ray would otherwise log as unhandled."""
    ref.future()
