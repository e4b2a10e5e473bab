"""Limits: asked for in good measure, shared with ancestors, given back on every end."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.core.commands import AskLeases, SubmitBatch, WithdrawLeases
from orchestration.core.events import LimitsKnown, PauseRequested, ResumeRequested, RunInterrupted
from orchestration.core.journal import LeasesReturned, Moved
from orchestration.core.specs import INLINE, Policy
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import BatchRejected, Detail, Outcome

DB = frozenset({"db"})
ONE = Policy(batch=1)


def driven(slots: int = 2, *names: str) -> HandDriven:
    run = HandDriven(slots=slots)
    run.tell(LimitsKnown(frozenset(names or ("db",))))
    return run


def returned(run: HandDriven) -> list[str]:
    return [holder for entry in run.all_said(LeasesReturned) for holder in entry.holders]


def test_leases_are_asked_for_before_the_batch_goes() -> None:
    """The batch is formed, asks with the item's name, and goes when granted."""
    run = driven()
    node = run.add(tags=DB | {"other"})
    assert run.all_said(AskLeases) == [AskLeases(0, ("db",), "t0")]
    assert run.state(node) is State.READY
    run.answer(0, True)
    assert run.state(node) is State.SUBMITTED


def test_who_is_in_the_way_is_told() -> None:
    """AwaitingLimit names the limit and its holders."""
    run = driven()
    node = run.add(tags=DB)
    run.answer(0, False, db=["load acme", "load globex"])
    assert run.state(node) is State.AWAITING_LIMIT
    moved = run.all_said(Moved)[-1]
    assert moved.reason == "waits for limit db, held by load acme and 1 more"
    run.answer(0, False, db=["somebody else"])
    run.answer(0, True)
    assert run.state(node) is State.SUBMITTED


def test_a_limit_whose_holders_are_unknown() -> None:
    """The limit alone is named."""
    run = driven()
    run.add(tags=DB)
    run.answer(0, False, db=[])
    assert run.all_said(Moved)[-1].reason == "waits for limit db"


def test_a_limit_that_is_taken_does_not_keep_slots_empty() -> None:
    """While limited batches wait, others have the slots."""
    run = driven(slots=1)
    run.add(tags=DB)
    free = run.add()
    assert run.state(free) is State.READY
    run.answer(0, False, db=["x"])
    assert run.state(free) is State.SUBMITTED


def test_asks_are_bounded() -> None:
    """However many nodes are limited, at most one batch per slot asks or waits for the same limits."""
    run = driven(slots=2)
    nodes = [run.add(tags=DB, width=10, policy=ONE) for _ in range(20)]
    assert len(run.all_said(AskLeases)) == 2
    for batch_id in (0, 1):
        run.answer(batch_id, False, db=["x"])
    assert len(run.all_said(AskLeases)) == 2
    assert sum(run.core.nodes[n].counts[State.AWAITING_LIMIT] for n in nodes) == 2


def test_everything_limited_is_run_in_the_end() -> None:
    """Each answer lets the next batch ask, until nothing is left."""
    run = driven(slots=2)
    nodes = [run.add(tags=DB, width=3, policy=ONE) for _ in range(5)]
    for _ in range(100):
        if run.asks:
            run.answer(min(run.asks), True)
        if run.batches:
            run.end()
    assert all(set(run.states(n)) == {State.COMPLETED} for n in nodes)
    assert sorted(returned(run)) == sorted(f"run/batch/{i}" for i in range(15))


def test_a_parked_node_is_not_forgotten_when_the_one_before_it_is_cancelled() -> None:
    """The turn to ask goes on to the next, wherever the one whose turn it was has gone."""
    run = driven(slots=1)
    first, second, third = (run.add(tags=DB) for _ in range(3))
    run.answer(0, False, db=["x"])
    run.answer(0, True)
    assert run.state(first) is State.SUBMITTED
    run.cancel(second)
    run.end()
    run.answer(min(run.asks), True)
    assert run.state(third) is State.SUBMITTED


def test_parked_nodes_that_were_cancelled_are_passed_over() -> None:
    """The next turn goes to one that still has something to run."""
    run = driven(slots=1)
    nodes = [run.add(tags=DB) for _ in range(4)]
    run.answer(0, False, db=["x"])
    for node in nodes[1:3]:
        run.cancel(node)
    run.answer(0, True)
    run.end()
    assert [ask.label for ask in run.asks.values()] == ["t3"]


def test_more_slots_let_more_ask() -> None:
    """A cluster that grows wakes parked nodes."""
    run = driven(slots=1)
    for _ in range(3):
        run.add(tags=DB)
    run.answer(0, False, db=["x"])
    run.tell_slots(3)
    assert len(run.asks) == 3


def test_a_limit_that_is_removed_frees_parked_nodes() -> None:
    """Without a limit there is nothing to ask for."""
    run = driven(slots=2)
    nodes = [run.add(tags=DB) for _ in range(6)]
    for batch_id in (0, 1):
        run.answer(batch_id, False, db=["x"])
    run.tell(LimitsKnown(frozenset()))
    assert [run.state(n) for n in nodes[2:4]] == [State.SUBMITTED] * 2


def test_what_ancestors_hold_is_shared() -> None:
    """A task under a limit that submits tasks under the same limit does not wait for itself."""
    run = driven(3, "api", "db")
    parent = run.add(tags=DB)
    run.answer(0, True)
    child = run.add(tags=DB, parent=(parent, 0))
    grandchild = run.add(tags=DB | {"api"}, parent=(child, 0))
    assert run.state(child) is State.SUBMITTED
    assert [ask.names for ask in run.asks.values()] == [("api",)]
    assert run.state(grandchild) is State.READY


@pytest.mark.parametrize(
    "ending",
    [
        lambda run: run.end(),
        lambda run: run.end(Outcome.FAILED),
        lambda run: run.end(Outcome.UNSTARTED),
        lambda run: run.lose(),
        lambda run: run.tell(BatchRejected(0, Detail(retriable=False))),
    ],
    ids=["completed", "failed", "unstarted", "lost", "rejected"],
)
def test_leases_are_returned_on_every_end(ending: Any) -> None:
    """The lease ends with the entry that ends the batch, however it ends."""
    run = driven()
    run.add(tags=DB)
    run.answer(0, True)
    assert returned(run) == []
    ending(run)
    assert returned(run) == ["run/batch/0"]


@pytest.mark.parametrize("granted", [None, False], ids=["unanswered", "refused"])
@pytest.mark.parametrize(
    "ending",
    [lambda run: run.cancel(0), lambda run: run.tell(RunInterrupted("x")), lambda run: run.cancel()],
    ids=["cancelled", "interrupted", "run cancelled"],
)
def test_asks_of_what_will_not_run_are_withdrawn(granted: bool | None, ending: Any) -> None:
    """Nothing waits at the store for a batch that is gone."""
    run = driven()
    run.add(tags=DB)
    if granted is not None:
        run.answer(0, granted, db=["x"])
    ending(run)
    assert run.all_said(WithdrawLeases) == [WithdrawLeases((0,))]
    assert run.core.asking == 0


def test_a_grant_that_crosses_with_a_withdrawal_is_given_back() -> None:
    """No lease is left behind by a race between the coordinator and the store."""
    run = driven()
    run.add(tags=DB)
    run.cancel(0)
    assert run.answer(0, True) == [WithdrawLeases((0,))]
    assert run.answer(0, False) == []


def test_cancelling_some_items_of_a_waiting_batch() -> None:
    """The batch is given up, its other items ask again."""
    run = driven(slots=1)
    node = run.add(width=3, tags=DB, policy=Policy(batch=3))
    run.answer(0, False, db=["x"])
    run.cancel(node, 1)
    assert run.states(node) == [State.READY, State.CANCELLED, State.READY]
    assert list(run.asks) == [1]
    run.answer(1, True)
    assert [list(batch.indices) for batch in run.batches.values()] == [[0, 2]]


def test_a_pause_withdraws_and_a_resume_asks_again() -> None:
    """A paused run holds nobody up."""
    run = driven()
    node = run.add(tags=DB)
    run.answer(0, False, db=["x"])
    run.tell(PauseRequested())
    assert run.state(node) is State.PAUSED
    run.tell(ResumeRequested())
    run.answer(1, True)
    assert run.state(node) is State.SUBMITTED


def test_a_directly_called_task_asks_as_well() -> None:
    """Without a slot, but not without its lease."""
    run = driven(slots=0)
    node = run.add(tags=DB, runner=INLINE)
    assert run.state(node) is State.READY
    run.answer(0, True)
    assert [command.runner for command in run.all_said(SubmitBatch)] == [INLINE]
