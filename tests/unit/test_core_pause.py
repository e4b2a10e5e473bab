"""Pausing and resuming in every state."""

from __future__ import annotations

from orchestration.core.commands import SubmitBatch
from orchestration.core.events import PauseRequested, ResumeRequested
from orchestration.core.journal import Moved
from orchestration.core.specs import INLINE, Dependency, Policy, Reach
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import Outcome

PAUSE, RESUME = PauseRequested("lunch"), ResumeRequested()


def test_nothing_new_starts() -> None:
    """What runs goes on, what was ready waits, and goes when resumed."""
    run = HandDriven(slots=1)
    node = run.add(width=3, policy=Policy(batch=1))
    run.tell(PAUSE)
    assert run.states(node) == [State.SUBMITTED, State.PAUSED, State.PAUSED]
    run.end()
    assert run.states(node) == [State.COMPLETED, State.PAUSED, State.PAUSED]
    run.tell(RESUME)
    assert run.states(node) == [State.COMPLETED, State.SUBMITTED, State.READY]


def test_what_becomes_ready_is_paused() -> None:
    """Downstream, retries whose delay is over, returned and lost items: all wait for the person."""
    run = HandDriven(slots=9)
    up = run.add()
    down = run.add(Dependency(up, Reach.ALL))
    flaky = run.add(policy=Policy(retries=1, delay=lambda n: 5.0))
    returned, lost = run.add(), run.add()
    run.tell(PAUSE)
    new = run.add()
    run.end(batch_id=0)
    run.end(Outcome.FAILED, batch_id=1)
    run.end(Outcome.UNSTARTED, batch_id=2)
    run.lose(3)
    assert run.state(flaky) is State.AWAITING_RETRY
    run.wait(5)
    waiting = (down, flaky, returned, lost, new)
    assert {run.state(n) for n in waiting} == {State.PAUSED}
    run.tell(RESUME)
    assert {run.state(n) for n in waiting} == {State.SUBMITTED}
    assert (run.attempts(returned), run.attempts(lost), run.attempts(flaky)) == (1, 2, 2)


def test_an_item_that_runs_alone_stays_alone() -> None:
    """A pause does not put an item that lost its worker back into a batch with others."""
    run = HandDriven(slots=1)
    run.add(width=4, policy=Policy(batch=2))
    run.tell(PAUSE)
    run.lose()
    run.tell(RESUME)
    sizes = []
    while run.batches:
        sizes.append(list(run.batches[min(run.batches)].indices))
        run.end()
    assert sizes == [[0], [1], [2, 3]]


def test_a_pause_is_journalled_in_bulk() -> None:
    """One entry for each way, whatever the width."""
    run = HandDriven(slots=0)
    run.add(width=5000)
    run.tell(PAUSE)
    run.tell(PAUSE)
    run.tell(RESUME)
    run.tell(RESUME)
    assert [(m.state, m.reason) for m in run.all_said(Moved)] == [
        (State.PAUSED, "lunch"),
        (State.READY, ""),
    ]


def test_a_directly_called_task_waits_as_well() -> None:
    """Its thread is held until the run is resumed."""
    run = HandDriven(slots=0)
    run.tell(PAUSE)
    node = run.add(runner=INLINE)
    assert run.state(node) is State.PAUSED
    run.tell(RESUME)
    assert run.state(node) is State.SUBMITTED
    assert [command.runner for command in run.all_said(SubmitBatch)] == [INLINE]
