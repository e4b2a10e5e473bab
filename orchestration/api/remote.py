"""The session of a task run on a worker: every question goes to the flow's process as a call."""

from __future__ import annotations

import contextlib
import logging
import queue
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from runners.codec import dumps, loads
from runners.context import ItemContext

from .states import State

if TYPE_CHECKING:
    from .futures import Hold, TaskRunFuture
    from .outcome_lists import Outcomes
    from .requests import NodeRequest

log = logging.getLogger("millrace")

MAX_KNOWN = 64  # task runs of this process whose sessions are kept


class RemoteSession:
    """Asks the run's `Gateway`."""

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

    def hold(self, node_id: int) -> Hold | None:
        """Nothing: what is submitted by a task run keeps its results until the flow run ends."""
        return None

    def call(self, request: NodeRequest) -> State:
        """Run a task in this worker, recorded as a task run of its own.

        It is a part of this item's work: it shares its slot and its fate. Its retries are decided by the core.
        """
        from .remote_calls import call_here

        if request.parent is None:
            request.parent = (self._item.node_id, self._item.index)
        return call_here(self, self._item, request)

    def wait(self, node_id: int, indices: Sequence[int] | None, timeout: float | None) -> bool:
        if timeout != 0:
            self._item.execution.give_way(node_id, indices)
        done = bool(self.ask("wait", [(node_id, indices)], timeout))
        if done and self._watched:
            self._call_back(node_id, indices)
        return done

    def results(self, node_id: int, indices: Sequence[int], errors_only: bool = False) -> Outcomes:
        return self.ask("results", node_id, indices, errors_only)  # type: ignore[no-any-return]

    def state(self, node_id: int, index: int) -> State:
        kind, name, message = self.ask("state", node_id, index)

        def data() -> Any:
            value, error = self.results(node_id, (index,))[0]
            if error is not None:
                raise error
            return value

        return State(kind, name, message, data)

    def standing(self, node_id: int, indices: Sequence[int] | None, within: float) -> str:
        return self.ask("standing", node_id, indices, within)  # type: ignore[no-any-return]

    def unsuccessful(self, node_id: int, indices: Sequence[int]) -> Sequence[int]:
        return self.ask("unsuccessful", node_id, indices)  # type: ignore[no-any-return]

    def store_url(self, host: str) -> str | None:
        """Return where a flow that is called in this task run is recorded; None: by this machine's settings."""
        found: str | None = self.ask("store_url", host)
        return found

    def width(self, node_id: int, *, wait: bool) -> int | None:
        if wait:
            self.ask("wait_width", [(node_id, None)], None)
        return self.ask("width_now", node_id)  # type: ignore[no-any-return]

    def cancel(self, node_id: int, indices: Sequence[int] | None) -> None:
        self.ask("cancel", node_id, indices)

    def when_done(self, node_id: int, index: int, action: Callable[[], Any]) -> None:
        """Remember a callback. It is called when this task run next waits for the future, or now."""
        if self.wait(node_id, (index,), 0):
            action()
        else:
            self._watched.setdefault((node_id, index), []).append(action)

    def watch(self, future: TaskRunFuture, ended: queue.SimpleQueue[Any]) -> None:
        """`from_queue` asks for all at once."""

    def from_queue(
        self, ended: queue.SimpleQueue[Any], waiting: Iterable[TaskRunFuture], timeout: float | None
    ) -> Any:
        """Return the next future of `as_completed`."""
        if ended.empty():
            futures = {(future.node_id, future.index): future for future in waiting}
            refs = [(node_id, (index,)) for node_id, index in futures]
            for ref in refs:
                self._item.execution.give_way(*ref)
            for node_id, (index,) in self.ask("wait_any", refs, timeout):
                ended.put(futures[node_id, index])
        return ended.get_nowait()

    def _call_back(self, node_id: int, indices: Sequence[int] | None) -> None:
        for key in [k for k in self._watched if k[0] == node_id and (indices is None or k[1] in indices)]:
            for action in self._watched.pop(key, []):
                try:
                    action()
                except Exception:
                    log.exception("a done callback of task run %s/%s/%s failed", self.run_id, *key)


_known: OrderedDict[tuple[str, int], RemoteSession] = OrderedDict()


def remote_session(item: ItemContext) -> RemoteSession:
    """Return the session of a task run: one for all its futures, so that they share their callbacks."""
    key = item.execution.execution_id, item.entry
    found = _known.get(key)
    if found is None:
        found = _known[key] = RemoteSession(item)
        while len(_known) > MAX_KNOWN:
            with contextlib.suppress(KeyError):  # another thread was quicker
                _known.popitem(last=False)
    return found
