"""Gates: a task's own `max_concurrency`, and the lease that a task run lends to those it starts."""

from __future__ import annotations

import pytest

from orchestration.core.commands import SubmitBatch
from orchestration.core.events import LimitsKnown, PauseRequested, ResumeRequested
from orchestration.core.specs import INLINE, Policy
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import Outcome

DB = frozenset({"db"})


def at_most(n: int, **more: int) -> Policy:
    return Policy(max_concurrency=n, batch=1, **more)


def test_a_map_has_at_most_so_many_batches() -> None:
    """Slots that are free stay free, for others."""
    run = HandDriven(slots=8)
    node = run.add(width=10, policy=at_most(3))
    other = run.add()
    assert len(run.batches) == 4
    assert run.state(other) is State.SUBMITTED
    run.end()
    assert run.states(node).count(State.SUBMITTED) == 3
    run.finish_all()
    assert set(run.states(node)) == {State.COMPLETED}


def test_all_nodes_of_a_task_go_through_one_gate() -> None:
    """Ten submits are ten nodes; first come, first served."""
    run = HandDriven(slots=8)
    nodes = [run.add(task_name="load", policy=at_most(2)) for _ in range(10)]
    for k in range(5):
        assert [batch.node_id for batch in run.batches.values()] == nodes[2 * k : 2 * k + 2]
        run.end()
        run.end()
    assert all(run.state(node) is State.COMPLETED for node in nodes)


@pytest.mark.parametrize(
    "outcome", [Outcome.FAILED, Outcome.UNSTARTED, None], ids=["failed", "unstarted", "lost"]
)
def test_the_place_is_free_however_the_batch_ends(outcome: Outcome | None) -> None:
    """Failures, tails that come back, losses: the next one goes."""
    run = HandDriven(slots=4)
    first, second = (run.add(task_name="load", policy=at_most(1)) for _ in range(2))
    if outcome is None:
        run.lose()
    else:
        run.end(outcome)
    assert len(run.batches) == 1
    run.finish_all()
    assert run.core.nodes[first].unfinished == run.core.nodes[second].unfinished == 0


def test_who_was_cancelled_at_the_gate_is_passed_over() -> None:
    """The turn goes to one that still has something to run, also when it is cancelled after it was let through."""
    run = HandDriven(slots=4)
    nodes = [run.add(task_name="load", policy=at_most(1)) for _ in range(4)]
    run.cancel(nodes[1])
    run.end()
    assert [batch.node_id for batch in run.batches.values()] == [nodes[2]]
    run.tell_slots(0)
    run.end()
    run.cancel(nodes[3])
    late = run.add(task_name="load", policy=at_most(1))
    run.tell_slots(4)
    assert run.state(late) is State.SUBMITTED


def test_a_pause_empties_the_gate() -> None:
    """What waited there waits there again after the pause."""
    run = HandDriven(slots=4)
    nodes = [run.add(task_name="load", policy=at_most(1)) for _ in range(3)]
    run.tell(PauseRequested())
    run.end()
    assert [run.state(node) for node in nodes[1:]] == [State.PAUSED] * 2
    run.tell(ResumeRequested())
    run.finish_all()
    assert all(run.state(node) is State.COMPLETED for node in nodes)


def test_a_task_that_starts_itself_does_not_wait_for_itself() -> None:
    """What a task run starts of its own task runs in its place."""
    run = HandDriven(slots=4)
    outer = run.add(task_name="walk", policy=at_most(1))
    inner = run.add(task_name="walk", policy=at_most(1), parent=(outer, 0))
    assert run.state(inner) is State.SUBMITTED


def test_a_direct_call_waits_at_the_gate() -> None:
    """It needs no slot, but a place."""
    run = HandDriven(slots=4)
    first, second = (run.add(task_name="load", policy=at_most(1), runner=INLINE) for _ in range(2))
    assert run.state(second) is State.READY
    run.end()
    assert run.state(first) is State.COMPLETED
    assert run.state(second) is State.SUBMITTED


def test_a_lease_is_lent_to_one_at_a_time() -> None:
    """Children under their parent's limit share its one slot, rather than each having one for nothing."""
    run = HandDriven(slots=8)
    run.tell(LimitsKnown(DB))
    parent = run.add(tags=DB)
    run.answer(0, True)
    children = run.add(width=3, tags=DB, parent=(parent, 0), policy=Policy(batch=1))
    call = run.add(tags=DB, parent=(parent, 0), runner=INLINE)
    grandchild = run.add(tags=DB, parent=(children, 0))
    free = run.add(parent=(parent, 0))
    assert run.states(children) == [State.SUBMITTED, State.READY, State.READY]
    assert run.state(call) is State.READY
    assert run.state(grandchild) is run.state(free) is State.SUBMITTED
    assert not run.asks
    while run.batches:
        lent = [b for b in run.batches.values() if b.node_id in (children, call)]
        assert len(lent) <= 1
        run.end(batch_id=max(run.batches))
    assert set(run.states(children)) == {run.state(call)} == {State.COMPLETED}


def test_two_parents_lend_a_lease_each() -> None:
    """As many children run at once as slots of the limit are held."""
    run = HandDriven(slots=8)
    run.tell(LimitsKnown(DB))
    parents = run.add(width=2, tags=DB, policy=Policy(batch=1))
    for batch_id in (0, 1):
        run.answer(batch_id, True)
    nodes = [run.add(width=2, tags=DB, parent=(parents, k), policy=Policy(batch=1)) for k in (0, 1)]
    assert [run.states(node) for node in nodes] == [[State.SUBMITTED, State.READY]] * 2


def test_what_goes_through_other_gates_is_not_fused() -> None:
    """A rider in a batch would be at work without a place of its own."""
    from orchestration.core.specs import Dependency, Reach

    run = HandDriven(slots=1)
    warm = [run.add(width=4, task_name=name, policy=Policy(batch=4)) for name in ("a", "b")]
    run.end(seconds=0.001)
    run.end(seconds=0.001)
    assert all(set(run.states(node)) == {State.COMPLETED} for node in warm)
    up = run.add(width=4, task_name="a")
    run.add(Dependency(up, Reach.ALIGNED), width=4, task_name="b", policy=Policy(max_concurrency=1))
    run.finish_all()
    assert not any(batch.fused for batch in run.all_said(SubmitBatch))
