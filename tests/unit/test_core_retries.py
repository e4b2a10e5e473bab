"""Failures: what is tried again, when, and what a failure costs."""

from __future__ import annotations

import math

import pytest

from orchestration.core.journal import AttemptsEnded
from orchestration.core.retry import MAX_DELAY_SECONDS, delays, exponential_backoff, jittered
from orchestration.core.specs import Policy
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import Detail, Outcome

FAILED = Outcome.FAILED


def waits(policy: Policy, n: int, *, uniform: float = 0.5, detail: Detail | None = None) -> list[float]:
    """Let a task fail n times; return how long it waited each time."""
    run = HandDriven(uniform=uniform)
    node = run.add(policy=policy)
    found = []
    for _ in range(n):
        run.end(FAILED, details={0: detail} if detail else None)
        due = run.core.next_timer()
        if run.state(node) is State.AWAITING_RETRY and due is not None:
            found.append(due - run.now)
            run.wait(due - run.now)
        else:
            found.append(0.0)
        assert run.state(node) is State.SUBMITTED
    return found


def test_a_failure_is_retried_as_often_as_the_policy_says() -> None:
    """Two retries make three attempts, numbered from one; then the task run has failed."""
    run = HandDriven()
    node = run.add(policy=Policy(retries=2))
    for attempt in (1, 2, 3):
        assert run.attempts(node) == attempt
        run.end(FAILED, details={0: Detail("ValueError", f"number {attempt}")})
    assert run.state(node) is State.FAILED
    assert run.reason(node) == "number 3"
    assert run.core.nodes[node].details[0].message == "number 3"
    ends = run.all_said(AttemptsEnded)
    assert [list(end.attempts) for end in ends] == [[1], [2], [3]]
    assert [State(end.states[0]) for end in ends] == [State.AWAITING_RETRY] * 2 + [State.FAILED]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (0, [0, 0, 0]),
        (2.5, [2.5, 2.5, 2.5]),
        ([1, 5], [1, 5, 5]),
        ([], [0, 0, 0]),
        (exponential_backoff(2, 7), [2, 4, 7]),
        (lambda n: n * 10, [10, 20, 30]),
    ],
    ids=["none", "number", "list", "empty list", "backoff", "callable"],
)
def test_delays(spec: object, expected: list[float]) -> None:
    """A number, a list of which the last entry repeats, backoff, and a function of the retry's number."""
    policy = Policy(retries=3, delay=delays(spec))  # type: ignore[arg-type]
    assert waits(policy, 3) == expected


@pytest.mark.parametrize(("uniform", "expected"), [(0.0, 10.0), (0.5, 15.0), (1.0, 20.0)])
def test_jitter_is_real(uniform: float, expected: float) -> None:
    """A jitter factor of one spreads a delay over its double."""
    assert waits(Policy(retries=1, delay=delays(10), jitter=1.0), 1, uniform=uniform) == [expected]


def test_delays_that_make_no_sense_are_bounded() -> None:
    """A negative, endless or undefined delay neither hangs the run nor breaks it."""

    def broken(n: int) -> float:
        raise RuntimeError("no idea")

    assert waits(Policy(retries=1, delay=delays(-5)), 1) == [0]
    assert waits(Policy(retries=1, delay=lambda n: math.inf), 1) == [MAX_DELAY_SECONDS]
    assert waits(Policy(retries=1, delay=lambda n: math.nan), 1) == [0]
    assert waits(Policy(retries=1, delay=broken), 1) == [0]
    assert jittered(1e300, 1e300, 1.0) == MAX_DELAY_SECONDS


def test_retry_signals() -> None:
    """Raising Retry(after_seconds) spends a retry and chooses the delay, without jitter."""
    detail = Detail(after_seconds=42.0)
    assert waits(Policy(retries=1, delay=delays(1), jitter=1.0), 1, detail=detail) == [42.0]
    run = HandDriven()
    node = run.add()
    run.end(Outcome.RETRY, details={0: detail})
    assert run.state(node) is State.FAILED


def test_fail_signals() -> None:
    """Fail, or a retry_condition_fn that says no, ends the task run at once."""
    run = HandDriven()
    node = run.add(policy=Policy(retries=5))
    run.end(FAILED, details={0: Detail(message="hopeless", retriable=False)})
    assert run.state(node) is State.FAILED


def test_a_timeout_is_a_failure_with_a_name() -> None:
    """TimedOut is retried like any failure; the name shows once it has failed for good, and not before."""
    run = HandDriven()
    node = run.add(policy=Policy(retries=1))
    run.end(Outcome.TIMED_OUT)
    assert run.core.nodes[node].names.get(0) is None
    run.end(Outcome.TIMED_OUT)
    assert run.state(node) is State.FAILED
    assert run.core.nodes[node].names.get(0) == "TimedOut"


def test_a_name_is_not_kept_from_an_earlier_attempt() -> None:
    """Timed out first, then completed: Completed is all there is to say."""
    run = HandDriven()
    node = run.add(policy=Policy(retries=1))
    run.end(Outcome.TIMED_OUT)
    run.end()
    assert run.core.nodes[node].names.get(0) is None
    assert run.reason(node) == ""
    assert not run.core.nodes[node].details


def test_cached_items_have_a_name() -> None:
    """A batch from the cache is Completed and named Cached, whether it is one item or many."""
    for width in (1, 100):
        run = HandDriven()
        node = run.add(width=width, policy=Policy(batch=width))
        run.end(Outcome.CACHED)
        assert set(run.states(node)) == {State.COMPLETED}
        assert run.core.nodes[node].names[width - 1] == "Cached"
        assert run.core.nodes[node].location(width - 1) == (0, width - 1)


def test_an_item_that_fails_leaves_its_batch() -> None:
    """The others of the batch complete; the failed one is tried again alone."""
    run = HandDriven(slots=1)
    node = run.add(width=4, policy=Policy(retries=1, batch=4))
    run.end([Outcome.COMPLETED, FAILED, Outcome.SKIPPED, FAILED])
    assert run.states(node) == [State.COMPLETED, State.SUBMITTED, State.SKIPPED, State.READY]
    assert [list(batch.indices) for batch in run.batches.values()] == [[1]]
    run.end()
    assert [list(batch.indices) for batch in run.batches.values()] == [[3]]


def test_what_waits_for_its_retry_holds_no_slot() -> None:
    """Others run while a failed item waits."""
    run = HandDriven(slots=1)
    slow = run.add(policy=Policy(retries=1, delay=delays(60)))
    other = run.add()
    run.end(FAILED)
    assert run.state(slow) is State.AWAITING_RETRY
    assert run.state(other) is State.SUBMITTED
    run.wait(59.9)
    assert run.state(slow) is State.AWAITING_RETRY
    run.wait(0.1)
    assert run.state(slow) is State.READY


def test_the_mixed_results_of_a_batch_are_found() -> None:
    """Only items with a result have a location, and it is theirs."""
    run = HandDriven(slots=1)
    node = run.core.nodes[run.add(width=3, policy=Policy(batch=3))]
    run.end([Outcome.COMPLETED, FAILED, Outcome.COMPLETED])
    assert [node.location(i) for i in range(3)] == [(0, 0), None, (0, 2)]


def test_more_attempts_than_two_bytes_can_count() -> None:
    """A task that polls with Retry for weeks does not run over."""
    run = HandDriven()
    node = run.add(policy=Policy(retries=10**6))
    run.core.nodes[node].attempts[0] = 65_535
    run.core.flights[0].attempts[0] = 65_535
    run.replayed.items[node][0].spent = 65_534
    run.end(FAILED)
    assert run.attempts(node) == 65_536
