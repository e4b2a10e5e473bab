"""Slots in the flow's own process: the engine of the sequential and the thread runner."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

from .base import Capabilities, Sink, TaskRunner
from .channel import CallBook, new_call_id
from .context import listening
from .errors import ResultLostError, RunnerNotStartedError
from .messages import (
    Batch,
    BatchFinished,
    BatchLost,
    BatchProgress,
    BatchStarted,
    Call,
    Input,
    SlotsChanged,
)
from .tables import unstarted_table
from .unpacked import pick, unless_lost
from .worker import Results, cancel_batches, run_batch


class SlotPool:
    """Threads that run jobs, at most `slots` of them at a time.

    A job that has to wait for other jobs lends its slot meanwhile (`lent`), so that jobs may start and await
    others at any depth. Threads are started when there is work and no idle one; they are daemons, because
    blocked user code must not keep the process alive.
    """

    def __init__(self, slots: int, run: Callable[[Batch], None]) -> None:
        self._run = run
        self._free = slots
        self._idle = 0
        self._count = 0
        self._returning = 0
        self._jobs: OrderedDict[int, Batch] = OrderedDict()
        self._running: dict[int, Batch] = {}
        self._change = threading.Condition()
        self._closed = False

    def put(self, batches: Sequence[Batch]) -> None:
        with self._change:
            self._jobs.update((batch.batch_id, batch) for batch in batches)
            self._staff()
            self._wake(len(batches))

    def _wake(self, n: int) -> None:
        """Wake so many idle threads; all, if some of those that wait are about to come back from waiting."""
        if self._returning:
            self._change.notify_all()
        else:
            self._change.notify(n)

    def take_back(self, batch_ids: Sequence[int]) -> tuple[list[Batch], list[Batch]]:
        """Remove jobs that have not started. Returns them, and those of `batch_ids` that have."""
        with self._change:
            taken = [self._jobs.pop(i) for i in batch_ids if i in self._jobs]
            return taken, [self._running[i] for i in batch_ids if i in self._running]

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Give the current job's slot to others inside the block; have one again after it.

        An interrupt of the job must tear neither the count of slots nor the lock around it. It is kept back
        while either is touched (`listening`), and comes at most once: what it prevented is simply done again.
        """
        loan = _Loan()
        try:
            self._give(loan)
            yield
        finally:
            try:
                self._take_again(loan)
            except BaseException:
                self._take_again(loan)
                raise

    def _give(self, loan: _Loan) -> None:
        with listening(_nothing), self._change:
            loan.open = True
            self._free += 1
            self._staff()
            self._change.notify_all()

    def _take_again(self, loan: _Loan) -> None:
        with listening(_nothing), self._change:
            if not loan.open:
                return
            self._returning += 1
            while self._free < 1 and not self._closed:
                self._change.wait()
            self._returning -= 1
            self._free -= 1
            loan.open = False

    def close(self) -> list[Batch]:
        """Start no more jobs. Returns those that run."""
        with self._change:
            self._closed = True
            self._jobs.clear()
            self._change.notify_all()
            return list(self._running.values())

    def _staff(self) -> None:
        wanted = min(self._free, len(self._jobs)) - self._idle
        for _ in range(wanted):
            self._count += 1
            self._idle += 1
            name = f"millrace-slot-{self._count}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._change:
                # who comes back from waiting goes before new jobs
                while not self._closed and (not self._jobs or self._free <= self._returning):
                    self._change.wait()
                if self._closed:
                    return
                _, job = self._jobs.popitem(last=False)
                self._running[job.batch_id] = job
                self._free -= 1
                self._idle -= 1
            self._run(job)
            with self._change:
                del self._running[job.batch_id]
                del job  # an idle thread must not keep arguments alive
                self._free += 1
                self._idle += 1
                if self._returning or self._closed:  # else this thread takes the next job itself
                    self._change.notify_all()


class _Loan:
    """Whether a job's slot is with others now."""

    open = False


def _nothing() -> None:
    """Who waits for a slot need not be woken: an interrupt changes nothing about it."""


class InProcessRunner(TaskRunner):
    """Base of the runners whose workers are threads of the flow's process. Results are live objects."""

    capabilities: ClassVar[Capabilities] = Capabilities(in_process=True, prefetch=1)

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._pool: SlotPool | None = None
        self._calls = CallBook()
        self._results: dict[int, Results] = {}

    def duplicate(self) -> Any:
        twin = super().duplicate()
        InProcessRunner.__init__(twin, self.slots)
        return twin

    def start(self, sink: Sink) -> None:
        self.sink = sink
        self._pool = SlotPool(self.slots, self._run)
        sink.put(SlotsChanged(self.slots))

    def submit(self, batches: Sequence[Batch]) -> None:
        self._started().put(batches)

    def cancel(self, batch_ids: Sequence[int], *, force: bool = False) -> None:
        taken, running = self._started().take_back(batch_ids)
        for batch in taken:
            self._emit(BatchFinished(unstarted_table(batch)))
        for batch in running:
            cancel_batches(batch.run_id, [batch.batch_id])

    def fetch(self, batch_id: int, stage: int, positions: Sequence[int]) -> list[Any]:
        results = self._results.get(batch_id)
        if results is None:
            raise ResultLostError(f"results of batch {batch_id} have been released")
        return unless_lost(pick(batch_id, results[stage], positions))

    def release(self, batch_ids: Sequence[int]) -> None:
        for batch_id in batch_ids:
            self._results.pop(batch_id, None)

    def answer(self, call_id: str, reply: bytes) -> None:
        self._calls.answer(call_id, reply)

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            for batch in pool.close():
                cancel_batches(batch.run_id, [batch.batch_id])
            self._calls.wake()
        self._results.clear()

    # --- the worker's channel -------------------------------------------------------------------

    def emit(self, event: BatchStarted | BatchProgress) -> None:
        self._emit(event)

    def lend(self) -> AbstractContextManager[None]:
        """Lend the slot of the batch that the current thread runs, inside a `with` block."""
        return self._started().lent()

    def call(self, batch_id: int, execution_id: str, entry: int, kind: str, payload: bytes) -> bytes:
        call = Call(new_call_id(), batch_id, execution_id, entry, kind, payload)
        pool = self._started()
        with pool.lent():
            return self._calls.ask(call, self._emit, alive=lambda: self._pool is pool)

    def _run(self, batch: Batch) -> None:
        event: BatchFinished | BatchLost
        pool = self._pool
        try:
            fetched = [self._held(source) for source in batch.inputs]
            results, table = run_batch(batch, fetched, self, in_process=True)
            self._results[batch.batch_id] = results
            event = BatchFinished(table)
        except BaseException as error:  # a defect of ours: the run must hear of it and not hang
            event = BatchLost(batch.batch_id, f"{type(error).__name__}: {error}")
        if pool is not None and self._pool is pool:
            self._emit(event)
        else:
            self._results.pop(batch.batch_id, None)  # closed meanwhile

    def _held(self, source: Input) -> Sequence[Any] | None:
        if source.batch_id is None:
            return None
        results = self._results.get(source.batch_id)
        return None if results is None else results[source.stage]

    def _started(self) -> SlotPool:
        if self._pool is None:
            raise RunnerNotStartedError(
                f"{type(self).__name__} is not running: it was closed or never started"
            )
        return self._pool
