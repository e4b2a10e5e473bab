"""What every store tells of a run's time. Part of `store_contract.StoreContract`."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from runners.messages import Outcome

from ..core.journal import LOST, AttemptsEnded, Counted
from ..core.states import State
from ..errors import RunNotFoundError
from ..stores.base import Store
from .store_entries import NOW, counts, ended, new_run, node


def batch(
    batch_id: int,
    indices: range,
    *,
    submitted: float,
    started: float,
    seconds: float,
    heard: float,
    node_id: int = 0,
) -> AttemptsEnded:
    """One batch whose items ran one after another, each so long; times are since NOW."""
    n = len(indices)
    return replace(
        ended(node_id, indices, batch_id=batch_id),
        at=NOW + heard,
        started=array("d", [NOW + started + k * seconds for k in range(n)]),
        durations=array("d", [seconds] * n),
        submitted_at=NOW + submitted,
        cpu_seconds=n * seconds / 2,
    )


class TimingContract:
    """Where the time of a run went can be read from its record."""

    def test_the_time_of_a_batch(self, store: Store) -> None:
        """On its way, in user code, around it, and back."""
        run_id = new_run(store)
        first = batch(0, range(4), submitted=1, started=1.5, seconds=0.5, heard=4)
        gap = array(
            "d", [*first.started[:3], NOW + 3.25]
        )  # the worker took a quarter of a second between two
        store.append(
            run_id, 1, [replace(first, started=gap), Counted(0, counts(completed=4), (6.0, 1.0, 0.5))]
        )
        (row,) = store.timing(run_id).nodes
        assert (row.node.task_name, row.attempts, row.started, row.ended) == (
            "task",
            4,
            NOW + 1.5,
            NOW + 3.75,
        )
        assert (row.code_seconds, row.cpu_seconds) == (2.0, 1.0)
        assert (row.delivery_seconds, row.worker_seconds, row.return_seconds) == (0.5, 0.25, 0.25)
        assert (row.slot_wait_seconds, row.limit_wait_seconds, row.retry_wait_seconds) == (6.0, 1.0, 0.5)
        assert (row.batches, row.batch_median, row.batch_largest) == (1, 4, 4)

    def test_the_time_of_the_slots(self, store: Store) -> None:
        """Two slots for four seconds: what was not user code was the workers', the engine's or idle."""
        run_id = new_run(store)
        store.append(run_id, 1, [batch(0, range(2), submitted=0, started=1, seconds=1, heard=3)])
        store.append(run_id, 1, [batch(1, range(2, 3), submitted=0, started=2, seconds=1, heard=4)])
        told = store.timing(run_id)
        assert (told.slots, told.wall_seconds, told.code_seconds, told.worker_seconds) == (2, 4.0, 3.0, 0.0)
        assert (told.engine_seconds, told.idle_seconds) == (4.0, 1.0)

    def test_batches_that_follow_each_other_share_a_slot(self, store: Store) -> None:
        """Slots are counted by what ran at once, not by what was submitted at once."""
        run_id = new_run(store)
        for k in range(3):
            store.append(
                run_id, 1, [batch(k, range(k, k + 1), submitted=0, started=k, seconds=1, heard=k + 1)]
            )
        told = store.timing(run_id)
        assert (told.slots, told.wall_seconds, told.code_seconds, told.engine_seconds) == (1, 3.0, 3.0, 0.0)

    def test_what_retries_cost(self, store: Store) -> None:
        """The time of attempts after which their item had to run again."""
        run_id = new_run(store)
        store.append(
            run_id,
            1,
            [
                ended(0, [0, 1], State.AWAITING_RETRY, Outcome.FAILED, batch_id=0),
                ended(0, [0], batch_id=1, attempt=2),
                ended(0, [1], State.FAILED, Outcome.FAILED, batch_id=2, attempt=2),
            ],
        )
        (row,) = store.timing(run_id).nodes
        assert (row.attempts, row.retries, row.retry_seconds, row.code_seconds) == (4, 2, 0.5, 1.0)
        run = store.run(run_id)
        assert (run.retries, run.retry_seconds) == (2, 0.5)
        store.append(run_id, 1, [ended(0, [3], State.READY, Outcome.UNSTARTED, batch_id=3)])
        assert store.run(run_id).retries == 2

    def test_a_batch_of_two_nodes_is_counted_once(self, store: Store) -> None:
        """Its delivery is told of the node whose item began it; each node has its own code."""
        run_id = new_run(store)
        store.append(run_id, 1, [node(1, 10)])
        store.append(run_id, 1, [batch(0, range(1), submitted=0, started=1, seconds=1, heard=4)])
        store.append(run_id, 1, [batch(0, range(1), submitted=0, started=2, seconds=1, heard=4, node_id=1)])
        told = store.timing(run_id)
        assert [row.code_seconds for row in told.nodes] == [1.0, 1.0]
        assert [(row.delivery_seconds, row.return_seconds) for row in told.nodes] == [(1.0, 1.0), (0.0, 0.0)]
        assert (told.slots, told.code_seconds, told.engine_seconds) == (1, 2.0, 2.0)

    def test_a_worker_whose_clock_is_wrong(self, store: Store) -> None:
        """Nothing becomes negative or longer than it was."""
        run_id = new_run(store)
        store.append(run_id, 1, [batch(0, range(1), submitted=5, started=-100, seconds=1, heard=7)])
        told = store.timing(run_id)
        assert (told.wall_seconds, told.nodes[0].delivery_seconds, told.nodes[0].code_seconds) == (
            2.0,
            0.0,
            1.0,
        )
        parts = (told.code_seconds, told.worker_seconds, told.engine_seconds, told.idle_seconds)
        assert min(parts) >= 0
        assert sum(parts) == told.slots * told.wall_seconds

    def test_nothing_has_run(self, store: Store) -> None:
        """No batches, no time; and what never started has none of its own."""
        run_id = new_run(store)
        assert (store.timing(run_id).slots, store.timing(run_id).wall_seconds) == (0, 0.0)
        store.append(run_id, 1, [ended(0, [0], State.CRASHED, 255, started=0.0)])
        (row,) = store.timing(run_id).nodes
        assert (row.attempts, row.started, row.batches) == (1, None, 1)
        with pytest.raises(RunNotFoundError):
            store.timing("x")

    def test_the_attempts_of_a_run_in_columns(self, store: Store) -> None:
        """All that have started, each with its worker; and the state of each item now, a byte each."""
        run_id = new_run(store)
        store.append(run_id, 1, [node(7, width=4)])
        first = batch(0, range(3), submitted=1, started=1.5, seconds=0.5, heard=4, node_id=7)
        failed = replace(
            first,
            outcomes=bytes([Outcome.COMPLETED, Outcome.FAILED, Outcome.UNSTARTED]),
            states=bytes([State.COMPLETED, State.AWAITING_RETRY, State.READY]),
            started=array("d", [*first.started[:2], 0.0]),
        )
        store.append(run_id, 1, [failed])
        found = store.timeline(run_id)
        assert list(found.started) == [NOW + 1.5, NOW + 2.0]
        assert [list(found.node), list(found.index), list(found.attempt)] == [[7, 7], [0, 1], [1, 1]]
        assert [found.workers[place] for place in found.worker] == [first.worker] * 2
        assert list(found.state) == [State.COMPLETED, State.AWAITING_RETRY]
        assert list(store.states(run_id, 7)) == [
            State.COMPLETED,
            State.AWAITING_RETRY,
            State.READY,
            State.PENDING,
        ]
        assert store.states(run_id, 8) == b""

    def test_a_timeline_goes_on_where_it_ended(self, store: Store) -> None:
        """What an earlier answer had is not told again; that a later process has replaced a node is."""
        run_id = new_run(store)
        store.append(run_id, 1, [node(5, width=9)])
        for number in range(3):
            store.append(run_id, 1, [ended(5, [number], State.COMPLETED, batch_id=number)])
        first = store.timeline(run_id)
        assert (list(first.index), first.replaced) == ([0, 1, 2], 0)
        assert list(store.timeline(run_id, after=first.seq).index) == []
        assert store.timeline(run_id, after=first.seq).seq == first.seq
        store.append(run_id, 1, [ended(5, [7], State.CRASHED, LOST, batch_id=3, started=NOW)])
        more = store.timeline(run_id, after=first.seq)
        assert (list(more.index), list(more.outcome)) == ([7], [LOST])
        assert list(store.timeline(run_id).index) == [0, 1, 2, 7]
        row = store.claim(run_id, host="other", pid=1, now=NOW + 1000)
        store.append(run_id, row.epoch, [replace(node(6, width=9), path=node(5, width=9).path)])
        again = store.timeline(run_id, after=more.seq)
        assert (list(again.index), again.replaced) == ([], 1)
