"""The far side on Ray: what runs in worker processes.

Ray runs a task in the main thread of its process and interrupts it there: `ray.cancel` becomes SIGINT.
`_Guard` turns that signal into the cancellation of the batch, so that its table comes back whole. Ray itself
knows whether a task is queued or running, hence no cancellation races with a start.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any

import ray

from . import codec, execution
from .errors import VersionMismatchError
from .held import held_by
from .messages import Batch, Payload
from .ray_mailbox import MailboxChannel
from .results import PackedResults
from .shipping import PayloadStore, complete, read_label, unseal
from .worker import cancel_batches, run_batch

OWN_FUNCTION = "ray_worker.run"
SEEN = 0  # beside signal numbers
RING_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # until an item counts as abandoned


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
    """A payload that many batches need: one object in Ray's store, read there without a copy."""

    __slots__ = ("buffers", "data")

    def __init__(self, data: Any, buffers: Sequence[Any]) -> None:
        self.data = data
        self.buffers = buffers

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        wrap = pickle.PickleBuffer if protocol >= codec.PROTOCOL else bytes
        return SharedData, (wrap(self.data), [wrap(buffer) for buffer in self.buffers])


@functools.cache  # looking it up takes 0.5 ms, and both sides of every batch ask
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


def run(their_version: str, message: bytes, *held: Any) -> tuple[PackedResults | bytes, bytes]:
    """Run a batch. The body of the one remote function.

    Returns:
        The results, for other batches and for who asks, and the table. Small results are in both: where the
        table is told, they are there, too, and Ray moves bytes at less cost than objects.
    """
    check_version(their_version)
    order: Order = unseal(read_label(message)[1])
    batch = complete(order.batch, lambda digest: _payload(digest, held[order.shared[digest]]))
    fetched = held_by(batch.inputs, [None if source is None else held[source] for source in order.sources])
    _guard.watch(batch)
    channel = MailboxChannel(order.mailbox, tells_first=batch.timed)
    results, table = run_batch(batch, fetched, channel, in_process=False)
    channel.ended(table)
    packed = PackedResults.pack(results)
    small = packed.small()
    return small or packed, codec.pack(replace(table, results=small))


def _payload(digest: str, shared: SharedData) -> Payload:
    return _store.get(digest) or _store.put(digest, shared.data, shared.buffers)


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
        self._marks = -1  # written by Python and by the handler, read by `_listen`
        self._unseen = False
        self._early: str | None = None  # a task of ours that was cancelled before it got here

    def watch(self, batch: Batch) -> None:
        task_id = ray.get_runtime_context().get_task_id() or ""
        self._watch = watch = _Watch(batch.run_id, batch.batch_id, task_id)
        if self._early == task_id:
            self._requests.put(watch)
        if threading.current_thread() is not threading.main_thread():
            return
        present = signal.getsignal(signal.SIGINT)
        if present != self._on_interrupt:
            self._previous = signal.signal(signal.SIGINT, self._on_interrupt)
        if not self._installed:
            self._installed = True
            self._install()

    def _install(self) -> None:
        _alarm.install()
        execution.nudge = _alarm.ring_for
        threading.Thread(target=self._cancel, name="millrace-cancel", daemon=True).start()
        marks, self._marks = os.pipe()
        os.set_blocking(self._marks, False)
        before = signal.set_wakeup_fd(self._marks, warn_on_full_buffer=False)
        if before != -1:  # somebody else needs them: then a sleeping batch is cancelled when it wakes up
            signal.set_wakeup_fd(before)
            return
        threading.Thread(target=self._listen, args=(marks,), name="millrace-signals", daemon=True).start()

    def _listen(self, marks: int) -> None:
        while True:
            for mark in os.read(marks, 64):
                if mark == signal.SIGINT:
                    self._unseen = True
                    _alarm.ring(lambda: self._unseen)
                elif mark == SEEN:
                    self._unseen = False

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(self._marks, bytes((SEEN,)))  # in line with the marks, so that each is told as seen
        watch, context = self._watch, ray.get_runtime_context()
        task_id = context.get_task_id()
        if watch is not None and watch.task_id == task_id:
            # also after the batch: a request that comes while Ray stores its results must not undo them
            self._requests.put(watch)
        elif (context.get_task_function_name() or "").endswith(OWN_FUNCTION):
            self._early = task_id  # Ray is still preparing a batch, and an exception would kill this process
        elif callable(self._previous):
            self._previous(number, frame)

    def _cancel(self) -> None:
        while True:
            watch = self._requests.get()
            cancel_batches(watch.run_id, [watch.batch_id])


class _Alarm:
    """Wakes the main thread from a sleep, a lock or a socket, so that what was sent to it happens now.

    Out of such waits Python calls the handler of a signal, and in the handler's frame it raises an exception
    that was sent to the thread. SIGURG, because it is ignored where no handler is. One signal is not enough:
    it may arrive just before the wait begins.
    """

    def __init__(self) -> None:
        self._due: queue.SimpleQueue[Callable[[], bool]] = queue.SimpleQueue()

    def install(self) -> None:
        signal.signal(signal.SIGURG, _do_nothing)
        threading.Thread(target=self._serve, name="millrace-alarm", daemon=True).start()

    def ring(self, until_not: Callable[[], bool]) -> None:
        self._due.put(until_not)

    def ring_for(self, interrupted: execution.Execution) -> None:
        """Have an interrupt raised. Not in Ray's own waits, which would swallow it: there it takes until their end."""
        self._due.put(lambda: interrupted.unanswered() and not _waits_for_ray())

    def _serve(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        pause = threading.Event()
        while True:
            due = self._due.get()
            for seconds in RING_SECONDS:
                if not due():
                    break
                signal.pthread_kill(main, signal.SIGURG)
                pause.wait(seconds)


def _waits_for_ray() -> bool:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return frame is not None and frame.f_globals.get("__name__", "").startswith("ray.")


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


_store = PayloadStore()
_alarm = _Alarm()
_guard = _Guard()
