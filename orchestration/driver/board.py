"""Who waits for task runs to end: threads of the flow, callbacks of futures, calls from workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from ..core.journal import AttemptsEnded, Entry, Moved, WidthLearned
from ..core.records import Node
from ..core.states import TERMINAL, State

_OPEN = bytes(s for s in State if s not in TERMINAL)


def ended_items(entry: Entry) -> tuple[int, Sequence[int]] | None:
    """Return (node_id, indices) of the items that an entry has brought to their end."""
    if isinstance(entry, AttemptsEnded):
        states = entry.states
        kinds = set(states)
        if kinds.isdisjoint(_OPEN):
            return entry.node_id, entry.indices
        return entry.node_id, [
            i for i, state in zip(entry.indices, states, strict=True) if state not in _OPEN
        ]
    if isinstance(entry, Moved) and entry.state in TERMINAL:
        return entry.node_id, entry.indices
    return None


class Board:
    """Wakes whoever waits, after each turn. Reads the core's states, which only the driver changes.

    Reading one byte of a node's states from another thread is safe; a waiter that reads too early waits
    for the next turn that concerns it.
    """

    def __init__(self, nodes: dict[int, Node]) -> None:
        self._nodes = nodes
        self._change = threading.Condition()
        self._callbacks: dict[int, list[tuple[Callable[[], bool], Callable[[], None]]]] = {}
        self.failure: BaseException | None = None

    # --- asking ---------------------------------------------------------------------------------

    def done(self, node_id: int, index: int | None) -> bool:
        """Whether an item, or with None the whole node, has ended."""
        node = self._nodes.get(node_id)
        if node is None or not node.opened:
            return False
        if index is None:
            return node.unfinished == 0
        return index >= node.width or node.states[index] in TERMINAL

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Block the calling thread until `ready()`; False after `timeout` seconds.

        Raises:
            BaseException: what has stopped the driver.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._change:
            while not ready():
                if self.failure is not None:
                    raise self.failure
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._change.wait(left)
            return True

    def when(self, node_ids: Iterable[int], ready: Callable[[], bool], action: Callable[[], None]) -> None:
        """Run `action` once `ready()`: now, or in the driver's thread after a turn that concerns the nodes."""
        with self._change:
            if not ready() and self.failure is None:
                box = [action]

                def once() -> None:
                    if box:
                        box.pop()()

                for node_id in set(node_ids):
                    self._callbacks.setdefault(node_id, []).append((ready, once))
                return
        action()

    # --- telling --------------------------------------------------------------------------------

    def tell(self, entries: Sequence[Entry]) -> None:
        """A turn has been journalled: wake those whom it concerns."""
        touched = {e.node_id for e in entries if isinstance(e, WidthLearned)}
        for entry in entries:
            ended = ended_items(entry)
            if ended is not None:
                touched.add(ended[0])
        if not touched:
            return
        due: list[Callable[[], None]] = []
        with self._change:
            for node_id in touched & self._callbacks.keys():
                waiting = self._callbacks.pop(node_id)
                rest = []
                for pair in waiting:
                    ready, action = pair
                    if ready():
                        due.append(action)
                    else:
                        rest.append(pair)
                if rest:
                    self._callbacks[node_id] = rest
            self._change.notify_all()
        for action in due:
            action()

    def poke(self) -> None:
        """Let waiting threads look again."""
        with self._change:
            self._change.notify_all()

    def fail(self, error: BaseException) -> None:
        """The driver has stopped: nobody shall wait any longer."""
        with self._change:
            self.failure = error
            waiting = [action for pairs in self._callbacks.values() for _, action in pairs]
            self._callbacks.clear()
            self._change.notify_all()
        for action in waiting:
            action()
