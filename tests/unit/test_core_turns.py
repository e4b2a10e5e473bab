"""Whose turn it is among single task runs: the longest way to the end first."""

from __future__ import annotations

import pytest

from orchestration.core.records import Node
from orchestration.core.specs import Dependency, Policy, Reach
from orchestration.core.turns import Turns
from orchestration.testing.handdriven import HandDriven

SMALL = 100  # bytes that an item moves: known, and little


def after(*nodes: int) -> list[Dependency]:
    return [Dependency(node, Reach.SOME, (0,)) for node in nodes]


def busy(slots: int = 2) -> HandDriven:
    """All slots have something to run: what is added waits for its turn."""
    run = HandDriven(slots=slots)
    for _ in range(slots):
        run.add(task_name="other")
    return run


def order(run: HandDriven, n: int) -> list[int]:
    """Let n batches end, the oldest first; return which nodes go meanwhile, in turn."""
    went: list[int] = []
    for _ in range(n):
        before = set(run.batches)
        run.end(moved_bytes=SMALL)
        went += [run.batches[batch].node_id for batch in sorted(set(run.batches) - before)]
    return went


def test_the_longest_way_goes_first() -> None:
    """What a chain hangs on is begun before what nothing waits for, though that was submitted first."""
    run = busy()
    lone = run.add()
    head = run.add()
    run.add(*after(run.add(*after(head))))
    assert order(run, 2) == [head, lone]


def test_where_one_slot_takes_all_the_first_goes_first() -> None:
    """No order of two task runs on one slot is quicker than another: they go as the flow has submitted them."""
    run = HandDriven(slots=1)
    up = run.add()
    lone, head = run.add(*after(up)), run.add(*after(up))
    below = run.add(*after(head))
    assert order(run, 3) == [lone, head, below]


def test_ways_are_measured_in_seconds() -> None:
    """One step of a long task is a longer way than three of a short one, once that is known of them."""
    run = HandDriven(slots=2)
    run.add(task_name="long")
    run.add(task_name="short")
    run.end(seconds=2.0, moved_bytes=SMALL)
    run.end(seconds=0.02, moved_bytes=SMALL)
    for _ in range(2):
        run.add(task_name="other")
    short = run.add(task_name="short")
    run.add(*after(run.add(*after(short), task_name="short")), task_name="short")
    long = run.add(task_name="long")
    assert order(run, 2) == [long, short]


def test_of_equal_ways_goes_first_what_more_wait_for() -> None:
    """Four may begin when the one has ended, and one when the other has."""
    run = busy()
    one, four = run.add(task_name="up"), run.add(task_name="up")
    for up in (one, four, four, four, four):
        run.add(*after(up), task_name="down")
    assert order(run, 2) == [four, one]


def test_a_loop_keeps_its_order_while_its_task_is_measured_anew() -> None:
    """Those that come to wait later do not overtake others of their task because it now takes longer, or less."""
    run = busy()
    early = [run.add(task_name="other") for _ in range(2)]
    run.end(seconds=3.0, moved_bytes=SMALL)
    late = [run.add(task_name="other") for _ in range(2)]
    run.end(seconds=0.1, moved_bytes=SMALL)
    assert [batch.node_id for batch in run.batches.values()] == early
    assert order(run, 2) == late


def test_what_is_submitted_later_makes_a_way_longer() -> None:
    """A flow tells of the end of a graph when its start waits for a turn already."""
    run = busy()
    waiting = [run.add() for _ in range(8)]
    node = waiting[-1]
    for _ in range(8):
        node = run.add(*after(node))
    assert order(run, 1) == [waiting[-1]]


def test_priority_goes_before_the_way() -> None:
    """The user's word counts more than what is reckoned."""
    run = busy()
    head = run.add()
    run.add(*after(run.add(*after(head))))
    urgent = run.add(policy=Policy(priority=1))
    assert order(run, 2) == [urgent, head]


def test_what_lies_below_a_map_goes_before_longer_ways() -> None:
    """What has been begun of a map is finished, and its results can go."""
    run = busy()
    up = run.add(width=4, policy=Policy(batch=1))
    (first,) = order(run, 1)
    head = run.add()
    node = head
    for _ in range(8):
        node = run.add(*after(node))
    below = run.add(Dependency(up, Reach.SOME, (0,)))
    assert first == up
    assert order(run, 1) == [head]  # nothing of the map has ended
    assert order(run, 1) == [below]


def test_an_item_of_a_map_counts_as_a_single_task_run() -> None:
    """A map with a long way below it goes before single task runs that nothing waits for, whatever its width."""
    run = busy()
    lone = run.add()
    up = run.add(width=2, policy=Policy(batch=1))
    node = run.add(Dependency(up, Reach.ALL))
    run.add(*after(node))
    assert order(run, 3) == [up, up, lone]


@pytest.mark.parametrize("shape", ["chain", "fan"])
def test_reckoning_takes_a_few_steps_per_node(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a chain nor a fan of many is walked through for each node that is added to it or ends."""
    steps = 0
    way = Turns._way

    def counted(turns: Turns, node: Node) -> float:
        nonlocal steps
        steps += 1
        return way(turns, node)

    monkeypatch.setattr(Turns, "_way", counted)
    run = busy()
    node = run.add()
    run.add()
    nodes = 100
    for _ in range(nodes):
        below = run.add(*after(node), task_name="step")
        if shape == "chain":
            node = below
    added = steps
    for _ in range(nodes):
        run.end(moved_bytes=SMALL)
    assert 0 < added < 20 * nodes
    assert steps - added < 20 * nodes
