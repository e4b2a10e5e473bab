"""Results that are lost after their task runs have completed: made again where something needs them."""

from __future__ import annotations

import pytest

from orchestration.core.commands import ForgetNodes, ReleaseBatches
from orchestration.core.events import (
    FuturesDropped,
    LimitsKnown,
    PauseRequested,
    ResultsWanted,
    ResumeRequested,
)
from orchestration.core.journal import LOST, AttemptsEnded
from orchestration.core.remaking import MAX_REMAKES
from orchestration.core.specs import Dependency, Policy, Reach
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import Outcome, Stored
from runners.tables import starved

ONCE = Policy(rerun_on_loss=False)


def all_of(node: int, *, reads: bool = True) -> Dependency:
    return Dependency(node, Reach.ALL, reads=reads)


def same_of(node: int) -> Dependency:
    return Dependency(node, Reach.ALIGNED)


def chain_of(run: HandDriven, length: int) -> list[int]:
    """Add single tasks, each of which reads the one before; let all but the last complete."""
    nodes = [run.add()]
    for _ in range(length - 1):
        nodes.append(run.add(all_of(nodes[-1])))
    for _ in range(length - 1):
        run.end()
    return nodes


def test_a_lost_result_is_made_again_for_its_reader() -> None:
    """The reader that could not read waits at no charge; its upstream stays Completed, with one more attempt."""
    run = HandDriven()
    up = run.add()
    down = run.add(all_of(up), policy=Policy(retries_on_loss=0))
    run.end()
    run.end(Outcome.INPUT_LOST, missing=(0,))
    assert (run.state(up), run.state(down)) == (State.COMPLETED, State.PENDING)
    assert "made again" in run.reason(down) or run.attempts(down) == 0
    (batch,) = run.batches.values()
    assert (batch.node_id, list(batch.attempts)) == (up, [2])
    run.end()
    assert run.state(down) is State.SUBMITTED
    run.end()
    assert (run.attempts(up), run.attempts(down)) == (2, 1)
    again = run.all_said(AttemptsEnded)[1]
    assert (again.node_id, again.remade, list(again.states)) == (up, True, [State.COMPLETED])


def test_a_result_that_is_lost_while_its_reader_is_packed() -> None:
    """The driver cannot pack the reader and names no batch: what the coordinator knows is enough to wait."""
    run = HandDriven(slots=1)
    up = run.add()
    run.end()
    down = run.add(all_of(up), policy=Policy(retries_on_loss=0))
    run.lose_results(0)
    run.tell_finished(starved(1, 1, 1, "it was lost"))
    assert run.state(down) is State.PENDING
    run.end()
    run.end()
    assert (run.state(down), run.attempts(down)) == (State.COMPLETED, 1)


def test_what_nobody_needs_is_not_made_again() -> None:
    """Results without a reader that is to run stay lost, and so do those that are only waited for."""
    run = HandDriven(slots=1)
    run.add()
    first = run.add()
    run.end()
    run.end()
    waiting = run.add(all_of(first, reads=False))
    run.lose_results(0, 1)
    run.end()
    assert run.state(waiting) is State.COMPLETED
    assert not run.batches


def test_only_the_items_that_are_read_are_made_again() -> None:
    """Of a lost batch of five only the one goes to the engine that a reader wants."""
    run = HandDriven(slots=1)
    up = run.add(width=5, policy=Policy(batch=5))
    run.end()
    run.lose_results(0)
    down = run.add(Dependency(up, Reach.SOME, (3,)))
    assert [list(batch.indices) for batch in run.batches.values()] == [[3]]
    run.end()
    run.end()
    assert run.state(down) is State.COMPLETED


def test_lost_ancestors_are_made_again_from_the_top() -> None:
    """A reader whose whole lineage is gone gets it back, in order."""
    run = HandDriven(slots=1)
    nodes = chain_of(run, 60)
    run.lose_results(*range(58))
    run.end(Outcome.INPUT_LOST, missing=(58,))
    for node in nodes[:-1]:
        (batch,) = run.batches.values()
        assert batch.node_id == node
        run.end()
    run.end()
    assert run.state(nodes[-1]) is State.COMPLETED


def test_results_that_had_been_released_are_made_again_and_released_again() -> None:
    """A result is lost whose input nobody needed any more: the input comes back for as long as it takes."""
    run = HandDriven(slots=1)
    top = run.add()
    middle = run.add(all_of(top))
    run.end()
    run.tell(FuturesDropped(top))
    run.end()
    assert [c.batch_ids for c in run.all_said(ReleaseBatches)] == [(0,)]
    run.lose_results(1)
    down = run.add(all_of(middle))
    assert [batch.node_id for batch in run.batches.values()] == [top]
    run.end()
    assert [batch.node_id for batch in run.batches.values()] == [middle]
    run.end()
    assert run.all_said(ReleaseBatches)[-1].batch_ids == (2,)
    run.end()
    assert run.state(down) is State.COMPLETED


def test_a_result_that_must_not_be_made_twice_crashes_its_readers() -> None:
    """With rerun_on_loss=False nothing runs again; the readers' story names the result and the reason."""
    run = HandDriven()
    up = run.add(policy=ONCE)
    down = run.add(all_of(up))
    below = run.add(all_of(down))
    run.permit(0, 0)
    run.end()
    run.end(Outcome.INPUT_LOST, missing=(0,))
    assert run.state(up) is State.COMPLETED
    assert run.state(down) is State.CRASHED
    assert run.state(below) is State.UPSTREAM_FAILED
    for words in ("the result of t0 was lost", "rerun_on_loss=False"):
        assert words in run.reason(down)
    assert not run.batches


def test_only_readers_of_what_is_hopeless_are_crashed() -> None:
    """In one batch that lost two inputs, the item whose input may be made again completes."""
    run = HandDriven(slots=1)
    once = run.add(width=2, policy=Policy(rerun_on_loss=False, batch=2))
    for position in range(2):
        run.permit(0, position)
    run.end()
    more = run.add(width=2, policy=Policy(batch=2))
    run.end()
    picks = Dependency(once, Reach.PICKED, picks={0: (1,)})
    down = run.add(same_of(more), picks, width=2, policy=Policy(batch=2))
    run.end(Outcome.INPUT_LOST, missing=(0, 1))
    assert run.states(down) == [State.CRASHED, State.PENDING]
    run.end()
    run.end()
    assert run.states(down) == [State.CRASHED, State.COMPLETED]


def test_inputs_of_what_must_not_run_twice_are_kept() -> None:
    """They are not released while something below may have to be made again from them."""
    run = HandDriven(slots=1)
    once = run.add(policy=ONCE)
    middle = run.add(all_of(once))
    run.permit(0, 0)
    run.end()
    run.end()
    run.tell(FuturesDropped(once))
    assert not run.all_said(ReleaseBatches)
    run.lose_results(1)
    down = run.add(all_of(middle))
    run.end()
    run.end()
    assert run.state(down) is State.COMPLETED
    run.tell(FuturesDropped(middle))
    run.tell(FuturesDropped(down))
    assert {b for c in run.all_said(ReleaseBatches) for b in c.batch_ids} == {0, 1, 2, 3}


def test_stored_results_are_read_from_storage() -> None:
    """What is in storage is not made again while its file is good; the reader is told of the file."""
    run = HandDriven(slots=1)
    up = run.add(width=2, policy=Policy(batch=2))
    stored = Stored("file:///r/0", "digest")
    run.end(stored=stored)
    run.lose_results(0)
    node = run.core.nodes[up]
    assert [node.stored[i] for i in range(2)] == [(stored, 0), (stored, 1)]
    assert node.location(0) is None
    down = run.add(all_of(up))
    run.end()
    assert run.state(down) is State.COMPLETED


def test_user_code_asks_for_a_lost_result() -> None:
    """It is made again; asking twice makes it once; a report about where it was before changes nothing."""
    run = HandDriven()
    node = run.add(width=3, policy=Policy(batch=3))
    run.end()
    run.lose_results(0)
    run.tell(ResultsWanted(node, range(3)))
    run.tell(ResultsWanted(node, [1]))
    assert [list(batch.indices) for batch in run.batches.values()] == [[0, 1, 2]]
    run.end()
    run.lose_results(0)
    assert [run.core.nodes[node].location(i) for i in range(3)] == [(1, 0), (1, 1), (1, 2)]


def test_making_again_is_tried_again_within_the_budgets() -> None:
    """It may fail and be lost as often as any attempt; then its readers are Crashed, and it stays Completed."""
    run = HandDriven(slots=1)
    up = run.add(policy=Policy(retries=1, retries_on_loss=1))
    down = run.add(all_of(up))
    run.end()
    run.end(Outcome.INPUT_LOST, missing=(0,))
    run.lose()
    run.end(Outcome.FAILED)
    run.end(Outcome.FAILED)
    assert (run.state(up), run.state(down)) == (State.COMPLETED, State.CRASHED)
    assert "FAILED" in run.reason(down)
    outcomes = [end.outcomes[0] for end in run.all_said(AttemptsEnded) if end.remade]
    assert outcomes == [LOST, Outcome.FAILED, Outcome.FAILED]


def test_a_result_is_not_made_for_ever() -> None:
    """Whatever loses it each time, an end comes."""
    run = HandDriven(slots=1)
    up = run.add()
    down = run.add(all_of(up))
    run.end()
    for batch_id in range(0, 2 * MAX_REMAKES + 2, 2):
        run.end(Outcome.INPUT_LOST, missing=(batch_id,))
        if run.batches:
            run.end()
    assert run.state(down) is State.CRASHED
    assert f"lost {MAX_REMAKES + 1} times" in run.reason(down)


def test_reports_that_cannot_be_true_are_not_believed_for_ever() -> None:
    """An item that says again and again that a batch is missing which it does not read is charged in the end."""
    run = HandDriven(slots=1)
    run.add()
    down = run.add(policy=Policy(retries_on_loss=0))
    run.end()
    for _ in range(21):
        run.end(Outcome.INPUT_LOST, missing=(0,))
    assert run.state(down) is State.CRASHED


def test_a_batch_that_waits_for_leases_is_taken_apart() -> None:
    """What it was to read is lost before the store has answered: its lease is not taken, and it waits."""
    run = HandDriven(slots=1)
    run.tell(LimitsKnown(frozenset({"db"})))
    up = run.add()
    run.end()
    down = run.add(all_of(up), tags=frozenset({"db"}))
    run.lose_results(0)
    assert not run.asks
    assert run.state(down) is State.PENDING
    run.end()
    (ask,) = run.asks
    run.answer(ask, granted=True)
    run.end()
    assert run.state(down) is State.COMPLETED


def test_a_pause_holds_back_what_is_made_again() -> None:
    """Nothing starts while the run is paused, for whatever reason."""
    run = HandDriven(slots=1)
    node = run.add()
    run.end()
    run.lose_results(0)
    run.tell(PauseRequested())
    run.tell(ResultsWanted(node, [0]))
    assert not run.batches
    run.tell(ResumeRequested())
    assert len(run.batches) == 1


def test_a_cancelled_run_makes_nothing_again() -> None:
    """What was about to be made again is given up, and whoever asks later is told why."""
    run = HandDriven(slots=1)
    node = run.add(width=2, policy=Policy(batch=1))
    run.end()
    run.end()
    run.lose_results(0, 1)
    run.tell(ResultsWanted(node, [0]))
    run.cancel(reason="enough")
    run.end()
    run.tell(ResultsWanted(node, [1]))
    assert run.core.nodes[node].known.hopeless == {0: "enough", 1: "enough"}
    assert not run.batches


def test_nodes_are_forgotten_when_nothing_below_can_need_them() -> None:
    """A node is retired with the last node below it, not when it has ended."""
    run = HandDriven(slots=1)
    top = run.add()
    middle = run.add(all_of(top))
    run.end()
    run.end()
    run.tell(FuturesDropped(top))
    assert not run.all_said(ForgetNodes)
    run.tell(FuturesDropped(middle))
    assert [c.node_ids for c in run.all_said(ForgetNodes)] == [(middle, top)]


@pytest.mark.parametrize("told", [True, False])
def test_a_fused_batch_is_made_again_stage_by_stage(told: bool) -> None:
    """Results of all stages are lost together; what is read of them is made again, from what it is made of."""
    run = HandDriven(slots=1)
    up = run.add(width=4, policy=Policy(batch=2))
    run.end(seconds=0.001)
    down = run.add(same_of(up), width=4, policy=Policy(batch=2))
    run.finish_all()
    last = max(run.core.flights)
    assert set(run.core.nodes[down].batches) <= set(range(last + 1))
    if told:
        run.lose_results(*range(last + 1))
    reader = run.add(all_of(down))
    if not told:
        run.end(Outcome.INPUT_LOST, missing=range(last + 1))
    run.finish_all()
    assert run.state(reader) is State.COMPLETED
    assert all(run.attempts(node, i) == 2 for node in (up, down) for i in range(4))
