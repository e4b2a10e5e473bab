"""Losses: a budget of their own, and no loop without an end."""

from __future__ import annotations

import pytest

from orchestration.core.journal import LOST, AttemptsEnded
from orchestration.core.records import Spent
from orchestration.core.retry import COMPANY, FREE_LOSSES, QUEUE_LOSSES, charge_loss
from orchestration.core.specs import Policy
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import Outcome


def test_a_loss_spends_no_retry() -> None:
    """A task without retries that was lost with its worker runs again, and the record says so."""
    run = HandDriven()
    node = run.add()
    run.start()
    run.lose()
    assert run.state(node) is State.SUBMITTED
    assert run.attempts(node) == 2
    (end,) = run.all_said(AttemptsEnded)
    assert (list(end.outcomes), end.reason) == ([LOST], "the worker has died")
    run.end(Outcome.FAILED)
    assert run.state(node) is State.FAILED


def test_the_budget_for_losses_ends() -> None:
    """An item that takes its worker down each time is Crashed after retries_on_loss + 1 deaths."""
    run = HandDriven()
    node = run.add(policy=Policy(retries=9, retries_on_loss=2))
    for _ in range(3):
        run.start()
        run.lose()
    assert run.state(node) is State.CRASHED
    assert run.reason(node) == "the worker has died"
    assert run.core.nodes[node].details[0].type_name.endswith("CrashedRunError")


def test_an_item_alone_on_a_dead_worker_is_the_suspect() -> None:
    """With no live event at all, an item that was alone with a worker that died pays for it."""
    run = HandDriven()
    node = run.add(policy=Policy(retries_on_loss=1))
    run.lose()
    run.lose()
    assert run.state(node) is State.CRASHED


def test_what_had_not_started_pays_nothing() -> None:
    """Of a lost batch, items behind the one that ran keep their attempt and their budget."""
    run = HandDriven(slots=1)
    node = run.add(width=4, policy=Policy(batch=4, retries_on_loss=0))
    run.progress(0, 1)
    run.lose()
    assert run.states(node)[:2] == [State.CRASHED] * 2
    assert run.states(node)[2:] == [State.SUBMITTED, State.READY]
    assert run.attempts(node, 2) == 1
    assert run.attempts(node, 3) == 0


def test_after_a_death_items_run_alone() -> None:
    """A batch that died without a word is run again one by one, so that its killer shows itself."""
    run = HandDriven(slots=1)
    run.add(width=3, policy=Policy(batch=3))
    run.lose()
    sizes = []
    while run.batches:
        sizes.append([list(batch.indices) for batch in run.batches.values()])
        run.end()
    assert sorted(sizes) == [[[0]], [[1]], [[2]]]


def test_after_a_death_many_items_run_in_small_batches() -> None:
    """Of a large batch each is hardly suspected: one by one they would take far longer than a worker to start."""
    run = HandDriven(slots=1)
    node = run.add(width=1000, policy=Policy(batch=1000))
    run.lose()
    sizes = []
    while run.batches:
        (batch,) = run.batches.values()
        sizes.append(len(batch.indices))
        run.end()
    assert run.states(node) == [State.COMPLETED] * 1000
    assert sorted(sizes) == [1, 7] + [COMPANY] * 31


def test_who_kills_in_a_large_batch_is_alone_at_the_third_death() -> None:
    """In a small batch at the second, and that costs only those few an attempt by themselves."""
    run = HandDriven(slots=1)
    node = run.add(width=1000, policy=Policy(batch=1000, retries_on_loss=1))
    deaths, alone = 0, 0
    while run.batches:
        (batch,) = run.batches.values()
        alone += len(batch.indices) == 1
        if 500 in batch.indices:
            run.lose()
            deaths += 1
        else:
            run.end()
    assert (deaths, alone) == (4, 1 + COMPANY + 1)
    assert [i for i, state in enumerate(run.states(node)) if state is not State.COMPLETED] == [500]
    assert run.state(node, 500) is State.CRASHED


def test_what_is_known_to_have_ended_is_not_suspected() -> None:
    """It did not kill the worker; what ran then may have, and the few behind it."""
    run = HandDriven(slots=1)
    run.add(width=10, policy=Policy(batch=10))
    run.progress(0, 6)
    run.lose()
    sizes = []
    while run.batches:
        (batch,) = run.batches.values()
        sizes.append(list(batch.indices))
        run.end()
    assert sorted(sizes) == [[0, 1, 2, 3, 4, 5], [6], [7], [8], [9]]


def test_a_batch_that_was_only_queued_stays_a_batch() -> None:
    """Its worker died before it began: nobody is suspected."""
    run = HandDriven(slots=1)
    run.add(width=3, policy=Policy(batch=3))
    run.lose(suspect=False)
    assert [list(batch.indices) for batch in run.batches.values()] == [[0, 1, 2]]
    assert list(run.batches[1].attempts) == [1, 1, 1]


@pytest.mark.parametrize("rerun", [True, False])
@pytest.mark.parametrize("suspect", [True, False])
def test_losses_without_evidence_do_not_go_on_for_ever(rerun: bool, suspect: bool) -> None:
    """A batch that dies each time before anything is heard of it ends as Crashed."""
    run = HandDriven(slots=1)
    node = run.add(width=2, policy=Policy(batch=2, retries_on_loss=3, rerun_on_loss=rerun))
    losses = 0
    while run.batches:
        run.lose(suspect=suspect)
        losses += 1
        assert losses < 1000
    assert run.states(node) == [State.CRASHED] * 2
    most = (FREE_LOSSES if suspect else QUEUE_LOSSES) + 4
    assert losses <= 2 * most


def test_what_never_started_may_start_even_where_nothing_may_run_twice() -> None:
    """Beyond what is free, such losses are charged, and the item runs again until its budget ends."""
    spent, policy = Spent(), Policy(rerun_on_loss=False, retries_on_loss=2)
    charged = [charge_loss(spent, policy, started=False, suspect=True) for _ in range(FREE_LOSSES + 3)]
    assert charged == [None] * FREE_LOSSES + [True, True, False]
    assert charge_loss(Spent(), policy, started=True, suspect=True) is False


def test_lost_inputs_are_not_the_items_fault() -> None:
    """An item whose upstream result could not be read has not failed; it is tried again, within limits."""
    run = HandDriven()
    node = run.add(policy=Policy(retries_on_loss=1, rerun_on_loss=False))
    run.end(Outcome.INPUT_LOST)
    assert run.state(node) is State.SUBMITTED
    run.end(Outcome.INPUT_LOST)
    assert run.state(node) is State.CRASHED


def test_a_batch_that_the_engine_stopped_by_itself_is_a_loss() -> None:
    """Nobody asked for it: the item runs again."""
    run = HandDriven()
    node = run.add(policy=Policy(retries_on_loss=1))
    run.end(Outcome.CANCELLED)
    assert run.state(node) is State.SUBMITTED
    run.end()
    assert run.state(node) is State.COMPLETED


def test_an_unstarted_tail_spends_nothing() -> None:
    """A batch over its deadline returns what it did not begin; that runs later as its first attempt."""
    run = HandDriven(slots=1)
    node = run.add(width=4, policy=Policy(batch=4))
    run.end([Outcome.COMPLETED, Outcome.COMPLETED, Outcome.UNSTARTED, Outcome.UNSTARTED])
    assert [list(batch.indices) for batch in run.batches.values()] == [[2, 3]]
    assert list(run.batches[1].attempts) == [1, 1]
    assert run.moves(node)[-2:] == [(State.READY, [2, 3]), (State.SUBMITTED, [2, 3])]
    (end,) = run.all_said(AttemptsEnded)
    assert end.indices == [0, 1]


def test_must_not_run_twice() -> None:
    """rerun_on_loss=False: what has started is Crashed with its worker, what has not may still start."""
    run = HandDriven(slots=1)
    node = run.add(width=3, policy=Policy(batch=3, rerun_on_loss=False))
    run.start()
    run.permit(0, 0)
    run.lose()
    assert run.states(node) == [State.CRASHED, State.SUBMITTED, State.READY]
    run.permit(1, 0)
    run.end()
    run.permit(2, 0)
    run.end()
    assert run.states(node) == [State.CRASHED, State.COMPLETED, State.COMPLETED]
