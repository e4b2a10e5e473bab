"""One thread per worker process that looks after all executions in it.

Every tick it sends what is new (live events and log lines) and interrupts items that are out of time, so
that the thread which runs items pays for none of it.
"""

from __future__ import annotations

import os
import threading

from .execution import Execution, TimeoutInterrupt

TICK_SECONDS = 0.05
GRACE_SECONDS = 1.0  # between interrupting an item and calling it abandoned


class Monitor:
    """The executions of this process, by run and batch."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, int, str], Execution] = {}
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def add(self, execution: Execution) -> None:
        with self._lock:
            self._running[_key(execution)] = execution
            if self._thread is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._watch, name="millrace-monitor", daemon=True)
                self._thread.start()
        self._busy.set()

    def remove(self, execution: Execution) -> None:
        with self._lock:
            self._running.pop(_key(execution), None)
            if not self._running:
                self._busy.clear()

    def cancel(self, run_id: str, batch_ids: set[int]) -> int:
        """Cancel running executions; returns how many were found."""
        with self._lock:
            found = [
                e for (run, batch, _), e in self._running.items() if run == run_id and batch in batch_ids
            ]
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
            for execution in executions:
                look_after(execution)


def look_after(execution: Execution) -> None:
    """One tick for one execution."""
    if execution.overdue():
        execution.interrupt(TimeoutInterrupt)
    execution.give_up(GRACE_SECONDS)
    event = execution.progress()
    if event is not None:
        execution.channel.emit(event)


def _key(execution: Execution) -> tuple[str, int, str]:
    return execution.batch.run_id, execution.batch.batch_id, execution.execution_id


monitor = Monitor()
