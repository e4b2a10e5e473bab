"""Hooks: user code told of state changes, in a thread of its own, one after another."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.journal import AttemptsEnded, Entry, Moved
from ..core.readiness import label
from ..core.states import TERMINAL
from ..core.states import State as TaskState
from .states import State

if TYPE_CHECKING:
    from .sessions import LocalSession
    from .tasks import Task

log = logging.getLogger("millrace")

_KIND = {
    TaskState.RUNNING: "on_running",
    TaskState.AWAITING_RETRY: "on_retry",
    TaskState.COMPLETED: "on_completion",
    TaskState.SKIPPED: "on_completion",
    TaskState.FAILED: "on_failure",
    TaskState.UPSTREAM_FAILED: "on_failure",
    TaskState.CRASHED: "on_crashed",
    TaskState.CANCELLED: "on_cancellation",
}


@dataclass(frozen=True, slots=True)
class TaskRunInfo:
    """A task run as hooks see it."""

    id: str
    name: str
    task_name: str
    index: int
    attempt: int
    flow_run_id: str
    tags: frozenset[str]


class TaskHooks:
    """Calls the hooks of tasks that have any. An observer of the driver."""

    def __init__(self, session: LocalSession) -> None:
        self._session = session
        self._queue: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._running: set[tuple[int, int, int]] = set()  # told of on_running: node, index, attempt
        self._ended: dict[tuple[int, int], int] = {}  # the last attempt that has ended, by node and index

    def observe(self, entries: Sequence[Entry]) -> None:
        """Take note of a turn. In the driver's thread."""
        hooked = self._session.hooked
        for entry in entries if hooked else ():
            if not isinstance(entry, AttemptsEnded | Moved) or _changes_nothing(entry):
                continue
            if entry.node_id not in hooked:
                continue
            task = self._session.tasks[entry.node_id]
            if isinstance(entry, Moved):
                for index in entry.indices:
                    attempt = self._spent(entry.node_id, index) + (entry.state is TaskState.RUNNING)
                    self._note(task, entry.node_id, index, attempt, entry.state)
            else:
                for index, attempt, state in zip(entry.indices, entry.attempts, entry.states, strict=True):
                    self._ended[entry.node_id, index] = attempt
                    self._note(task, entry.node_id, index, attempt, TaskState(state), ran=True)

    def close(self) -> None:
        """Wait until all hooks have been called."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _spent(self, node_id: int, index: int) -> int:
        """Return the attempts that an item has behind it. The core's own count may be ahead by now."""
        recovered = self._session.driver.core.nodes[node_id].spec.recovered
        before = recovered.attempts.get(index, 0) if recovered is not None else 0
        return self._ended.get((node_id, index), before)

    def _note(
        self,
        task: Task[Any, Any],
        node_id: int,
        index: int,
        attempt: int,
        state: TaskState,
        ran: bool = False,
    ) -> None:
        node = self._session.driver.core.nodes[node_id]
        info = TaskRunInfo(
            f"{self._session.run_id}/{node_id}/{index}",
            label(node, index),
            task.name,
            index,
            attempt,
            self._session.run_id,
            node.spec.tags,
        )
        if state is TaskState.RUNNING or ran:
            # a short task run ends before anybody hears that it runs: its hook is called all the same
            key = node_id, index, attempt
            if key not in self._running:
                self._running.add(key)
                self._call(task, "on_running", info, State("Running"))
        if state is TaskState.RUNNING or state not in _KIND:
            return
        if state in TERMINAL:
            self._running.discard((node_id, index, attempt))
        shown = (
            self._session.state(node_id, index)
            if state in TERMINAL
            else State(state.title, message=node.reasons.get(index) or "")
        )
        self._call(task, _KIND[state], info, shown)

    def _call(self, task: Task[Any, Any], kind: str, info: TaskRunInfo, state: State) -> None:
        for hook in getattr(task, kind):
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="millrace-hooks", daemon=True)
                self._thread.start()
            self._queue.put((hook, kind, (task, info, state)))

    def _work(self) -> None:
        while (order := self._queue.get()) is not None:
            call_hook(*order)


def _changes_nothing(entry: AttemptsEnded | Moved) -> bool:
    """Whether an attempt only made a lost result again: the task run had completed long before."""
    return isinstance(entry, AttemptsEnded) and entry.remade


def call_hook(hook: Any, kind: str, args: tuple[Any, ...]) -> None:
    """Call a hook; what it raises is logged and stops nothing, `sys.exit` neither: only Ctrl-C does."""
    try:
        result = hook(*args)
        if hasattr(result, "__await__"):
            import asyncio

            async def wait() -> None:
                await result

            asyncio.run(wait())
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        log.exception("%s hook %s of %s failed", kind, getattr(hook, "__name__", hook), args[1])
