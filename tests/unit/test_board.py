"""Who waits for task runs, and which turns wake them."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable

from orchestration.core.batching import Sizer
from orchestration.core.journal import AttemptsEnded, Counted, Entry, Moved, NodeAdded, WidthLearned
from orchestration.core.records import Node
from orchestration.core.specs import NodeSpec
from orchestration.core.states import State
from orchestration.driver.board import Board
from orchestration.driver.inbox import Inbox
from runners.messages import Outcome


class Waiting:
    """A thread that waits on a board, and says each time that it looks."""

    def __init__(self, board: Board, *, patient: bool) -> None:
        self.over = False
        self.looks = threading.Semaphore(0)
        self.thread = threading.Thread(target=board.wait, args=(self._ready,), kwargs={"patient": patient})
        self.thread.start()
        for _ in range(2):  # before it sleeps, and once it can be woken
            self.looks.acquire()

    def _ready(self) -> bool:
        self.looks.release()
        return self.over

    def looked(self) -> bool:
        """Whether it has looked since the last call."""
        return self.looks.acquire(blocking=False)

    def end(self, wake: Callable[[], None]) -> None:
        self.over = True
        wake()
        self.thread.join(10)
        assert not self.thread.is_alive()
        while self.looked():
            continue


def node(node_id: int, width: int | None) -> Node:
    made = Node(NodeSpec(node_id, f"t-{node_id}", "t", width=width), Sizer())
    if width is not None:
        made.open(width)
        made.counts[State.PENDING] = width
    return made


def added(node_id: int, width: int | None = 1) -> NodeAdded:
    return NodeAdded(node_id, f"t-{node_id}", "t", "single", width, 0.0)


def ended(node_id: int) -> AttemptsEnded:
    states, outcomes, zero = bytes([State.COMPLETED]), bytes([Outcome.COMPLETED]), array("d", [0.0])
    return AttemptsEnded(
        node_id, 0, "x", "w", 0.0, [0], [1], outcomes, states, zero, zero, [0], {}, {}, None, ""
    )


def test_who_waits_for_an_end_sleeps_through_other_turns() -> None:
    """Nodes that are added and task runs that are submitted wake nobody; an end does."""
    board = Board({0: node(0, 1), 1: node(1, 1)})
    waiting = Waiting(board, patient=True)
    board.end_turn([added(1), Moved(0, [0], State.SUBMITTED, 0.0), Counted(0, (0,) * len(State))])
    (gate,) = board._patient
    assert gate.locked()
    assert not waiting.looked()
    waiting.end(lambda: board.end_turn([ended(0)]))


def test_ends_of_every_kind_wake() -> None:
    """Moves without an attempt, maps that turn out to be empty, and items that a resume has found completed."""
    recovered = node(3, 2)
    recovered.counts[State.PENDING], recovered.counts[State.COMPLETED] = 1, 1
    board = Board({0: node(0, 1), 1: node(1, 0), 2: node(2, None), 3: recovered})
    ends: list[Entry] = [
        Moved(0, [0], State.UPSTREAM_FAILED, 0.0),
        added(1, 0),
        WidthLearned(1, 0),
        added(2, None),
        added(3, 2),
    ]
    for entry in ends:
        Waiting(board, patient=True).end(lambda entry=entry: board.end_turn([entry]))  # type: ignore[misc]


def test_all_others_look_after_each_turn() -> None:
    """What they wait for may change without an entry."""
    board = Board({})
    Waiting(board, patient=False).end(lambda: board.end_turn([]))
    Waiting(board, patient=True).end(board.poke)


def test_an_inbox_gives_all_there_is_at_once() -> None:
    """In order, also what was left for the next turn; nothing is there after a wait in vain."""
    inbox = Inbox()
    assert inbox.take(0) == []
    inbox.put(1)
    inbox.put(2)
    inbox.leave(3)
    assert inbox.take(None) == [1, 2, 3]
    inbox.leave(4)
    assert inbox.take(0) == [4]
    assert inbox.take(0) == []


def test_no_event_of_many_writers_is_missed() -> None:
    """Whoever puts while the reader goes to sleep wakes it."""
    inbox, n = Inbox(), 2_000

    def write() -> None:
        for k in range(n):
            inbox.put(k)

    found: list[int] = []

    def read() -> None:
        while len(found) < 4 * n:
            found.extend(inbox.take(None))

    threads = [
        threading.Thread(target=read, daemon=True),
        *(threading.Thread(target=write) for _ in range(4)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == sorted(4 * list(range(n)))
