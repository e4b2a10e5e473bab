"""The transition table: every state and cause, either a move or a refusal."""

from __future__ import annotations

import itertools

import pytest

from orchestration.core.batching import Sizer
from orchestration.core.journal import Moved
from orchestration.core.ledger import IllegalTransition, Ledger
from orchestration.core.records import Node
from orchestration.core.specs import NodeSpec
from orchestration.core.states import TABLE, TERMINAL, Cause, State, diagram
from orchestration.core.story import line

PAIRS = list(itertools.product(State, Cause))
# Where each cause is told, if not by a Moved entry: the ends of attempts, or what follows from it.
TOLD_ELSEWHERE = {
    Cause.UPSTREAM_DONE,
    Cause.TIMER,
    Cause.COMPLETED,
    Cause.SKIPPED,
    Cause.FAILED,
    Cause.WILL_RETRY,
    Cause.LOST,
    Cause.LOST_ON_THE_WAY,
}


def ledger_with(state: State, width: int = 3) -> tuple[Ledger, Node]:
    ledger = Ledger()
    node = ledger.nodes[0] = Node(NodeSpec(0, "load", "load", "map", width), Sizer())
    node.open(width)
    node.states[:] = bytes([state]) * width
    node.counts = [0] * len(State)
    node.counts[state] = width
    ledger.story.add(1.0, 0, range(width), Cause.UPSTREAM_DONE, "as it began")
    return ledger, node


@pytest.mark.parametrize(("state", "cause"), PAIRS, ids=lambda value: value.name)
@pytest.mark.parametrize("indices", [range(1, 3), [0, 2]], ids=["range", "list"])
def test_every_pair_moves_or_is_refused(state: State, cause: Cause, indices: list[int]) -> None:
    """A cause moves an item as the table says, and is refused with the item's story in any other state."""
    ledger, node = ledger_with(state)
    sources, target = TABLE[cause]
    if state not in sources:
        with pytest.raises(IllegalTransition, match="as it began") as refusal:
            ledger.move(node, indices, cause)
        assert f"{cause.name} happened to load[{indices[0]}], which is {state.title}" in str(refusal.value)
        assert bytes(node.states) == bytes([state]) * 3
        assert not ledger.out
        return
    ledger.move(node, indices, cause, "why")
    assert [node.states[i] for i in indices] == [target] * 2
    assert node.counts[target] == (3 if target is state else 2)
    assert bool(ledger.out) == (cause not in TOLD_ELSEWHERE)
    assert bool(ledger.ended) == (target in TERMINAL)
    assert all(entry == Moved(0, indices, target, 0.0, "why") for entry in ledger.out)


def test_the_table_has_every_cause() -> None:
    """Nothing can happen that the table does not know."""
    assert set(TABLE) == set(Cause)


def test_nothing_leaves_a_terminal_state() -> None:
    """Each task run reaches one terminal state and keeps it."""
    assert all(sources.isdisjoint(TERMINAL) for sources, _ in TABLE.values())


def test_every_state_can_be_reached_and_left() -> None:
    """No state is a trap but the terminal ones, and none is there for nothing."""
    reached = {State.PENDING} | {target for _, target in TABLE.values()}
    left = {source for sources, _ in TABLE.values() for source in sources}
    assert reached == set(State)
    assert left == set(State) - TERMINAL


def test_a_refusal_of_some_moves_none() -> None:
    """A bulk move that one item forbids changes nothing."""
    ledger, node = ledger_with(State.PENDING)
    ledger.move(node, range(1), Cause.CANCELLED)
    before = bytes(node.states)
    with pytest.raises(IllegalTransition):
        ledger.move(node, range(3), Cause.UPSTREAM_DONE)
    assert bytes(node.states) == before


def test_the_diagram_shows_every_transition() -> None:
    """The picture in the documentation is drawn from the table."""
    text = diagram()
    for cause, (sources, target) in TABLE.items():
        for source in sources:
            assert f"{source.title} --> {target.title}: {cause.name.lower()}" in text


def test_every_cause_has_words() -> None:
    """A story reads as sentences, whatever happened."""
    for cause in Cause:
        assert line(1.5, cause, "").startswith(f"1.500 {TABLE[cause][1].title}: ")
        assert line(1.5, cause, "so").endswith("(so)")


def test_titles_are_the_names_that_people_see() -> None:
    """`UPSTREAM_FAILED` is shown as UpstreamFailed."""
    assert State.UPSTREAM_FAILED.title == "UpstreamFailed"
    assert State.READY.title == "Ready"
