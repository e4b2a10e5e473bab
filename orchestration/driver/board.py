"""Who waits for task runs to end: threads of the flow, callbacks of futures, calls from workers."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..core.journal import AttemptsEnded, Counted, Entry, Moved, NodeAdded, WidthLearned
from ..core.records import Node
from ..core.states import TERMINAL, State

Box = list[Callable[[], None]]  # an action, until somebody runs it

_TERMINAL = bytes(TERMINAL)
_OPEN = bytes(s for s in State if s not in TERMINAL)
_OPEN_STATE = re.compile(b"[" + re.escape(_OPEN) + b"]")


def ended_items(entry: Entry) -> tuple[int, Sequence[int]] | None:
    """Return (node_id, indices) of the items that an entry has brought to their end."""
    if isinstance(entry, AttemptsEnded):
        states = entry.states
        if not states.translate(None, _TERMINAL):
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

    There is no lock that waiters and driver share. A signal (Ctrl-C, a flow's timeout) may tear whatever the
    main thread does; a lock that it left locked would stop the driver. Each waiter sleeps on a lock of its own,
    each callback is in a box that whoever comes first empties; lists and dicts change in single steps.
    """

    def __init__(self, nodes: dict[int, Node]) -> None:
        self._nodes = nodes
        self._sleepers: list[threading.Lock] = []
        self._patient: list[threading.Lock] = []  # sleepers who wait for task runs to end
        self._callbacks: dict[int, list[tuple[Callable[[], bool], Box]]] = {}
        self._item_callbacks: dict[int, dict[int, list[Box]]] = {}
        self._turning = False
        self._turns = 0
        self.failure: BaseException | None = None
        self.on_wait: Callable[[], None] = lambda: None  # called when a thread is about to sleep

    # --- asking ---------------------------------------------------------------------------------

    @property
    def awaited(self) -> bool:
        """Whether a thread waits here."""
        return bool(self._patient or self._sleepers)

    def done(self, node_id: int, index: int | None) -> bool:
        """Whether an item, or with None the whole node, has ended."""
        node = self._nodes.get(node_id)
        if node is None or not node.opened:
            return False
        if index is None:
            return self._steadily(lambda: node.unfinished == 0)
        return (index >= node.width or node.states[index] in TERMINAL) and self.written()

    def written(self) -> bool:
        """Whether what the core's states say is in the journal, after a wait for the turn that is going on."""
        return not self._turning or self._settled()

    def _steadily(self, test: Callable[[], bool]) -> bool:
        """Whether `test()` holds between two turns: counts say anything while the driver moves items."""
        while True:
            turn = None if self._turning else self._turns
            if not test():
                return False
            if turn == self._turns and not self._turning:
                return True
            if not self.written():
                return False

    def _settled(self) -> bool:
        """Wait until the turn that is going on is in the journal."""
        turn = self._turns
        self._sleep(
            lambda: not self._turning or self._turns != turn or self.failure is not None, None, self._sleepers
        )
        return self.failure is None

    def all_done(self, node_id: int, indices: Sequence[int] | None) -> Callable[[], bool]:
        """Return a test whether all of these items have ended. It looks at none of them twice."""
        if indices is None:
            return lambda: self.done(node_id, None)
        members, at = indices, 0

        def test() -> bool:
            nonlocal at
            node = self._nodes.get(node_id)
            if node is None or not node.opened:
                return False
            at = _first_open(node, members, at)
            return at >= len(members) and self.written()

        return test

    def wait(self, ready: Callable[[], bool], timeout: float | None = None, *, patient: bool = False) -> bool:
        """Block the calling thread until `ready()`; False after `timeout` seconds.

        Args:
            patient: turns in which no task run ends change nothing about `ready`. Waking up for these costs
                the driver's thread the interpreter, just when it has a batch to submit.

        Raises:
            BaseException: what has stopped the driver.
        """

        def over() -> bool:
            return ready() or self.failure is not None

        if not self._sleep(over, timeout, self._patient if patient else self._sleepers):
            return False
        if self.failure is not None and not ready():
            raise self.failure
        return True

    def _sleep(self, ready: Callable[[], bool], timeout: float | None, among: list[threading.Lock]) -> bool:
        if ready():
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        gate = threading.Lock()
        gate.acquire()
        among.append(gate)
        try:
            self.on_wait()
            while not ready():
                left = -1 if deadline is None else deadline - time.monotonic()
                if deadline is not None and left <= 0:
                    return False
                gate.acquire(timeout=left)
            return True
        finally:
            among.remove(gate)

    def when(self, node_ids: Iterable[int], ready: Callable[[], bool], action: Callable[[], None]) -> None:
        """Run `action` once `ready()`: now, or in the driver's thread after a turn that concerns the nodes."""
        box = [action]
        for node_id in set(node_ids):
            while True:
                waiting = self._callbacks.setdefault(node_id, [])
                waiting.append((ready, box))
                if self._callbacks.get(node_id) is waiting:
                    break  # else the driver has taken the list out between the two steps, and may have read it
        if ready() or self.failure is not None:
            _empty(box)

    def when_ended(self, node_id: int, index: int, action: Callable[[], None]) -> None:
        """Run `action` once an item has ended: now, or in the driver's thread."""
        box = [action]
        if not self.done(node_id, index):
            self._item_callbacks.setdefault(node_id, {}).setdefault(index, []).append(box)
            if not self.done(node_id, index) and self.failure is None:
                return
        _empty(box)

    # --- telling --------------------------------------------------------------------------------

    def begin_turn(self) -> None:
        """From now on the core's states may be ahead of the journal."""
        self._turning = True

    def end_turn(self, entries: Sequence[Entry]) -> None:
        """What the turn has changed is in the journal."""
        self._turning = False
        self._turns += 1
        _wake(self._sleepers)
        if self._patient and any(map(self._ends_something, entries)):
            _wake(self._patient)

    def _ends_something(self, entry: Entry) -> bool:
        """Whether a node or an item of it may have ended: a node without items ends as soon as that is known."""
        if type(entry) is AttemptsEnded:
            return True
        if isinstance(entry, NodeAdded | WidthLearned):
            node = self._nodes.get(entry.node_id)
            return node is None or not node.opened or node.unfinished < node.width or not node.width
        return isinstance(entry, Moved) and entry.state in TERMINAL

    def tell(self, entries: Sequence[Entry]) -> set[int]:
        """A turn has been journalled: call back whom it concerns. Returns the nodes that may have ended."""
        touched: set[int] = set()
        due: list[Box] = []
        for entry in entries:
            if type(entry) is Counted:
                continue
            if isinstance(entry, NodeAdded | WidthLearned):
                touched.add(entry.node_id)
                continue
            ended = ended_items(entry)
            if ended is not None:
                touched.add(ended[0])
                if ended[0] in self._item_callbacks:
                    due += self._due_items(*ended)
        for node_id in touched & self._callbacks.keys():
            due += self._due(node_id)
        for box in due:
            _empty(box)
        if due:
            self.poke()
        return touched

    def _due(self, node_id: int) -> Iterator[Box]:
        waiting = self._callbacks.pop(node_id)
        for ready, box in waiting:
            if ready():
                yield box
            elif box:
                self._callbacks.setdefault(node_id, []).append((ready, box))

    def _due_items(self, node_id: int, indices: Sequence[int]) -> Iterator[Box]:
        waiting = self._item_callbacks[node_id]
        if len(waiting) < len(indices):
            ended = [index for index in list(waiting) if self.done(node_id, index)]
        else:
            ended = [index for index in indices if index in waiting]
        for index in ended:
            yield from waiting.pop(index)

    def poke(self) -> None:
        """Let waiting threads look again."""
        _wake(self._sleepers)
        _wake(self._patient)

    def fail(self, error: BaseException) -> None:
        """The driver has stopped: nobody shall wait any longer."""
        self.failure = self.failure or error
        self._turning = False
        waiting = [box for pairs in list(self._callbacks.values()) for _, box in pairs]
        for items in list(self._item_callbacks.values()):
            waiting += [box for boxes in list(items.values()) for box in boxes]
        self._callbacks.clear()
        self._item_callbacks.clear()
        self.poke()
        for box in waiting:
            _empty(box)


def _wake(sleepers: Sequence[threading.Lock]) -> None:
    for gate in tuple(sleepers):
        try:
            gate.release()
        except RuntimeError:  # it has been woken already
            continue


def _first_open(node: Node, members: Sequence[int], at: int) -> int:
    """Return the first place from `at` on of an item that has not ended; len(members) if there is none."""
    if isinstance(members, range) and members.step == 1:
        found = _OPEN_STATE.search(node.states, members.start + at, members.stop)
        return len(members) if found is None else found.start() - members.start
    states, width = node.states, node.width
    while at < len(members) and (members[at] >= width or states[members[at]] in TERMINAL):
        at += 1
    return at


def _empty(box: Box) -> None:
    """Run what is in the box, unless somebody else does."""
    try:
        action = box.pop()
    except IndexError:
        return
    action()
