"""Single task runs that share a batch: which do, and what becomes of them however the batch ends."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.core.batching import SHORT_SECONDS
from orchestration.core.commands import CancelBatches
from orchestration.core.events import FusionRefused, LimitsKnown, SlotLent
from orchestration.core.pooling import DEADLINE_SECONDS, MAX_POOL_SECONDS, MAX_POOLED
from orchestration.core.specs import Dependency, Policy, Reach
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import Detail, Outcome

DONE, SHORT = Outcome.COMPLETED, 0.0001


def loop(n: int, *, slots: int = 1, seconds: float = SHORT, **node: Any) -> tuple[HandDriven, list[int]]:
    """Return a run in which a loop has submitted a task that takes so long n times, and the nodes."""
    run = HandDriven(slots=0)
    nodes = [run.add(task_name="t", **node) for _ in range(n)]
    run.core.nodes[nodes[0]].sizer.observe(1, seconds)
    run.tell_slots(slots)
    return run, nodes


def test_a_loop_of_submits_goes_in_one_batch() -> None:
    """Each keeps its node, attempt and place of result."""
    run, nodes = loop(5)
    (batch,) = run.batches.values()
    assert batch.node_ids == tuple(nodes)
    assert not any(fused.follows for fused in batch.fused)
    assert batch.deadline_seconds == DEADLINE_SECONDS
    run.end(seconds=SHORT)
    assert all(run.state(node) is State.COMPLETED for node in nodes)
    known = run.core.nodes
    assert [known[node].stage_in(known[node].batches[0]) for node in nodes] == [0, 1, 2, 3, 4]


def test_nothing_shares_a_batch_that_a_slot_could_begin() -> None:
    """Tasks that wait for one another find their slots, as they would without batches."""
    run, nodes = loop(3, slots=4)
    assert [batch.node_ids for batch in run.batches.values()] == [(node,) for node in nodes]


def test_what_waits_for_others_shares_no_batch() -> None:
    """One that has ended in the same batch is told when the batch ends, so it would wait for ever."""
    run, nodes = loop(3)
    run.end(seconds=SHORT)
    asker = run.add(task_name="asks")
    run.tell(SlotLent(max(run.batches)))
    run.end(seconds=SHORT)
    assert run.core.lessons()["asks"].waits
    assert not run.core.lessons()["t"].waits
    run.tell_slots(0)
    later = [run.add(task_name=name) for name in ("t", "asks", "t", "asks", "t")]
    run.tell_slots(1)
    together = {batch.node_ids for batch in run.batches.values()}
    assert all(len(ids) == 1 for ids in together if set(ids) & {later[1], later[3]})
    assert asker not in nodes


def test_what_gave_way_runs_again_without_company() -> None:
    """Its attempt is not spent, and the record says why."""
    run, (first, second, third) = loop(3)
    (batch,) = run.batches.values()
    why = Detail("", "it waited for a task run of its own batch, and runs again")
    run.end([DONE, Outcome.UNSTARTED, DONE], details={1: why}, seconds=SHORT)
    assert [run.state(node) for node in (first, third)] == [State.COMPLETED] * 2
    assert run.state(second) is State.SUBMITTED
    assert run.core.nodes[second].attempts[0] == 1
    assert f"it came back unstarted ({why.message})" in run.core.ledger.story.of(second, 0)[2]
    assert run.core.lessons()["t"].waits
    assert batch.batch_id not in run.batches


def test_slots_share_what_is_ready() -> None:
    run, _ = loop(8, slots=2)
    assert [len(batch.node_ids) for batch in run.batches.values()] == [4, 4]


def test_a_batch_has_a_most() -> None:
    run, _ = loop(2 * MAX_POOLED, seconds=1e-6)
    assert [len(batch.node_ids) for batch in run.batches.values()] == [MAX_POOLED]


def test_a_batch_is_worth_a_submission_and_not_much_more() -> None:
    """What builds upon a result waits for the whole batch."""
    run, _ = loop(60, seconds=0.01)
    (batch,) = run.batches.values()
    assert len(batch.node_ids) == MAX_POOL_SECONDS / 0.01
    run, _ = loop(3, seconds=0.004)
    (batch,) = run.batches.values()
    assert len(batch.node_ids) == 2


@pytest.mark.parametrize(
    "node",
    [
        {"policy": Policy(rerun_on_loss=False)},
        {"policy": Policy(batch=1)},
        {"tags": frozenset({"db"})},
        {"width": 2},
    ],
    ids=["once", "batch_size", "limit", "map"],
)
def test_what_does_not_share_its_batch(node: dict[str, Any]) -> None:
    run = HandDriven(slots=0)
    run.tell(LimitsKnown(frozenset({"db"})))
    nodes = [run.add(task_name="t", **node) for _ in range(4)]
    run.core.nodes[nodes[0]].sizer.observe(1, SHORT)
    run.tell_slots(1)
    assert all(len(batch.node_ids) == 1 for batch in run.batches.values())


def test_long_and_unknown_tasks_go_alone() -> None:
    run, _ = loop(4, seconds=SHORT_SECONDS)
    assert all(len(batch.node_ids) == 1 for batch in run.batches.values())
    run = HandDriven(slots=1)
    for _ in range(4):
        run.add(task_name="t")
    assert all(len(batch.node_ids) == 1 for batch in run.batches.values())


def test_others_places_and_priorities_go_apart() -> None:
    run = HandDriven(slots=0)
    nodes = [run.add(task_name="t", placement=place) for place in ("", "gpu", "gpu")]
    nodes += [run.add(task_name="t", policy=Policy(priority=1)) for _ in range(2)]
    run.core.nodes[nodes[0]].sizer.observe(1, SHORT)
    run.tell_slots(1)
    batches = [run.batches[0].node_ids]
    for _ in range(2):
        run.end(seconds=SHORT)
        batches += [batch.node_ids for batch in run.batches.values()]
    assert batches == [tuple(nodes[3:]), (nodes[0],), tuple(nodes[1:3])]


def test_each_brings_along_what_is_fused_with_it() -> None:
    run = HandDriven(slots=0)
    firsts = [run.add(task_name="t") for _ in range(2)]
    seconds = [run.add(Dependency(first, Reach.SOME, (0,)), task_name="t") for first in firsts]
    run.core.nodes[firsts[0]].sizer.observe(1, SHORT)
    run.tell_slots(1)
    (batch,) = run.batches.values()
    assert batch.node_ids == (firsts[0], seconds[0], firsts[1], seconds[1])
    assert [fused.follows for fused in batch.fused] == [True, False, True]
    run.end([Outcome.FAILED, Outcome.UNSTARTED, DONE, DONE], seconds=SHORT)
    assert [run.state(node) for node in (*firsts, *seconds)] == [
        State.FAILED,
        State.COMPLETED,
        State.UPSTREAM_FAILED,
        State.COMPLETED,
    ]


def test_a_failure_is_that_of_its_own_task_run() -> None:
    run, nodes = loop(3)
    run.end([DONE, Outcome.FAILED, DONE], seconds=SHORT)
    assert [run.state(node) for node in nodes] == [State.COMPLETED, State.FAILED, State.COMPLETED]


def test_what_comes_back_unstarted_is_ready_again() -> None:
    run, nodes = loop(3)
    run.end([DONE, Outcome.UNSTARTED, Outcome.UNSTARTED], seconds=SHORT)
    assert [run.attempts(node) for node in nodes] == [1, 1, 1]
    assert run.batches[1].node_ids == tuple(nodes[1:])
    run.finish_all()
    assert all(run.state(node) is State.COMPLETED for node in nodes)


def test_what_is_behind_a_slow_one_is_handed_back() -> None:
    """Its worker has promised not to start it, so that others may, while the slow one still runs."""
    run, nodes = loop(3)
    run.progress(0, 1, outcomes=bytes([DONE]), closed=True)
    assert [run.state(node) for node in nodes] == [State.RUNNING, State.RUNNING, State.READY]
    run.progress(0, 1, outcomes=bytes([DONE]), closed=True)  # it may be told again
    run.tell_slots(2)
    run.end(batch_id=1, seconds=SHORT)
    assert run.state(nodes[2]) is State.COMPLETED
    run.end([DONE, DONE, Outcome.UNSTARTED], batch_id=0, seconds=SHORT)
    assert [run.attempts(node) for node in nodes] == [1, 1, 1]
    assert all(run.state(node) is State.COMPLETED for node in nodes)


def test_a_slow_one_can_be_cancelled_when_the_others_are_gone() -> None:
    run, nodes = loop(3)
    run.progress(0, 1, outcomes=bytes([DONE]))
    run.cancel(nodes[1])
    assert not run.all_said(CancelBatches)  # the others would suffer
    run.progress(0, 1, outcomes=bytes([DONE]), closed=True)
    (stop,) = run.all_said(CancelBatches)
    assert stop.batch_ids == (0,)


def test_only_what_may_have_killed_the_worker_is_charged() -> None:
    """What ended before pays for its loss, what runs is suspected, what had not begun is free. They go alone then."""
    run, nodes = loop(4)
    run.progress(0, 2, outcomes=bytes([DONE, DONE]))
    run.lose(0)
    run.tell_slots(4)
    assert [batch.node_ids for batch in run.batches.values()] == [(node,) for node in nodes]
    spent = [run.core.nodes[node].known.spent[0] for node in nodes]
    assert [each.losses for each in spent] == [1, 1, 1, 0]
    assert [each.suspicious for each in spent] == [False, False, True, True]


def test_what_cannot_be_packed_is_left_to_itself() -> None:
    run, nodes = loop(3)
    run.tell(FusionRefused(0))
    assert [run.state(node) for node in nodes] == [State.SUBMITTED, State.READY, State.READY]


def test_what_is_cancelled_before_it_starts_never_does() -> None:
    run, nodes = loop(3)
    run.cancel(nodes[1])
    run.end([DONE, Outcome.UNSTARTED, DONE], seconds=SHORT)
    assert [run.state(node) for node in nodes] == [State.COMPLETED, State.CANCELLED, State.COMPLETED]
