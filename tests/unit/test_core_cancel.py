"""Cancelling a run, a node or items, in every state; and interrupting a run."""

from __future__ import annotations

import pytest

from orchestration.core.cancelling import GRACE_SECONDS
from orchestration.core.commands import CancelBatches, SubmitBatch
from orchestration.core.events import LimitsKnown, PauseRequested, RunInterrupted
from orchestration.core.journal import AttemptsEnded, Moved
from orchestration.core.specs import Dependency, Policy, Reach
from orchestration.core.states import TERMINAL, State
from orchestration.testing.handdriven import HandDriven
from runners.messages import Outcome

ONE = Policy(batch=1)
GONE = State.CANCELLED


def in_each_state() -> HandDriven:
    """A run with an item in every state that is not terminal; node k is in State k."""
    run = HandDriven(slots=0)
    blocker = run.add(task_name="blocker")
    run.add(tags=frozenset({"db"}), task_name="limited")
    retried = run.add(policy=Policy(retries=1, delay=lambda n: 60.0))
    running, submitted = run.add(), run.add()
    run.add(Dependency(blocker, Reach.ALL))
    run.tell(LimitsKnown(frozenset({"db"})))
    run.tell_slots(5)
    run.answer(next(iter(run.asks)), False, db=["x"])
    of = {batch.node_id: batch.batch_id for batch in run.batches.values()}
    run.end(Outcome.FAILED, batch_id=of[retried])
    run.start(of[running])
    run.tell_slots(0)
    run.add(task_name="ready")
    assert [run.state(n) for n in range(7)] == [
        State.SUBMITTED, State.AWAITING_LIMIT, State.AWAITING_RETRY, State.RUNNING, State.SUBMITTED,
        State.PENDING, State.READY,
    ]  # fmt: skip
    assert submitted == 4
    return run


@pytest.mark.parametrize("node", [1, 2, 5, 6], ids=["limited", "retrying", "pending", "ready"])
@pytest.mark.parametrize("by_index", [False, True])
def test_what_waits_is_cancelled_at_once(node: int, by_index: bool) -> None:
    """No engine has to be asked, and no timer or late answer brings it back."""
    run = in_each_state()
    run.cancel(node, *([0] if by_index else []), reason="changed my mind")
    assert run.state(node) is GONE
    assert run.reason(node) == "changed my mind"
    run.tell_slots(9)
    run.wait(100)
    assert run.state(node) is GONE
    assert node not in {batch.node_id for batch in run.batches.values()}


@pytest.mark.parametrize("node", [3, 4], ids=["running", "submitted"])
@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.CANCELLED, State.CANCELLED),
        (Outcome.UNSTARTED, State.CANCELLED),
        (Outcome.COMPLETED, State.COMPLETED),
        (Outcome.FAILED, State.FAILED),
        (Outcome.SKIPPED, State.SKIPPED),
        (Outcome.INPUT_LOST, State.CANCELLED),
    ],
)
def test_what_is_at_the_engine_ends_as_its_table_says(node: int, outcome: Outcome, expected: State) -> None:
    """The engine is asked to stop it; if it was quicker, that counts. It is not tried again."""
    run = in_each_state()
    batch_id = next(b.batch_id for b in run.batches.values() if b.node_id == node)
    run.cancel(node)
    assert run.all_said(CancelBatches) == [CancelBatches((batch_id,))]
    assert run.state(node) not in TERMINAL
    run.end(outcome, batch_id=batch_id)
    assert run.state(node) is expected


def test_a_cancelled_item_that_is_lost_is_cancelled() -> None:
    """Its worker died before it could be stopped: that stops it, too."""
    run = in_each_state()
    for node in (3, 4):
        batch_id = next(b.batch_id for b in run.batches.values() if b.node_id == node)
        run.cancel(node)
        run.lose(batch_id, suspect=node == 3)
        assert run.state(node) is GONE


def test_cancelling_again_changes_nothing() -> None:
    """A second request neither repeats the command nor touches what has ended."""
    run = in_each_state()
    for _ in range(2):
        run.cancel()
    commands = run.all_said(CancelBatches)
    assert sorted(b for command in commands for b in command.batch_ids) == sorted(run.batches)
    run.finish_all()
    run.cancel()
    assert {run.state(n) for n in range(7)} == {State.CANCELLED, State.COMPLETED}


def test_after_the_grace_the_code_counts_as_abandoned() -> None:
    """The item is Cancelled and says that its code may still run; the slot stays taken until that ends."""
    run = HandDriven(slots=1)
    node = run.add(policy=Policy(retries=3))
    run.start()
    run.cancel(node, reason="too slow")
    run.wait(GRACE_SECONDS - 0.1)
    assert run.state(node) is State.RUNNING
    run.wait(0.1)
    assert run.state(node) is GONE
    assert run.core.nodes[node].details[0].abandoned
    assert run.reason(node) == "too slow; it could not be stopped: its code may still be running"
    other = run.add()
    assert run.state(other) is State.READY
    run.end(Outcome.COMPLETED)
    assert run.state(node) is GONE
    assert run.state(other) is State.SUBMITTED
    assert run.core.nodes[node].location(0) is None


def test_nothing_is_told_twice_about_an_abandoned_item() -> None:
    """Its attempt is journalled as its end, and no move beside it."""
    run = HandDriven()
    run.add()
    run.cancel()
    run.wait(GRACE_SECONDS)
    assert [end.states for end in run.all_said(AttemptsEnded)] == [bytes([GONE])]
    assert [state for state, _ in run.moves(0)] == [State.SUBMITTED]


def test_a_batch_with_other_items_goes_on() -> None:
    """Stopping it would run their code twice; its cancelled items end as they come back."""
    run = HandDriven(slots=1)
    node = run.add(width=3, policy=Policy(batch=3))
    run.cancel(node, 2)
    assert not run.all_said(CancelBatches)
    run.cancel(node, 0)
    run.end([Outcome.COMPLETED, Outcome.COMPLETED, Outcome.UNSTARTED])
    assert run.states(node) == [State.COMPLETED, State.COMPLETED, GONE]
    assert run.attempts(node, 2) == 0


def test_a_batch_is_stopped_with_its_last_wanted_item() -> None:
    """Cancelled one by one, the batch is stopped once nobody wants any of it."""
    run = HandDriven(slots=1)
    node = run.add(width=2, policy=Policy(batch=2))
    run.cancel(node, 0)
    run.cancel(node, 1)
    assert run.all_said(CancelBatches) == [CancelBatches((0,))]


def test_a_batch_is_looked_at_again_when_it_comes_further() -> None:
    """What had kept it alive has ended, as is heard after the cancellation: the rest is stopped."""
    run = HandDriven(slots=1)
    node = run.add(width=3, policy=Policy(batch=3))
    run.cancel(node, 1, 2)
    run.progress(0, 0)
    assert not run.all_said(CancelBatches)
    for _ in range(2):
        run.progress(0, 1, outcomes=bytes([Outcome.COMPLETED]))
        assert run.all_said(CancelBatches) == [CancelBatches((0,))]
    run.end([Outcome.COMPLETED, Outcome.CANCELLED, Outcome.UNSTARTED])
    assert run.states(node) == [State.COMPLETED, GONE, GONE]


def test_cancelled_upstream_is_a_root_cause() -> None:
    """What depends on it never runs and says why."""
    run = HandDriven(slots=0)
    up = run.add()
    down = run.add(Dependency(up, Reach.ALL))
    run.cancel(up)
    assert run.state(down) is State.UPSTREAM_FAILED
    assert run.reason(down) == "t0 ended Cancelled"


def test_a_cancelled_run_cancels_what_comes_later() -> None:
    """Nodes that the flow still submits are recorded and Cancelled, nothing starts."""
    run = HandDriven()
    up = run.add()
    run.cancel(reason="Ctrl-C")
    down = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None)
    late = run.add(width=3)
    assert set(run.states(down) + run.states(late)) == {GONE}
    assert run.reason(late) == "Ctrl-C"
    assert len(run.all_said(SubmitBatch)) == 1


def test_a_cancelled_paused_run_ends() -> None:
    """Paused items are cancelled without being resumed."""
    run = HandDriven(slots=0)
    node = run.add(width=5)
    run.tell(PauseRequested())
    run.cancel(node, 3)
    run.cancel()
    assert set(run.states(node)) == {GONE}


def test_unknown_nodes_and_items_are_ignored() -> None:
    """A request about what is not there does nothing."""
    run = HandDriven()
    node = run.add()
    run.cancel(9)
    run.cancel(node, 7, -1)
    assert run.state(node) is State.SUBMITTED


def test_a_big_map_is_cancelled_in_bulk() -> None:
    """One entry, whatever the width."""
    run = HandDriven(slots=0)
    node = run.add(width=5000)
    run.cancel()
    assert len(run.all_said(Moved)) == 1
    assert run.reason(node, 4321) == "not needed"


def test_an_interrupted_run_leaves_nothing_open() -> None:
    """Whatever state it was in: Crashed, now, with the reason; engines are told to stop."""
    run = in_each_state()
    at_engine = sorted(run.batches)
    run.tell(RunInterrupted("SIGTERM"))
    assert {run.state(n) for n in range(7)} == {State.CRASHED}
    assert {run.reason(n) for n in range(7)} == {"SIGTERM"}
    assert run.all_said(CancelBatches) == [CancelBatches(tuple(at_engine))]
    run.tell(RunInterrupted("again"))
    run.finish_all()
    run.tell_slots(9)
    assert {run.state(n) for n in range(7)} == {State.CRASHED}
    assert run.state(run.add()) is GONE


def test_an_interrupted_map_of_unknown_width_is_crashed() -> None:
    """One item stands for it, so that the record has an end for it."""
    run = HandDriven()
    up = run.add()
    down = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None)
    after = run.add(Dependency(down, Reach.ALIGNED), width=None)
    run.tell(RunInterrupted("SIGTERM"))
    assert run.states(down) == run.states(after) == [State.CRASHED]
