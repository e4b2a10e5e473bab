"""Tasks that are called by the code of others use their slots and end with them."""

from __future__ import annotations

import pytest

from orchestration.core.calling import CALLER_ENDED
from orchestration.core.events import LimitsKnown, SlotLent, SlotReclaimed
from orchestration.core.journal import LeasesReturned
from orchestration.core.specs import INLINE, Dependency, Policy, Reach
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import Outcome

DB = frozenset({"db"})
LATER = Policy(retries=1, delay=lambda n: 60.0)


def test_who_waits_in_a_called_task_lends_the_slot_of_its_caller() -> None:
    """However deep the call: on one slot what it waits for would otherwise never run."""
    run = HandDriven(slots=1)
    outer = run.add()
    inner = run.add(runner=INLINE, parent=(outer, 0))
    run.add(runner=INLINE, parent=(inner, 0))
    awaited = run.add(parent=(inner, 0))
    assert run.state(awaited) is State.READY
    deepest = list(run.batches)[-1]
    run.tell(SlotLent(deepest))
    assert run.state(awaited) is State.SUBMITTED
    assert run.core.at_engine == 1
    run.tell(SlotReclaimed(deepest))
    assert run.core.at_engine == 2
    run.finish_all()
    assert run.core.at_engine == 0


@pytest.mark.parametrize("started", [False, True])
def test_a_lost_caller_takes_along_what_it_has_called(started: bool) -> None:
    """Nobody else runs that; the caller runs again and calls anew."""
    run = HandDriven()
    outer = run.add()
    inner = run.add(runner=INLINE, parent=(outer, 0))
    deeper = run.add(runner=INLINE, parent=(inner, 0))
    if started:
        run.start(2)
    run.lose(0)
    assert run.state(inner) is run.state(deeper) is State.CRASHED
    assert run.reason(deeper) == CALLER_ENDED
    assert run.state(outer) is State.SUBMITTED
    again = run.add(runner=INLINE, parent=(outer, 0))
    run.end(batch_id=list(run.batches)[-1])
    run.end(batch_id=list(run.batches)[-1])
    assert run.state(again) is run.state(outer) is State.COMPLETED


def test_what_a_lost_caller_has_called_is_not_run_later() -> None:
    """Whatever it waits for: a timer, a limit, or another task run. What was submitted goes on."""
    run = HandDriven(slots=2)
    run.tell(LimitsKnown(DB))
    outer, submitted = run.add(), run.add()
    retried = run.add(runner=INLINE, parent=(outer, 0), policy=LATER)
    run.end(Outcome.FAILED, batch_id=2)
    assert run.state(retried) is State.AWAITING_RETRY
    limited = run.add(runner=INLINE, parent=(outer, 0), tags=DB)
    waits = run.add(Dependency(submitted, Reach.ALL), runner=INLINE, parent=(outer, 0))
    assert [run.state(n) for n in (limited, waits)] == [State.READY, State.PENDING]
    run.lose(0)
    assert {run.state(n) for n in (retried, limited, waits)} == {State.CRASHED}
    run.wait(100.0)
    run.finish_all()
    assert run.state(submitted) is run.state(outer) is State.COMPLETED
    assert run.state(waits) is State.CRASHED


def test_leases_of_what_was_called_come_back() -> None:
    """With the loss of the caller, not with the end of the run."""
    run = HandDriven()
    run.tell(LimitsKnown(DB))
    outer = run.add()
    inner = run.add(runner=INLINE, parent=(outer, 0), tags=DB)
    (asked,) = run.asks
    run.answer(asked, True)
    assert run.state(inner) is State.SUBMITTED
    run.lose(0)
    assert [e.holders for e in run.all_said(LeasesReturned)] == [(f"run/batch/{asked}",)]


def test_a_call_of_a_caller_that_is_over_ends_at_once() -> None:
    """It was on its way when its worker died."""
    run = HandDriven()
    outer = run.add(policy=Policy(retries_on_loss=0))
    run.lose()
    assert run.state(outer) is State.CRASHED
    late = run.add(runner=INLINE, parent=(outer, 0))
    assert run.state(late) is State.CRASHED
    assert not run.batches
