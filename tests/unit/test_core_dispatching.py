"""Which batches go while all slots are busy, and in which order nodes take their turns."""

from __future__ import annotations

import pytest

from orchestration.core.batching import MAX_AHEAD
from orchestration.core.specs import Dependency, Policy, Reach
from orchestration.testing.handdriven import HandDriven


def busy(seconds: float) -> HandDriven:
    """Return a run on one slot that has two batches at its engine at most, and knows what task `t` takes."""
    run = HandDriven(slots=1, prefetch=2)
    run.add(task_name="t")
    run.end(seconds=seconds)
    return run


def test_single_task_runs_are_prefetched_one_after_the_other() -> None:
    """Nodes of one item each that were used up do not stand in the way of the next."""
    run = busy(0.04)
    for _ in range(6):
        run.add(task_name="t")
    for _ in range(4):
        assert len(run.batches) == 2
        run.end(seconds=0.04)


def test_a_single_task_run_is_no_crumb() -> None:
    """Nothing will come to fill up its batch, so it goes though it is short."""
    run = busy(0.004)
    for _ in range(3):
        run.add(task_name="t")
    assert len(run.batches) == 2


def test_single_task_runs_that_take_next_to_no_time_go_ahead_in_numbers() -> None:
    """A slot has as many of them as take 5 ms together, but not more than 16, where they may not share batches."""
    once = Policy(rerun_on_loss=False)
    run = busy(0.0005)
    for _ in range(30):
        run.add(task_name="t", policy=once)
    assert len(run.batches) == 10
    run = busy(1e-6)
    for _ in range(30):
        run.add(task_name="t", policy=once)
    assert len(run.batches) == MAX_AHEAD
    run = busy(1e-6)
    run.add(width=10_000, task_name="t")
    assert len(run.batches) == 2


def test_a_crumb_of_a_map_waits_for_more() -> None:
    """While all slots are busy, a few short items of a map wait for those that are about to become ready."""
    run = busy(0.001)
    run.tell_slots(2)
    upstream = run.add(width=2, task_name="long")
    run.add(Dependency(upstream, Reach.ALIGNED), width=2, task_name="t")
    urgent = run.add(task_name="urgent", policy=Policy(priority=1))
    run.end()
    assert [batch.node_id for batch in run.batches.values()] == [upstream, urgent]


@pytest.mark.parametrize(
    ("seconds", "width", "batches"), [(0.4, 1, 2), (0.6, 1, 1), (0.4, 20, 1), (0.2, 20, 2)]
)
def test_longer_single_task_runs_are_prefetched_than_items_of_maps(
    seconds: float, width: int, batches: int
) -> None:
    run = busy(seconds)
    for _ in range(20 // width):
        run.add(task_name="t", width=width)
    assert len(run.batches) == batches
