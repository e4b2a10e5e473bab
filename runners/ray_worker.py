"""The far side on Ray: what runs in worker processes.

Ray runs a task in the main thread of its process and interrupts it there: `ray.cancel` becomes SIGINT.
`_Guard` turns that signal into the cancellation of the batch, so that its table comes back whole. Ray itself
knows whether a task is queued or running, hence no cancellation races with a start.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any

import ray

from . import codec, execution
from .errors import VersionMismatchError
from .messages import Batch, Payload
from .ray_mailbox import MailboxChannel
from .results import PackedResults
from .worker import cancel_batches, run_batch


@dataclass(frozen=True, slots=True)
class Order:
    """One submission, pickled; the objects that it reads are arguments of the Ray task beside it.

    Attributes:
        sources: for each input of the batch the argument that holds its batch's results, or None.
        shared: arguments that hold the data of large payloads, by digest.
    """

    batch: Batch
    mailbox: str
    sources: tuple[int | None, ...]
    shared: Mapping[str, int] = field(default_factory=dict)


class SharedData:
    """Bytes of a payload that many batches need: one object in Ray's store, read there without a copy."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        data = pickle.PickleBuffer(self.data) if protocol >= codec.PROTOCOL else bytes(self.data)
        return SharedData, (data,)


def own_version() -> str:
    """Version of the distribution, by which both sides see that they fit."""
    try:
        return f"{version('millrace')}/{codec.WIRE_VERSION}"
    except PackageNotFoundError:  # the packages were copied, for instance by a runtime_env
        return f"?/{codec.WIRE_VERSION}"


def check_version(theirs: str) -> None:
    """Raise `VersionMismatchError` unless messages of `theirs` can be read here."""
    ours = own_version()
    (our_release, _, our_wire), (their_release, _, their_wire) = ours.partition("/"), theirs.partition("/")
    if our_wire != their_wire or ("?" not in (our_release, their_release) and our_release != their_release):
        raise VersionMismatchError(
            f"this Ray worker has millrace {our_release} (messages {our_wire}), the flow's process has "
            f"{their_release} (messages {their_wire}). Install the same version on both sides."
        )


def run(their_version: str, message: bytes, *held: Any) -> tuple[PackedResults, bytes]:
    """Run a batch. The body of the one remote function."""
    check_version(their_version)
    order: Order = codec.loads(message)
    batch = _with_shared(order, held) if order.shared else order.batch
    fetched = [
        None if source is None else held[source].load(wanted.stage)
        for source, wanted in zip(order.sources, batch.inputs, strict=True)
    ]
    _guard.watch(batch)
    results, table = run_batch(batch, fetched, MailboxChannel(order.mailbox), in_process=False)
    return PackedResults.pack(results), codec.pack(table)


def _with_shared(order: Order, held: tuple[Any, ...]) -> Batch:
    """Put large payloads back in their places."""

    def whole(payload: Payload) -> Payload:
        where = order.shared.get(payload.digest) if payload.data is None else None
        return payload if where is None else replace(payload, data=held[where].data)

    return map_payloads(order.batch, whole)


def map_payloads(batch: Batch, change: Callable[[Payload], Payload]) -> Batch:
    """Return `batch` with every payload changed."""
    stages = tuple(replace(s, body=change(s.body), arguments=change(s.arguments)) for s in batch.stages)
    inputs = tuple(i if i.literal is None else replace(i, literal=change(i.literal)) for i in batch.inputs)
    return replace(batch, stages=stages, inputs=inputs, context=change(batch.context))


@dataclass(frozen=True, slots=True)
class _Watch:
    """The batch whose task may be cancelled now."""

    run_id: str
    batch_id: int
    task_id: str


class _Guard:
    """Turns the interrupt of `ray.cancel` into the cancellation of the batch that runs.

    Ray only marks SIGINT as arrived, which nobody sees while the main thread waits in C code. Python writes
    every such mark to the wakeup file, where our thread sees it and wakes the main thread.
    """

    def __init__(self) -> None:
        self._watch: _Watch | None = None
        self._previous: Any = signal.SIG_DFL
        # the handler runs between any two bytecodes of the main thread and takes no lock: another thread acts
        self._requests: queue.SimpleQueue[_Watch] = queue.SimpleQueue()
        self._installed = False

    def watch(self, batch: Batch) -> None:
        self._watch = _Watch(batch.run_id, batch.batch_id, ray.get_runtime_context().get_task_id() or "")
        if threading.current_thread() is not threading.main_thread():
            return
        present = signal.getsignal(signal.SIGINT)
        if present != self._on_interrupt:
            self._previous = signal.signal(signal.SIGINT, self._on_interrupt)
        if not self._installed:
            self._installed = True
            self._install()

    def _install(self) -> None:
        signal.signal(signal.SIGURG, _do_nothing)
        execution.nudge = _nudge
        threading.Thread(target=self._cancel, name="millrace-cancel", daemon=True).start()
        marks, write_end = os.pipe()
        os.set_blocking(write_end, False)
        before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        if before != -1:  # somebody else needs them: then a sleeping batch is cancelled when it wakes up
            signal.set_wakeup_fd(before)
            return
        threading.Thread(target=_wake_main, args=(marks,), name="millrace-signals", daemon=True).start()

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        watch = self._watch
        # it stays after the batch: a request that comes while Ray stores its results must not undo them
        if watch is not None and ray.get_runtime_context().get_task_id() == watch.task_id:
            self._requests.put(watch)
        elif callable(self._previous):
            self._previous(number, frame)

    def _cancel(self) -> None:
        while True:
            watch = self._requests.get()
            cancel_batches(watch.run_id, [watch.batch_id])


def _wake_main(marks: int) -> None:
    """Make the main thread handle each SIGINT now."""
    main = threading.main_thread().ident
    assert main is not None
    while arrived := os.read(marks, 64):
        if signal.SIGINT in arrived:
            signal.pthread_kill(main, signal.SIGURG)


def _nudge(thread_id: int) -> None:
    """Wake the main thread from a sleep, a lock or a socket, so that an exception sent to it is raised now.

    Python calls the signal's handler out of such waits, and the exception is raised in the handler's frame.
    SIGURG, because it is ignored where no handler is. Ray's own waits would swallow an exception out of a
    handler; there it waits for their end.
    """
    if thread_id != threading.main_thread().ident:
        return
    frame = sys._current_frames().get(thread_id)
    if frame is None or not frame.f_globals.get("__name__", "").startswith("ray."):
        signal.pthread_kill(thread_id, signal.SIGURG)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


_guard = _Guard()
