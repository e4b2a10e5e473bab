"""Times that a run keeps of itself: of submissions, of CPU, and of items that wait."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestration.core.events import LimitsKnown
from orchestration.core.journal import AttemptsEnded
from orchestration.core.specs import Policy
from orchestration.testing.handdriven import HandDriven
from runners.messages import BatchFinished, Detail, Outcome


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.FAILED])
def test_a_batch_is_journalled_with_its_submission_and_its_cpu_time(outcome: Outcome) -> None:
    """Whichever way its items end."""
    run = HandDriven(slots=1)
    run.now = 5.0
    run.add()
    run.now = 8.0
    table = run.table(run.batches[0], outcome, details={0: Detail("ValueError")})
    run.tell(BatchFinished(replace(table, cpu_seconds=0.75)))
    (entry,) = run.all_said(AttemptsEnded)
    assert (entry.submitted_at, entry.at, entry.cpu_seconds) == (5.0, 8.0, 0.75)


def test_a_lost_batch_has_a_submission_and_no_cpu_time() -> None:
    """Nobody could measure it."""
    run = HandDriven(slots=1)
    run.now = 5.0
    run.add()
    run.lose()
    entry = run.all_said(AttemptsEnded)[0]
    assert (entry.submitted_at, entry.cpu_seconds) == (5.0, 0.0)


def waited(run: HandDriven) -> tuple[float, ...]:
    """Return what the only node's items have waited so far."""
    (entry,) = run.core.counted()
    return entry.waited


def test_waiting_for_a_slot_is_summed_over_items() -> None:
    """Three items, one slot, two seconds each: they wait for none, two and four seconds."""
    run = HandDriven(slots=1)
    run.add(width=3, policy=Policy(batch=1))
    for _ in range(3):
        run.now += 2
        run.end()
    assert waited(run) == (6.0, 0.0, 0.0)


def test_who_never_waits_has_nothing_to_tell() -> None:
    """An item that finds a free slot costs the journal nothing more."""
    run = HandDriven(slots=1)
    run.add()
    run.now += 9
    run.end()
    assert waited(run) == ()


def test_waiting_for_a_limit_and_for_a_retry() -> None:
    """Each is counted for itself."""
    run = HandDriven(slots=1)
    run.tell(LimitsKnown(frozenset({"db"})))
    run.add(tags=frozenset({"db"}), policy=Policy(retries=1, delay=lambda _: 3.0))
    run.answer(0, False, db=["other"])
    run.now += 4
    run.answer(0, True)
    run.end(Outcome.FAILED, details={0: Detail("ValueError")})
    run.wait(3.0)
    run.answer(1, True)
    run.end()
    assert waited(run) == (0.0, 4.0, 3.0)
