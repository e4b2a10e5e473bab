"""Maps over a map come in several calls: the driver takes them together, so that they share its first batches."""

from __future__ import annotations

import threading

import pytest

from orchestration.core.batching import SHORT_SECONDS, Lesson
from orchestration.core.coordinator import Coordinator
from orchestration.core.events import NodeSubmitted, Tick
from orchestration.core.specs import NodeSpec
from orchestration.driver.clock import SteadyClock
from orchestration.driver.inbox import Inbox
from orchestration.driver.loop import Driver
from orchestration.stores.memory import MemoryStore
from runners.sequential import SequentialTaskRunner


def submitted(node_id: int, task_name: str = "quick", kind: str = "map") -> NodeSubmitted:
    return NodeSubmitted(NodeSpec(node_id, f"{task_name}-{node_id}", task_name, kind, 10))


def driver() -> Driver:
    """Return a driver that has not been started, and knows how long some tasks take."""
    lessons = {"quick": Lesson(1e-6, 0.0), "slow": Lesson(2 * SHORT_SECONDS, 0.0)}
    core = Coordinator("r", lambda: 0.5, lessons=lessons)
    return Driver("r", 1, core, SequentialTaskRunner(), MemoryStore(), SteadyClock())


def test_maps_in_a_row_are_one_turn() -> None:
    """What follows a map of short items is waited for, until something else has happened."""
    idle, first, second = driver(), submitted(0), submitted(1)
    idle.inbox.put(second)
    assert idle._with_followers([first]) == [first, second]
    idle.inbox.put(Tick())
    idle.inbox.put(second)
    assert idle._with_followers([first]) == [first, Tick(), second]


@pytest.mark.parametrize(
    "event", [submitted(0, "slow"), submitted(0, "new"), submitted(0, kind="single"), Tick()]
)
def test_nothing_else_waits(event: NodeSubmitted | Tick) -> None:
    """Items that take long are not fused, nor those of which nothing is known; a single one is wanted soon."""
    idle = driver()
    idle.inbox.put(submitted(1))
    assert idle._with_followers([event]) == [event]
    assert not idle.inbox.empty


def test_a_flow_that_waits_submits_nothing_more() -> None:
    """Its wait ends the driver's, whichever begins first."""
    idle, over = driver(), threading.Event()
    asked = threading.Semaphore(0)

    def enough() -> bool:
        asked.release()
        return idle.board.awaited

    waiter = threading.Thread(target=idle.board.wait, args=(over.is_set,))
    threading.Thread(target=lambda: (asked.acquire(), waiter.start())).start()
    assert idle.inbox.take_more(60.0, enough) == []  # it waits, and is told
    assert idle.inbox.take_more(60.0, enough) == []  # it need not
    over.set()
    idle.board.poke()
    waiter.join()


def test_a_knock_is_for_those_who_wait_for_more() -> None:
    """A driver that has nothing to do is not woken when a flow begins to wait."""
    inbox = Inbox()
    inbox.knock()
    assert inbox._gate.locked()
