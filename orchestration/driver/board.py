"""Who waits for task runs to end: threads of the flow, callbacks of futures, calls from workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..core.journal import AttemptsEnded, Entry, Moved, NodeAdded, WidthLearned
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
    for the next turn that concerns it. What a turn has changed counts as ended once it is in the journal: who
    acts upon a result must not be ahead of the record.
    """

    def __init__(self, nodes: dict[int, Node]) -> None:
        self._nodes = nodes
        self._change = threading.Condition()
        self._callbacks: dict[int, list[tuple[Callable[[], bool], Callable[[], None]]]] = {}
        self._item_callbacks: dict[int, dict[int, list[Callable[[], None]]]] = {}
        self._turning = False
        self._turns = 0
        self.failure: BaseException | None = None

    # --- asking ---------------------------------------------------------------------------------

    def done(self, node_id: int, index: int | None) -> bool:
        """Whether an item, or with None the whole node, has ended."""
        node = self._nodes.get(node_id)
        if node is None or not node.opened:
            return False
        if index is None:
            ended = node.unfinished == 0
        else:
            ended = index >= node.width or node.states[index] in TERMINAL
        return ended and (not self._turning or self._settled())

    def _settled(self) -> bool:
        """Wait until the turn that is going on is in the journal."""
        with self._change:
            turn = self._turns
            while self._turning and self._turns == turn and self.failure is None:
                self._change.wait()
            return self.failure is None

    def all_done(self, node_id: int, indices: Sequence[int] | None) -> Callable[[], bool]:
        """Return a test whether all of these items have ended. It looks at none of them twice."""
        if indices is None:
            return lambda: self.done(node_id, None)
        members, at = indices, 0

        def test() -> bool:
            nonlocal at
            if at < len(members) and self.done(node_id, None):
                at = len(members)
            while at < len(members) and self.done(node_id, members[at]):
                at += 1
            return at >= len(members)

        return test

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

    def when_ended(self, node_id: int, index: int, action: Callable[[], None]) -> None:
        """Run `action` once an item has ended: now, or in the driver's thread."""
        with self._change:
            if not self.done(node_id, index) and self.failure is None:
                waiting = self._item_callbacks.setdefault(node_id, {})
                waiting.setdefault(index, []).append(action)
                return
        action()

    # --- telling --------------------------------------------------------------------------------

    def begin_turn(self) -> None:
        """From now on the core's states may be ahead of the journal."""
        self._turning = True

    def end_turn(self) -> None:
        """What the turn has changed is in the journal."""
        with self._change:
            self._turning = False
            self._turns += 1
            self._change.notify_all()

    def tell(self, entries: Sequence[Entry]) -> None:
        """A turn has been journalled: wake those whom it concerns."""
        touched: set[int] = set()
        due: list[Callable[[], None]] = []
        with self._change:
            for entry in entries:
                if isinstance(entry, NodeAdded | WidthLearned):
                    touched.add(entry.node_id)
                    continue
                ended = ended_items(entry)
                if ended is not None:
                    touched.add(ended[0])
                    if ended[0] in self._item_callbacks:
                        due += self._due_items(*ended)
            if not touched:
                return
            for node_id in touched & self._callbacks.keys():
                due += self._due(node_id)
            self._change.notify_all()
        for action in due:
            action()

    def _due(self, node_id: int) -> Iterator[Callable[[], None]]:
        rest = []
        for pair in self._callbacks.pop(node_id):
            ready, action = pair
            if ready():
                yield action
            else:
                rest.append(pair)
        if rest:
            self._callbacks[node_id] = rest

    def _due_items(self, node_id: int, indices: Sequence[int]) -> Iterator[Callable[[], None]]:
        waiting = self._item_callbacks[node_id]
        if len(waiting) < len(indices):
            ended = [index for index in waiting if self.done(node_id, index)]
        else:
            ended = [index for index in indices if index in waiting]
        for index in ended:
            yield from waiting.pop(index)
        if not waiting:
            del self._item_callbacks[node_id]

    def poke(self) -> None:
        """Let waiting threads look again."""
        with self._change:
            self._change.notify_all()

    def fail(self, error: BaseException) -> None:
        """The driver has stopped: nobody shall wait any longer."""
        with self._change:
            self.failure = self.failure or error
            self._turning = False
            waiting = [action for pairs in self._callbacks.values() for _, action in pairs]
            for items in self._item_callbacks.values():
                waiting += [action for actions in items.values() for action in actions]
            self._callbacks.clear()
            self._item_callbacks.clear()
            self._change.notify_all()
        for action in waiting:
            action()
