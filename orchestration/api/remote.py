"""The session of a task run on a worker: every question goes to the flow's process as a call."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from runners.codec import dumps, loads
from runners.context import ItemContext

from .states import State

if TYPE_CHECKING:
    from .fetching import Outcome
    from .requests import NodeRequest


class RemoteSession:
    """Asks the run's `Gateway`. Made anew wherever it is needed: it holds nothing but the task run."""

    def __init__(self, item: ItemContext) -> None:
        self._item = item
        self.run_id = item.run.run_id
        self._watched: dict[tuple[int, int], list[Callable[[], Any]]] = {}

    def ask(self, kind: str, *args: Any) -> Any:
        """Ask the flow's process; raise what it raises."""
        item = self._item
        reply = item.channel.call(item.batch_id, item.execution.execution_id, item.entry, kind, dumps(args))
        failed, value = loads(reply)
        if failed:
            raise value
        return value

    def submit(self, request: NodeRequest) -> int:
        from ..driver.packing import pickle_user_code_by_value

        pickle_user_code_by_value(request.task.fn)
        if request.parent is None:
            request.parent = (self._item.node_id, self._item.index)
        return int(self.ask("submit", request))

    def call(self, request: NodeRequest) -> State:
        """Run a task in this worker, recorded as a task run of its own.

        It is a part of this item's work: it shares its slot and its fate. Its retries are decided by the core.
        """
        from .remote_calls import call_here

        return call_here(self, self._item, request)

    def wait(self, node_id: int, indices: Sequence[int] | None, timeout: float | None) -> bool:
        return bool(self.ask("wait", [(node_id, indices)], timeout))

    def results(self, node_id: int, indices: Sequence[int], errors_only: bool = False) -> list[Outcome]:
        return list(self.ask("results", node_id, indices, errors_only))

    def state(self, node_id: int, index: int) -> State:
        kind, name, message = self.ask("state", node_id, index)

        def data() -> Any:
            value, error = self.results(node_id, (index,))[0]
            if error is not None:
                raise error
            return value

        return State(kind, name, message, data)

    def width(self, node_id: int, *, wait: bool) -> int | None:
        if wait:
            self.ask("wait_width", [(node_id, None)], None)
        return self.ask("width_now", node_id)  # type: ignore[no-any-return]

    def cancel(self, node_id: int, indices: Sequence[int] | None) -> None:
        self.ask("cancel", node_id, indices)

    def when_done(self, node_id: int, index: int, action: Callable[[], Any]) -> None:
        """Remember a callback. It is called while this task run waits for futures, or now."""
        if self.wait(node_id, (index,), 0):
            action()
        else:
            self._watched.setdefault((node_id, index), []).append(action)

    def from_queue(self, ended: queue.SimpleQueue[Any], timeout: float | None) -> Any:
        while True:
            try:
                return ended.get_nowait()
            except queue.Empty:
                pass  # nobody else fills it: ask which of the watched ones have ended
            refs = [(node_id, (index,)) for node_id, index in self._watched]
            done = self.ask("wait_any", refs, timeout)
            if not done:
                raise queue.Empty
            for node_id, (index,) in done:
                for action in self._watched.pop((node_id, index), []):
                    action()
