"""Fused batches: which nodes ride along, and what becomes of their items however the batch ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestration.core.batching import PREFETCH_SECONDS, SHORT_SECONDS
from orchestration.core.commands import CancelBatches, SubmitBatch
from orchestration.core.events import FusionRefused, LimitsKnown
from orchestration.core.journal import LOST, AttemptsEnded, LogWritten, StartRepeated
from orchestration.core.retry import COMPANY
from orchestration.core.specs import Dependency, Policy, Reach
from orchestration.core.states import State
from orchestration.core.triggers import all_finished
from orchestration.testing.handdriven import HandDriven
from runners.messages import BatchStarted, Detail, LogLine, Outcome

DONE, SHORT = Outcome.COMPLETED, 0.001


def warm(run: HandDriven, *nodes: int) -> None:
    """Let the coordinator know that the items of these nodes are short."""
    for node in nodes:
        run.core.nodes[node].sizer.observe(1, SHORT)


def two_maps(
    width: int = 2, first: dict[str, Any] | None = None, **second: Any
) -> tuple[HandDriven, int, int, SubmitBatch]:
    """Return a run with a map over a map, their nodes, and the batch with the first of their items."""
    run = HandDriven(slots=0)
    up = run.add(width=width, **{"policy": Policy(batch=width if width > 1 else None), **(first or {})})
    down = run.add(Dependency(up, Reach.ALIGNED), width=width, **second)
    warm(run, up, down)
    run.tell_slots(1)
    (batch,) = run.batches.values()
    return run, up, down, batch


def test_a_map_over_a_map_goes_in_one_batch() -> None:
    """Items of both nodes are at the engine, each has its attempt, state and place of result."""
    run, up, down, batch = two_maps()
    assert batch.node_ids == (up, down)
    assert batch.deadline_seconds is not None
    assert run.states(down) == [State.SUBMITTED] * 2
    run.end(seconds=SHORT)
    assert run.states(up) == run.states(down) == [State.COMPLETED] * 2
    nodes = run.core.nodes
    assert [nodes[n].stage_in(nodes[n].batches[1]) for n in (up, down)] == [0, 1]
    assert [end.node_id for end in run.all_said(AttemptsEnded)] == [up, down]


def test_a_chain_of_single_tasks_goes_in_one_batch() -> None:
    run = HandDriven(slots=0)
    nodes = [run.add()]
    for _ in range(3):
        nodes.append(run.add(Dependency(nodes[-1], Reach.SOME, (0,))))
    warm(run, *nodes)
    run.tell_slots(1)
    assert run.batches[0].node_ids == tuple(nodes)
    run.end(seconds=SHORT)
    assert all(run.state(node) is State.COMPLETED for node in nodes)


def chain_of_three(seconds: float, width: int = 1) -> tuple[HandDriven, list[int]]:
    """Return a run without slots that has three nodes, each on the one before, of items that take so long."""
    run = HandDriven(slots=0)
    nodes = [run.add(width=width)]
    for _ in range(2):
        reach = (
            Dependency(nodes[-1], Reach.SOME, (0,)) if width == 1 else Dependency(nodes[-1], Reach.ALIGNED)
        )
        nodes.append(run.add(reach, width=width))
    for node in nodes:
        run.core.nodes[node].sizer.observe(1, seconds)
    return run, nodes


@pytest.mark.parametrize(
    ("seconds", "width", "fused"),
    [(SHORT_SECONDS * 2, 1, 3), (PREFETCH_SECONDS * 2, 1, 1), (SHORT_SECONDS * 2, 2, 1)],
    ids=["longer", "long", "maps"],
)
def test_longer_items_are_fused_where_they_are_single(seconds: float, width: int, fused: int) -> None:
    """No slot could begin them sooner, and each would wait for a round trip. Items of maps have others beside them."""
    run, nodes = chain_of_three(seconds, width)
    run.tell_slots(1)
    assert run.batches[0].node_ids == tuple(nodes[:fused])


def test_longer_items_are_not_fused_where_the_chain_branches() -> None:
    """Two that wait for the same may run side by side; one that waits for two is at hand only when both have ended."""
    run, (first, second, third) = chain_of_three(SHORT_SECONDS * 2)
    fourth = run.add(Dependency(second, Reach.SOME, (0,)), Dependency(run.add(), Reach.SOME, (0,)))
    run.core.nodes[fourth].sizer.observe(1, SHORT_SECONDS * 2)
    run.tell_slots(1)
    assert run.batches[0].node_ids == (first, second)
    run.end(seconds=SHORT_SECONDS)
    assert run.state(second) is State.COMPLETED
    assert run.state(third) is not State.COMPLETED


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"tags": frozenset({"db"})}),
        ({}, {"placement": "on a GPU"}),
        ({}, {"policy": Policy(timeout_seconds=1.0)}),
        ({}, {"policy": Policy(rerun_on_loss=False)}),
        ({}, {"policy": Policy(trigger=all_finished)}),
        ({}, {"policy": Policy(priority=1)}),
        ({}, {"policy": Policy(batch=1)}),
        ({"persists": True}, {}),
        ({"policy": Policy(timeout_seconds=1.0, batch=2)}, {}),
    ],
    ids=["limit", "place", "timeout", "permit", "trigger", "priority", "batch", "stored", "timeout first"],
)
def test_what_must_not_share_a_batch_does_not(first: dict[str, Any], second: dict[str, Any]) -> None:
    run = HandDriven(slots=0)
    run.tell(LimitsKnown(frozenset({"db"})))
    up = run.add(width=2, **{"policy": Policy(batch=2), **first})
    down = run.add(Dependency(up, Reach.ALIGNED), width=2, **second)
    warm(run, up, down)
    run.tell_slots(1)
    assert run.batches[0].node_ids == (up,)
    assert run.states(down) == [State.PENDING] * 2


def test_long_and_unknown_items_are_not_fused() -> None:
    """A task that takes an hour gains nothing from a shared batch, and would hold back what came before it."""
    for seconds in (None, 3600.0):
        run = HandDriven(slots=0)
        up, down = run.add(width=2), run.add(Dependency(0, Reach.ALIGNED), width=2)
        warm(run, up)
        if seconds is not None:
            run.core.nodes[down].sizer.observe(1, seconds)
        run.tell_slots(1)
        assert run.batches[0].node_ids == (up,)


def test_a_failure_keeps_what_rode_behind_it_from_running() -> None:
    """The others of the batch go on; the item behind the failure never ran and has spent nothing."""
    run, up, down, _ = two_maps()
    run.end([Outcome.FAILED, Outcome.UNSTARTED, DONE, DONE], seconds=SHORT)
    assert run.states(up) == [State.FAILED, State.COMPLETED]
    assert run.states(down) == [State.UPSTREAM_FAILED, State.COMPLETED]
    assert run.attempts(down, 0) == 0


def test_a_retry_resumes_at_the_failed_stage() -> None:
    run, up, down, _ = two_maps(width=1, policy=Policy(retries=1))
    run.end([DONE, Outcome.FAILED], seconds=SHORT)
    assert run.state(up) is State.COMPLETED
    (again,) = run.batches.values()
    assert (again.node_ids, list(again.attempts)) == ((down,), [2])


def test_a_retry_of_the_first_stage_runs_alone() -> None:
    """What has failed before shall not take others with it."""
    run, up, down, _ = two_maps(width=1, first={"policy": Policy(retries=1)})
    run.end([Outcome.FAILED, Outcome.UNSTARTED], seconds=SHORT)
    (again,) = run.batches.values()
    assert again.node_ids == (up,)
    run.end(seconds=SHORT)
    assert run.attempts(down) == 1


def test_a_tail_that_came_back_between_stages_goes_on_there() -> None:
    """The deadline was over after the first stage: the second runs in a batch of its own."""
    run, up, down, _ = two_maps()
    run.end([DONE, Outcome.UNSTARTED, Outcome.UNSTARTED, Outcome.UNSTARTED], seconds=SHORT)
    assert run.state(up, 0) is State.COMPLETED
    assert run.state(down, 0) in (State.READY, State.SUBMITTED)
    while run.batches:
        run.end(seconds=SHORT)
    assert run.states(down) == [State.COMPLETED] * 2


def test_a_loss_is_charged_to_those_that_ran() -> None:
    """The first item had gone through both stages, the second had not begun."""
    run, up, down, batch = two_maps()
    run.progress(batch.batch_id, 1, outcomes=bytes([DONE]))
    assert run.states(down) == [State.RUNNING, State.SUBMITTED]
    run.lose(batch.batch_id)
    lost = [(end.node_id, list(end.indices), list(end.outcomes)) for end in run.all_said(AttemptsEnded)]
    assert lost == [(down, [0], [LOST]), (up, [0], [LOST])]
    assert run.states(down) == [State.PENDING] * 2
    assert (run.attempts(down, 0), run.attempts(down, 1)) == (1, 0)
    while run.batches:
        (again,) = run.batches.values()
        assert len(again.indices) == 1
        run.end(seconds=SHORT)
    assert run.states(down) == [State.COMPLETED] * 2


def test_what_rides_is_cancelled_alone() -> None:
    """Its upstream goes on, and is not interrupted for it."""
    run, up, down, _ = two_maps()
    run.cancel(down)
    assert not run.all_said(CancelBatches)
    run.end([DONE, DONE, DONE, Outcome.UNSTARTED], seconds=SHORT)
    assert run.states(up) == [State.COMPLETED] * 2
    assert run.states(down) == [State.COMPLETED, State.CANCELLED]


def test_cancelling_the_first_stage_stops_the_batch() -> None:
    run, up, _, batch = two_maps()
    run.cancel(up)
    (stop,) = run.all_said(CancelBatches)
    assert stop.batch_ids == (batch.batch_id,)


def test_what_runs_in_a_later_stage_can_be_stopped() -> None:
    run, up, down, batch = two_maps(width=1)
    run.progress(batch.batch_id, 1, outcomes=bytes([DONE]))
    run.cancel(down)
    assert run.all_said(CancelBatches)
    run.end([DONE, Outcome.CANCELLED], seconds=SHORT)
    assert (run.state(up), run.state(down)) == (State.COMPLETED, State.CANCELLED)


def test_a_stage_that_does_not_stop_gives_the_others_back() -> None:
    """The result of the stage before is locked in the batch: it runs again."""
    run, up, down, batch = two_maps(width=1)
    run.progress(batch.batch_id, 1, outcomes=bytes([DONE]))
    run.cancel(down)
    run.wait(6.0)
    assert run.state(down) is State.CANCELLED
    assert run.state(up) is State.READY  # until the code that does not stop lets go of the slot
    run.end([DONE, Outcome.CANCELLED], batch.batch_id, seconds=SHORT)
    run.end(seconds=SHORT)
    assert (run.state(up), run.attempts(up)) == (State.COMPLETED, 2)


def test_a_large_fused_batch_that_is_lost_does_not_run_item_by_item() -> None:
    """What was lost among many is no more suspicious for having shared its batch."""
    width = 10 * COMPANY
    run, up, _, _ = two_maps(width)
    run.lose()
    spent = run.core.nodes[up].known.spent
    assert sum(spent[i].suspicious for i in range(width)) == 1  # the first, which had begun
    assert sum(spent[i].wary for i in range(width)) == width - 1


def test_what_cannot_be_packed_stays_behind() -> None:
    """The driver sends the batch without it; it waits as before and shows its own mistake later."""
    run, up, down, batch = two_maps()
    run.tell(FusionRefused(batch.batch_id))
    assert run.states(down) == [State.PENDING] * 2
    del run.batches[batch.batch_id]
    run.tell_finished(run.table(replace(batch, fused=()), seconds=SHORT))
    assert run.states(up) == [State.COMPLETED] * 2
    assert set(run.states(down)) <= {State.READY, State.SUBMITTED}


def test_an_item_that_could_not_be_stopped_lets_its_riders_off() -> None:
    run, up, down, batch = two_maps()
    detail = Detail("TaskTimeoutError", "too slow", abandoned=True)
    run.progress(batch.batch_id, 0, outcomes=bytes([Outcome.TIMED_OUT]), details={0: detail})
    assert run.state(up, 0) is State.FAILED
    assert run.state(down, 0) is State.UPSTREAM_FAILED


def test_log_lines_are_those_of_their_stage() -> None:
    run, up, down, batch = two_maps(width=1)
    lines = [LogLine(n, 0, n, 0.0, 20, "l", f"stage {n}") for n in (0, 1)]
    run.progress(batch.batch_id, 1, outcomes=bytes([DONE]), logs=lines)
    found = {entry.node_id: [line.message for line in entry.lines] for entry in run.all_said(LogWritten)}
    assert found == {up: ["stage 0"], down: ["stage 1"]}


def test_a_second_execution_is_recorded_for_each_stage() -> None:
    """An engine that computes a fused batch again starts the code of all its stages again."""
    run, up, down, batch = two_maps()
    run.end(seconds=SHORT)
    run.tell(BatchStarted(batch.batch_id, "again", "w", run.now))
    said = [(entry.node_id, list(entry.indices)) for entry in run.all_said(StartRepeated)]
    assert said == [(up, [0, 1]), (down, [0, 1])]
