"""The far side of the Dask runner: what runs inside Dask's worker processes.

A Dask task gets one blob, so Dask never walks user data, and the results of the upstream batches. It returns
a `BatchResult`, which stays on the worker. The scheduler need not have Millrace installed: functions of this
module are named in tasks by strings, and imported on workers only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import platform
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from importlib import metadata
from time import time
from typing import Any, TypeVar

from distributed.diagnostics.plugin import WorkerPlugin
from distributed.threadpoolexecutor import rejoin, secede
from distributed.worker import get_worker, thread_state
from distributed.worker_state_machine import SecedeEvent

from . import codec
from .channel import CallBook, new_call_id
from .context import current_item, listening
from .dask_bans import BANS_CALL
from .errors import BackendError, ResultLostError, VersionMismatchError
from .held import held_by
from .messages import Batch, BatchProgress, BatchStarted, Call, Detail, Outcome, Payload, Table
from .results import PackedResults
from .shipping import PAYLOAD_CALL, PayloadStore, complete, read_label, seal, unseal
from .tables import uniform_table, unstarted_table
from .worker import cancel_batches, run_batch

MAX_EVENT = 256 << 10  # bytes; larger tables are fetched, since the scheduler keeps 1,000 events of a topic
FLUSH_SECONDS = 1.0
MAX_REMEMBERED = 10_000  # batches whose start or cancellation a worker remembers

Name = TypeVar("Name", str, tuple[str, int])

_calls = CallBook()
_store = PayloadStore()
_lock = threading.Lock()
_started: OrderedDict[tuple[str, int], None] = OrderedDict()
_banned: OrderedDict[tuple[str, int], None] = OrderedDict()
_barred: OrderedDict[tuple[str, int], None] = OrderedDict()  # likewise, but only until that is taken back
_welcomed: OrderedDict[str, None] = OrderedDict()  # topics whose bans were told
_running: dict[str, tuple[str, int]] = {}  # key of the Dask task -> run_id, batch_id


def mismatch(worker: str, theirs: str, ours: str) -> str:
    return (
        f"worker {worker} runs millrace {theirs}, the flow's process {ours}. "
        "Install the same version in both, then restart the worker."
    )


class BatchResult:
    """The value of a batch's Dask task. The table rides along, for when its event has not arrived."""

    __slots__ = ("packed", "table")

    def __init__(self, packed: PackedResults, table: bytes) -> None:
        self.packed = packed
        self.table = table

    def __sizeof__(self) -> int:
        return self.packed.__sizeof__() + len(self.table)


def pack_batch(batch: Batch, topic: str) -> bytes:
    """Return a batch as the blob that `run_packed` takes."""
    return seal((versions()["millrace"], topic), batch)


def run_packed(blob: bytes, *upstream: BatchResult) -> BatchResult:
    """Run a batch as a Dask task."""
    (version, topic), sealed = read_label(blob)
    if version != versions()["millrace"]:
        raise VersionMismatchError(mismatch(get_worker().address, versions()["millrace"], version))
    batch: Batch = unseal(sealed)
    worker, key = get_worker(), str(thread_state.key)
    channel = DaskChannel(worker, topic, key, batch.run_id, tells_first=batch.timed)
    if not channel.knows_bans(batch.batch_id) or not _admit(topic, batch, key):
        return BatchResult(PackedResults([]), codec.pack(unstarted_table(batch)))
    _watch_cancellation(worker)
    try:
        batch = complete(batch, partial(channel.payload, batch.batch_id))
    except ResultLostError as error:
        _running.pop(key, None)
        table = uniform_table(batch, Outcome.INPUT_LOST, Detail("ResultLostError", str(error)))
        return BatchResult(PackedResults([]), channel.send_table(table, PackedResults([])))
    by_id = dict(zip(batch.reads, upstream, strict=True))
    # a result is empty where Dask has computed it again and was not to
    found = [None if i.batch_id is None else by_id[i.batch_id].packed for i in batch.inputs]
    fetched = held_by(batch.inputs, [packed if packed and packed.frames else None for packed in found])
    try:
        results, table = run_batch(batch, fetched, channel, in_process=False)
    finally:
        _running.pop(key, None)
    packed = PackedResults.pack(results)
    return BatchResult(packed, channel.send_table(replace(table, results=packed.small()), packed))


class DaskChannel:
    """The worker's way to the flow's process: events of a topic up, functions run on the worker down.

    Args:
        tells_first: what it tells of the start has left this process before user code runs. Code that holds the
            interpreter would keep it here, and nobody would know that its time runs.
    """

    def __init__(self, worker: Any, topic: str, key: str, run_id: str, *, tells_first: bool = False) -> None:
        self._worker = worker
        self._tells_first = tells_first
        self._topic = topic
        self._key = key
        self._run_id = run_id

    def emit(self, event: BatchStarted | BatchProgress) -> None:
        """Tell of an event. A batch that Dask has taken back just now does not begin: nobody would hear of it."""
        if isinstance(event, BatchProgress):
            self._send(codec.pack(event))
        elif self.alive():
            self._log(codec.pack(event))  # whatever Dask does meanwhile: it begins
            if self._tells_first:
                self._flush()
        else:
            cancel_batches(self._run_id, [event.batch_id])

    def call(self, batch_id: int, execution_id: str, entry: int, kind: str, payload: bytes) -> bytes:
        call = Call(new_call_id(), batch_id, execution_id, entry, kind, payload)
        # a permit is answered soon, and must not wait behind another batch that took the slot meanwhile
        lent = contextlib.nullcontext() if kind == "permit" else slot_lent()
        with lent:
            return _calls.ask(call, lambda c: self._send(codec.pack(c)), alive=self.alive)

    def payload(self, batch_id: int, digest: str) -> Payload:
        """Return a payload that parcels do not carry, from this process or else the flow's.

        Raises:
            ResultLostError: the flow's process does not have it any more.
        """
        call = codec.pack(Call("", batch_id, "", 0, PAYLOAD_CALL, digest.encode()))
        return _store.get(digest) or _store.await_payload(digest, lambda: self._send(call), self.alive)

    def knows_bans(self, batch_id: int) -> bool:
        """Ask what may not start here, if that was not told yet. False: the flow's process has gone."""
        if self._topic not in _welcomed:
            call = Call(new_call_id(), batch_id, "", 0, BANS_CALL, b"")
            try:
                _calls.ask(call, lambda c: self._send(codec.pack(c)), alive=self.alive)
            except BackendError:
                return False
        return True

    def alive(self) -> bool:
        """Whether the flow still wants this batch: the scheduler takes it back when the client goes."""
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state in ("executing", "long-running")

    def send_table(self, table: Table, packed: PackedResults) -> bytes:
        data = codec.pack(table)
        if len(data) <= MAX_EVENT:
            self._send(data, packed.__sizeof__())
        return data

    def _send(self, data: bytes, size: int = 0) -> None:
        if not self.alive():
            return  # an event would make the scheduler keep the topic of a run that has gone
        self._log(data, size)

    def _flush(self) -> None:
        """Wait until what was told is on its way; Dask collects messages for 2 ms. Not for ever: it is a hint."""
        out = threading.Event()

        async def wait() -> None:
            stream = self._worker.batched_stream
            while stream.buffer and stream.comm is not None and not stream.comm.closed():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)  # it is being written
            out.set()

        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._worker.loop.add_callback(wait)
            out.wait(FLUSH_SECONDS)

    def _log(self, data: bytes, size: int = 0) -> None:
        with contextlib.suppress(Exception):  # the worker is closing: nobody listens any more
            self._worker.log_event(self._topic, (self._worker.address, data, size))


# --- slots -------------------------------------------------------------------------------------------


@contextmanager
def slot_lent() -> Iterator[None]:
    """Give this task's slot to others inside the block; have one again after it.

    Leaving and entering the thread pool must not be torn by an interrupt, hence `listening` around it all.
    """
    if not hasattr(thread_state, "start_time"):  # not the thread of a task
        _lend_from_loop()
        yield
        return
    with listening(_nothing):
        lent = _secede()
        try:
            yield
        finally:
            if lent:
                with contextlib.suppress(RuntimeError):  # the worker is closing
                    rejoin()


def _secede() -> bool:
    """Leave the worker's thread pool. Returns False if this thread has left it before."""
    try:
        secede()
    except KeyError:
        return False
    worker, now = get_worker(), time()
    event = SecedeEvent(
        key=thread_state.key,
        compute_duration=now - thread_state.start_time,
        stimulus_id=f"millrace-secede-{now}",
    )
    worker.loop.add_callback(worker.handle_stimulus, event)
    return True


def _lend_from_loop() -> None:
    """For a call from a helper thread of an async item: its task gives up the slot for good.

    It waits more than it computes, and taking a slot again would block all its coroutines.
    """
    item = current_item.get()
    if item is not None:
        with contextlib.suppress(RuntimeError):  # the loop has just been closed
            item.execution.event_loop().call_soon_threadsafe(_secede)


def _nothing() -> None:
    pass


# --- run on workers by the flow's process ------------------------------------------------------------


def answer(call_id: str, reply: bytes) -> bool:
    """Hand the answer of a call to whoever waits for it in this process."""
    return _calls.answer(call_id, reply)


def take_payload(digest: str, data: bytes | None, buffers: Sequence[Any]) -> None:
    """Keep a payload that a batch of this process has asked for; without data, it is not to be had."""
    if data is None:
        _store.refuse(digest)
    else:
        _store.put(digest, data, buffers)


def take_bans(topic: str, stopped: Sequence[int], barred: Sequence[int], call_id: str) -> None:
    """Let none of these batches start here, and answer the call that asked for them, if one did."""
    with _lock:
        for book, batch_ids in ((_banned, stopped), (_barred, barred)):
            for batch_id in batch_ids:
                if (topic, batch_id) not in _started:
                    _remember(book, (topic, batch_id))
        _remember(_welcomed, topic)
    _calls.answer(call_id, b"told")


def stop_batches(topic: str, run_id: str, batch_ids: Sequence[int]) -> list[int]:
    """Interrupt batches that run here and bar those that have not started; returns the former."""
    begun = []
    with _lock:
        for batch_id in batch_ids:
            if (topic, batch_id) in _started:
                begun.append(batch_id)
            else:
                _remember(_banned, (topic, batch_id))
    cancel_batches(run_id, begun)
    return begun


def waiting_batches(keys: Mapping[int, str], dask_worker: Any) -> list[int]:
    """Return the batches, by keys of their Dask tasks, that could begin here if not all threads were busy."""
    state = dask_worker.state
    if state.executing_count < state.nthreads:
        return []
    tasks = {batch_id: state.tasks.get(key) for batch_id, key in keys.items()}
    return [batch_id for batch_id, task in tasks.items() if task is not None and task.state == "ready"]


def bar_batches(topic: str, batch_ids: Sequence[int]) -> list[int]:
    """Let none of these batches start here any more; returns those that have, which go on."""
    with _lock:
        begun = [batch_id for batch_id in batch_ids if (topic, batch_id) in _started]
        for batch_id in set(batch_ids) - set(begun):
            _remember(_barred, (topic, batch_id))
    return begun


def unbar_batches(topic: str, batch_ids: Sequence[int]) -> None:
    """Let batches start here again: they could not be taken back."""
    with _lock:
        for batch_id in batch_ids:
            _barred.pop((topic, batch_id), None)


def table_of(result: BatchResult) -> bytes:
    return result.table


def select(result: BatchResult, stage: int, positions: Sequence[int]) -> BatchResult:
    """Return a result of some values only, at positions 0, 1, ... of stage 0."""
    return BatchResult(result.packed.pick(stage, positions), b"")


def versions() -> dict[str, str]:
    """What has to be equal on both sides."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "millrace": f"{_distribution_version()}/{codec.WIRE_VERSION}",
        "file": str(pathlib.Path(__file__).parent),
    }


@lru_cache(maxsize=1)
def _distribution_version() -> str:
    try:
        return metadata.version("millrace")
    except metadata.PackageNotFoundError:
        return "unknown"


# --- whether a batch may start, and when it has to end -----------------------------------------------


def _admit(topic: str, batch: Batch, key: str) -> bool:
    """Note that a batch starts here. False if it was cancelled before, or taken back."""
    with _lock:
        if (topic, batch.batch_id) in _banned or (topic, batch.batch_id) in _barred:
            return False
        _remember(_started, (topic, batch.batch_id))
        _running[key] = batch.run_id, batch.batch_id
        return True


def _remember(book: OrderedDict[Name, None], name: Name) -> None:
    book[name] = None
    while len(book) > MAX_REMEMBERED:
        book.popitem(last=False)


class CancellationPlugin(WorkerPlugin):  # type: ignore[misc,unused-ignore]
    """Stops batches that nobody wants any more: their flow's process has gone."""

    name = "millrace-cancellation"

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        if finish == "cancelled" and key in _running:
            run_id, batch_id = _running[key]
            cancel_batches(run_id, [batch_id])

    def teardown(self, worker: Any) -> None:
        """Keep a worker process that ends as quiet as it was.

        Dask gives its log back the level that it had before `silence_logs`, and then tells of the last connection.
        """
        if worker.nanny:  # else it is not the worker's process
            handlers = logging.getLogger("distributed").handlers
            level = max((one.level for one in handlers if isinstance(one, logging.StreamHandler)), default=0)
            core = logging.getLogger("distributed.core")
            core.setLevel(max(level, core.getEffectiveLevel()))


def _watch_cancellation(worker: Any) -> None:
    if CancellationPlugin.name not in worker.plugins:
        worker.loop.add_callback(worker.plugin_add, plugin=CancellationPlugin(), name=CancellationPlugin.name)
