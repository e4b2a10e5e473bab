"""Items that are out of time and do not react: silent workers, and workers that are ended."""

from __future__ import annotations

import pytest

from orchestration.core.commands import CancelBatches
from orchestration.core.overdue import ENDING_SECONDS, LOOK_SECONDS, SILENT_SECONDS
from orchestration.core.specs import Policy
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import Detail, Outcome, unstopped_detail

TIMEOUT = 2.0
TIMED = Policy(timeout_seconds=TIMEOUT)
ENDED = CancelBatches((0,), force=True)


def driven(*, ends_workers: bool = True) -> HandDriven:
    run = HandDriven(slots=1)
    run.core.overdues.ends_workers = ends_workers
    return run


def pass_silently(run: HandDriven, seconds: float = TIMEOUT + SILENT_SECONDS + 2 * LOOK_SECONDS) -> None:
    for _ in range(int(seconds / LOOK_SECONDS)):
        run.wait(LOOK_SECONDS)


def test_a_silent_worker_is_ended() -> None:
    """Its item has timed out, once the worker is gone; nobody says that its code may still run."""
    run = driven()
    node = run.add(policy=TIMED)
    run.start()
    pass_silently(run, TIMEOUT + SILENT_SECONDS)
    assert run.all_said(CancelBatches) == []
    pass_silently(run, 2 * LOOK_SECONDS)
    assert run.all_said(CancelBatches) == [ENDED]
    assert run.state(node) is State.RUNNING
    run.lose()
    assert run.state(node) is State.FAILED
    assert run.core.nodes[node].names.get(0) == "TimedOut"
    assert "its worker was ended" in run.reason(node)
    assert not run.core.nodes[node].details[0].abandoned


@pytest.mark.parametrize("policy", [TIMED, Policy()])
def test_a_worker_that_tells_something_or_may_take_any_time_is_left_alone(policy: Policy) -> None:
    """A sign of life each second, or no timeout at all."""
    run = driven()
    run.add(policy=policy)
    run.start()
    for _ in range(30):
        if policy is TIMED:
            run.progress(0, 0)
        run.wait(1.0)
    assert run.all_said(CancelBatches) == []


def test_of_several_items_none_is_blamed() -> None:
    """Which one hangs is not known: all are lost with their worker, and tried again alone."""
    run = driven()
    node = run.add(width=3, policy=Policy(timeout_seconds=TIMEOUT, batch=3))
    run.start()
    pass_silently(run)
    assert run.all_said(CancelBatches) == [ENDED]
    run.lose()
    assert State.FAILED not in run.states(node)
    assert [len(batch.indices) for batch in run.all_batches()] == [3, 1]


def test_a_worker_that_cannot_be_ended_is_abandoned() -> None:
    """Of a runner that ends none at once; else when its end has not been seen for some seconds."""
    for ends_workers in (False, True):
        run = driven(ends_workers=ends_workers)
        node = run.add(policy=TIMED)
        run.start()
        pass_silently(run)
        if ends_workers:
            pass_silently(run, ENDING_SECONDS)
        assert run.state(node) is State.FAILED
        assert run.core.nodes[node].details[0].abandoned


def test_code_that_must_not_run_twice_keeps_its_worker() -> None:
    """What has completed in the same batch would be lost with it."""
    run = driven()
    run.add(width=2, policy=Policy(timeout_seconds=TIMEOUT, batch=2, rerun_on_loss=False))
    run.start()
    assert run.permit(0, 0)
    assert run.permit(0, 1)
    run.progress(0, 1, outcomes=bytes([Outcome.COMPLETED]))
    pass_silently(run)
    assert run.all_said(CancelBatches) == []


def test_what_a_worker_calls_abandoned_is_not_where_it_is_ended() -> None:
    """The worker's own monitor tells first; what followed in the batch runs elsewhere."""
    run = driven()
    node = run.add(width=2, policy=Policy(timeout_seconds=TIMEOUT, batch=2))
    run.start()
    told = {0: Detail("TaskTimeoutError", "could not be stopped", abandoned=True)}
    run.progress(0, 0, outcomes=bytes([Outcome.TIMED_OUT]), details=told)
    assert run.all_said(CancelBatches) == [ENDED]
    assert run.states(node) == [State.RUNNING, State.READY]
    run.lose()
    assert run.states(node) == [State.FAILED, State.SUBMITTED]
    assert not run.core.nodes[node].details[0].abandoned


def test_cancelled_code_whose_worker_is_ended_is_not_abandoned() -> None:
    """Confirmation, then force, then the loss: what the record says is that it was cancelled."""
    run = driven()
    node = run.add()
    run.start()
    run.cancel(node)
    run.wait(6.0)
    assert run.all_said(CancelBatches) == [CancelBatches((0,)), ENDED]
    assert run.state(node) is State.RUNNING
    run.lose()
    assert run.state(node) is State.CANCELLED
    assert 0 not in run.core.nodes[node].details


@pytest.mark.parametrize(
    ("ends_workers", "how"),
    [
        (True, "it did not stop: its worker was ended"),
        (False, "it could not be stopped: its code may still be running"),
    ],
)
def test_who_cancels_code_that_does_not_stop_is_told_so(ends_workers: bool, how: str) -> None:
    """In the words that are used at a timeout, after why it was cancelled."""
    run = driven(ends_workers=ends_workers)
    node = run.add()
    run.start()
    run.cancel(node, reason="too slow")
    run.progress(0, 0, outcomes=bytes([Outcome.CANCELLED]), details={0: unstopped_detail(None)})
    if ends_workers:
        run.lose()
    assert run.state(node) is State.CANCELLED
    assert run.reason(node) == f"too slow; {how}"


def test_a_cancelled_item_whose_worker_dies_says_both() -> None:
    """Why it was to end, and how it came to."""
    run = driven()
    node = run.add()
    run.start()
    run.cancel(node, reason="too slow")
    run.lose()
    assert run.reason(node) == "too slow; the worker has died"
