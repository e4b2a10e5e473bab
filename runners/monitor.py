"""One thread per worker process that looks after all executions in it.

Every tick it sends what is new (live events and log lines) and interrupts items that are out of time, so
that the thread which runs items pays for none of it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable

from .execution import Execution

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.05
GRACE_SECONDS = 1.0  # between interrupting an item and calling it abandoned


MAX_EARLY = 10_000  # cancellations remembered for batches that have not begun here


class Monitor:
    """The executions of this process, by run and batch."""

    def __init__(self) -> None:
        self._early: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._running: dict[tuple[str, int, str], Execution] = {}
        self._reset()

    def _reset(self) -> None:
        """Begin without thread, executions and held locks; also in the child of a fork."""
        for execution in self._running.values():
            execution.renew_locks()
        self._running = {}
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, execution: Execution) -> None:
        with self._lock:
            self._running[_key(execution)] = execution
            cancelled = (execution.batch.run_id, execution.batch.batch_id) in self._early
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="millrace-monitor", daemon=True)
                self._thread.start()
            if not self._busy.is_set():
                self._busy.set()
        if cancelled:
            execution.cancel()

    def remove(self, execution: Execution) -> None:
        with self._lock:
            self._running.pop(_key(execution), None)

    def cancel(self, run_id: str, batch_ids: Iterable[int]) -> int:
        """Cancel running executions; returns how many were found.

        Others are remembered, because a cancellation may overtake its batch on the way here.
        """
        wanted = dict.fromkeys((run_id, batch_id) for batch_id in batch_ids)
        with self._lock:
            found = [e for (run, batch, _), e in self._running.items() if (run, batch) in wanted]
            self._early.update(wanted)
            while len(self._early) > MAX_EARLY:
                self._early.popitem(last=False)
        for execution in found:
            execution.cancel()
        return len(found)

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            self._busy.wait()
            pause.wait(TICK_SECONDS)
            with self._lock:
                executions = list(self._running.values())
                if not executions:  # not with each batch that ends: the next one often begins at once
                    self._busy.clear()
            for execution in executions:
                try:
                    look_after(execution)
                except Exception:  # one execution's trouble must not cost the others their timeouts
                    logger.exception("Batch %s could not be looked after", execution.batch.batch_id)


def look_after(execution: Execution) -> None:
    """One tick for one execution."""
    execution.expire()
    execution.give_up(GRACE_SECONDS)
    execution.close_late()
    event = execution.progress()
    if event is not None:
        execution.channel.emit(event)


def _key(execution: Execution) -> tuple[str, int, str]:
    return execution.batch.run_id, execution.batch.batch_id, execution.execution_id


monitor = Monitor()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=monitor._reset)
