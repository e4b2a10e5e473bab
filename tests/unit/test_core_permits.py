"""Permits: code that must not run twice starts once, and that is written down first."""

from __future__ import annotations

from orchestration.core.commands import AnswerPermit, SubmitBatch
from orchestration.core.events import PermitAsked, RunInterrupted
from orchestration.core.journal import Moved, StartRepeated
from orchestration.core.specs import Dependency, Policy, Reach, Recovered
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import Outcome, Stored

ONCE = Policy(rerun_on_loss=False, batch=3)


def driven(width: int = 3) -> HandDriven:
    run = HandDriven(slots=1)
    run.add(width=width, policy=ONCE)
    return run


def test_batches_say_that_permits_are_needed() -> None:
    """The worker is told to ask before each item."""
    assert [command.permit for command in driven().all_said(SubmitBatch)] == [True]


def test_the_start_is_journalled_before_the_answer() -> None:
    """The record of the start comes first among what the coordinator says."""
    run = driven()
    said = run.tell(PermitAsked("c1", 0, "x0", 0))
    assert [type(command) for command in said] == [Moved, AnswerPermit]
    assert isinstance(said[0], Moved)
    assert (said[0].state, list(said[0].indices)) == (State.RUNNING, [0])


def test_hints_do_not_start_anything() -> None:
    """That a batch was begun says nothing about its items, which begin with their permit."""
    run = driven()
    run.start()
    run.progress(0, 2)
    assert run.states(0) == [State.SUBMITTED] * 3


def test_a_repeated_call_gets_the_same_answer() -> None:
    """An answer that was lost on its way is given again, to that call only."""
    run = driven()
    assert run.permit(0, 0, call="c1")
    assert run.permit(0, 0, call="c1")
    assert not run.permit(0, 0, call="c2")


def test_a_second_execution_gets_no_permit() -> None:
    """The engine runs a batch again behind our back: it may start nothing, and is recorded."""
    run = driven()
    assert run.permit(0, 0)
    assert not run.permit(0, 0, execution="twin")
    assert not run.permit(0, 1, execution="twin")
    assert run.permit(0, 1)
    assert [entry.execution_id for entry in run.all_said(StartRepeated)] == ["twin"]


def test_no_permit_after_the_end() -> None:
    """A batch that was lost or has ended starts nothing any more."""
    run = driven()
    run.lose()
    assert not run.permit(0, 0)


def test_no_permit_for_what_is_not_there() -> None:
    """An unknown batch or position is refused, not an error."""
    run = driven()
    assert not run.permit(77, 0)
    assert not run.permit(0, 3)
    assert not run.permit(0, -1)


def test_no_permit_for_what_is_to_be_cancelled() -> None:
    """Cancelled items of a batch that goes on do not start."""
    run = driven()
    run.cancel(0, 1)
    assert run.permit(0, 0)
    assert not run.permit(0, 1)
    assert run.permit(0, 2)
    run.end([Outcome.COMPLETED, Outcome.REFUSED, Outcome.COMPLETED])
    assert run.states(0) == [State.COMPLETED, State.CANCELLED, State.COMPLETED]


def test_no_permit_after_an_interruption() -> None:
    """The run has ended: nothing starts any more, even where it is still running."""
    run = driven()
    run.tell(RunInterrupted("SIGTERM"))
    assert not run.permit(0, 0)


def test_refused_items_that_had_started_are_crashed() -> None:
    """A second execution returns first: what the first one began is lost, the rest may still run."""
    run = driven()
    run.permit(0, 0)
    run.end(Outcome.REFUSED, execution="twin")
    assert run.states(0) == [State.CRASHED, State.SUBMITTED, State.SUBMITTED]
    assert "must not run twice" in run.reason(0, 0)


def test_what_an_earlier_process_started_is_not_run_again() -> None:
    """After a crash, items that were running and may not run twice are left for a person to decide."""
    run = HandDriven(slots=1)
    stored = {2: (Stored("memory:1", ""), 0)}
    found = Recovered(attempts={0: 1, 2: 1}, results=stored, started=frozenset({0, 2, 9}))
    node = run.add(width=3, policy=ONCE, recovered=found)
    free = run.add(width=3, policy=Policy(batch=3), recovered=found)
    assert run.states(node) == [State.CRASHED, State.SUBMITTED, State.COMPLETED]
    assert "must not run twice" in run.reason(node, 0)
    assert run.states(free) == [State.READY, State.READY, State.COMPLETED]


def test_what_asked_an_earlier_process_to_be_skipped_is_not_run_again() -> None:
    """It is Skipped at once, whether it may run twice or not, and what follows from it is skipped, too."""
    run = HandDriven(slots=1)
    found = Recovered(attempts={0: 1}, started=frozenset({0, 1}), skipped=frozenset({0, 9}))
    once = run.add(width=2, policy=ONCE, recovered=found)
    free = run.add(width=2, recovered=found)
    below = run.add(Dependency(free, Reach.ALIGNED), width=2)
    assert run.states(once) == [State.SKIPPED, State.CRASHED]
    assert run.states(free) == [State.SKIPPED, State.SUBMITTED]
    assert run.states(below) == [State.SKIPPED, State.PENDING]
    assert run.attempts(once) == 1
