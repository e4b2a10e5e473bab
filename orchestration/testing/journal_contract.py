"""What every store keeps of task runs. Part of `store_contract.StoreContract`."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from runners.messages import Detail, LogLine, Outcome, Stored

from ..core.journal import (
    LOST,
    Counted,
    Entry,
    LogWritten,
    Moved,
    NodeAdded,
    Roots,
    StartRepeated,
    WidthLearned,
)
from ..core.states import State
from ..errors import FencedError, RunNotFoundError
from ..stores.base import Store
from ..stores.failures import Place
from .store_entries import BOOM, NOW, counts, ended, new_run, node


class JournalContract:
    """What was appended can be read as states, attempts, history, logs and errors."""

    def test_nodes_and_counts(self, store: Store) -> None:
        """A run's counts are the sum over its nodes; a width may be learned."""
        run_id = new_run(store)
        whole = NodeAdded(
            1, "other", "other", "single", None, NOW, frozenset({"t"}), (0,), "fp", {"retries": 2}, (0, 3)
        )
        store.append(run_id, 1, [whole, WidthLearned(1, 3), Counted(0, counts(ready=10))])
        store.append(run_id, 1, [Counted(0, counts(completed=10)), Counted(1, counts(pending=3))])
        first, second = store.nodes(run_id)
        assert store.nodes(run_id, second.node_id) == [second]
        assert store.nodes(run_id, 99) == []
        assert first.counts == counts(completed=10)
        assert (second.path, second.task_name, second.kind, second.width) == ("other", "other", "single", 3)
        assert (second.tags, second.upstream, second.fingerprint) == (frozenset({"t"}), (0,), "fp")
        assert (second.policy, second.parent, second.created) == ({"retries": 2}, (0, 3), NOW)
        assert store.run(run_id).counts == counts(completed=10, pending=3)
        assert store.runs()[0].counts == counts(completed=10, pending=3)

    def test_a_node_knows_when_it_ran(self, store: Store) -> None:
        """From the first start of an attempt to the last end of one."""
        run_id = new_run(store)
        store.append(run_id, 1, [Moved(0, [1], State.SUBMITTED, NOW)])
        assert (store.nodes(run_id)[0].started, store.nodes(run_id)[0].ended) == (None, None)
        store.append(run_id, 1, [Moved(0, [1], State.RUNNING, NOW + 5)])
        assert (store.nodes(run_id)[0].started, store.nodes(run_id)[0].ended) == (NOW + 5, None)
        store.append(run_id, 1, [ended(0, [1, 2], started=NOW + 4), ended(0, [3], started=0.0)])
        assert (store.nodes(run_id)[0].started, store.nodes(run_id)[0].ended) == (NOW + 4, NOW + 1)

    def test_a_node_may_come_and_end_in_one_turn(self, store: Store) -> None:
        """With the time it waited, when it ran, and its part of the run's counts; later turns go on from there."""
        run_id = new_run(store)
        done = Counted(1, counts(completed=2), (0.5, 0.0, 0.0))
        store.append(run_id, 1, [node(1, 2), ended(1, [0, 1], started=NOW), done, node(2, 1)])
        _, found, bare = store.nodes(run_id)
        assert (found.counts, found.waited) == (counts(completed=2), (0.5, 0.0, 0.0))
        assert (found.started, found.ended) == (NOW, NOW + 1)
        assert (bare.counts, bare.waited, bare.started) == (counts(), (0.0, 0.0, 0.0), None)
        assert store.run(run_id).counts == counts(completed=2)
        store.append(run_id, 1, [Counted(1, counts(completed=1, failed=1))])
        assert store.run(run_id).counts == counts(completed=1, failed=1)

    def test_a_node_knows_how_long_its_items_waited(self, store: Store) -> None:
        """The last that was told counts; a count without it leaves it as it was."""
        run_id = new_run(store)
        assert store.nodes(run_id)[0].waited == (0.0, 0.0, 0.0)
        store.append(run_id, 1, [Counted(0, counts(ready=10), (1.5, 0.0, 0.25))])
        store.append(run_id, 1, [Counted(0, counts(ready=9, completed=1), (12.1, 0.0, 0.25))])
        store.append(run_id, 1, [Counted(0, counts(completed=10))])
        assert store.nodes(run_id)[0].waited == (12.1, 0.0, 0.25)

    def test_task_runs_of_a_live_node(self, store: Store) -> None:
        """Each item shows the last that the journal says of it."""
        run_id = new_run(store)
        retry = ended(
            0, [7, 2], State.AWAITING_RETRY, Outcome.FAILED, details={0: BOOM}, reason="retry in 3 s"
        )
        store.append(
            run_id,
            1,
            [
                Moved(0, range(8), State.SUBMITTED, NOW),
                Moved(0, array("i", [0, 3, 7]), State.RUNNING, NOW + 2),
                ended(0, [0, 1], State.COMPLETED, names={1: "second"}),
                retry,
                Moved(0, [9], State.AWAITING_LIMIT, NOW, "limit db"),
                Moved(0, [8], State.UPSTREAM_FAILED, NOW, "task#5[8] failed"),
                Moved(0, [4], State.COMPLETED, NOW, "reused", "Cached"),
            ],
        )
        items = store.task_runs(run_id)
        assert [item.index for item in items] == list(range(10))
        assert [item.state for item in items] == [
            State.COMPLETED,
            State.COMPLETED,
            State.AWAITING_RETRY,
            State.RUNNING,
            State.COMPLETED,
            State.SUBMITTED,
            State.SUBMITTED,
            State.AWAITING_RETRY,
            State.UPSTREAM_FAILED,
            State.AWAITING_LIMIT,
        ]
        assert (items[1].name, items[1].worker, items[1].seconds, items[1].started) == (
            "second",
            "worker-1",
            0.25,
            NOW,
        )
        assert (items[3].started, items[3].seconds, items[3].attempts) == (NOW + 2, None, 1)
        assert items[4].state_name == "Cached"
        assert items[7].detail is not None
        assert items[7].detail.type_name == "ValueError"
        assert (items[7].reason, items[7].attempts) == ("retry in 3 s", 1)
        assert (items[8].reason, items[8].attempts) == ("task#5[8] failed", 0)
        assert items[9].reason == "limit db"

    def test_pages_and_filters(self, store: Store) -> None:
        """Pages run over nodes in order; a filter picks states, terminal ones and others."""
        run_id = new_run(store)
        store.append(
            run_id, 1, [node(1, 5), ended(0, range(10)), ended(1, [1, 3], State.FAILED, Outcome.FAILED)]
        )

        def page(**filters: object) -> list[tuple[int, int]]:
            return [(row.node_id, row.index) for row in store.task_runs(run_id, **filters)]  # type: ignore[arg-type]

        assert page(after=(0, 7), limit=4) == [(0, 8), (0, 9), (1, 0), (1, 1)]
        assert page(node_id=1, after=(1, 2)) == [(1, 3), (1, 4)]
        assert page(states=frozenset({State.FAILED})) == [(1, 1), (1, 3)]
        assert page(states=frozenset({State.FAILED, State.COMPLETED}), after=(0, 8), limit=2) == [
            (0, 9),
            (1, 1),
        ]
        assert page(states=frozenset({State.PENDING}), node_id=1) == [(1, 0), (1, 2), (1, 4)]
        assert page(after=(1, 4)) == []

    def test_a_finished_node_is_skipped_by_its_counts(self, store: Store) -> None:
        """A filter finds the same with the counts of finished nodes as without."""
        run_id = new_run(store)
        entries: list[Entry] = [
            ended(0, range(9)),
            ended(0, [9], State.FAILED, Outcome.TIMED_OUT, details={0: BOOM}),
            Counted(0, counts(completed=9, failed=1)),
        ]
        store.append(run_id, 1, entries)
        (failed,) = store.task_runs(run_id, states=frozenset({State.FAILED}))
        assert (failed.index, failed.state_name) == (9, "TimedOut")
        assert store.task_runs(run_id, states=frozenset({State.CRASHED})) == []

    def test_attempts_of_an_item(self, store: Store) -> None:
        """Every try in order: lost, failed, completed; coming back unstarted is history, not an attempt."""
        run_id = new_run(store)
        file = Stored("file:///results/1", "abc")
        store.append(
            run_id,
            1,
            [
                ended(0, [4, 5], State.READY, Outcome.UNSTARTED, batch_id=1, started=0.0),
                ended(0, [5], State.AWAITING_RETRY, LOST, batch_id=2, started=0.0, reason="worker-1 died"),
                ended(0, [5], State.AWAITING_RETRY, Outcome.FAILED, attempt=2, batch_id=3, details={0: BOOM}),
                StartRepeated(0, 4, [5], "again", "worker-2", NOW + 7),
                ended(0, [3, 5], attempt=3, batch_id=4, stored=file),
            ],
        )
        lost, failed, done = store.attempts(run_id, 0, 5)
        assert (lost.outcome, lost.started, lost.seconds, lost.reason) == (LOST, None, None, "worker-1 died")
        assert (failed.attempt, failed.outcome, failed.started, failed.seconds) == (
            2,
            Outcome.FAILED,
            NOW,
            0.25,
        )
        assert failed.detail is not None
        assert (failed.detail.exception, failed.detail.retriable) == (b"pickle", False)
        assert (done.state, done.stored, done.position) == (State.COMPLETED, file, 1)
        assert (done.execution_id, done.worker, done.batch_id) == ("execution-4", "worker-1", 4)
        back, began, again = store.history(run_id, 0, 5)
        assert (back.state, back.reason) == (State.READY, "came back unstarted")
        assert (began.state, began.at) == (State.RUNNING, NOW)
        assert "second time" in again.reason
        assert "worker-2" in again.reason
        assert back.seq < again.seq
        assert store.attempts(run_id, 0, 9) == []

    def test_history_of_an_item(self, store: Store) -> None:
        """Moves in the journal's order, with the items that moved together."""
        run_id = new_run(store)
        moves: list[Entry] = [
            Moved(0, range(10), State.AWAITING_LIMIT, NOW, "limit db"),
            Moved(0, array("i", [3, 1]), State.SUBMITTED, NOW + 1),
            Moved(0, [2], State.SUBMITTED, NOW + 2),
        ]
        store.append(run_id, 1, moves)
        first, second = store.history(run_id, 0, 3)
        assert (first.state, first.reason, first.at) == (State.AWAITING_LIMIT, "limit db", NOW)
        assert (list(first.indices), list(second.indices)) == (list(range(10)), [3, 1])

    def test_a_start_that_is_told_with_the_end_is_part_of_the_history(self, store: Store) -> None:
        """Whether anybody heard of it before does not matter. What was never known to start has no such entry."""
        run_id = new_run(store)
        heard = Moved(0, [0], State.RUNNING, NOW + 2)
        store.append(run_id, 1, [Moved(0, range(3), State.SUBMITTED, NOW), heard])
        store.append(run_id, 1, [ended(0, [0, 1], started=NOW + 3)])
        store.append(run_id, 1, [ended(0, [2], State.CRASHED, LOST, started=0.0)])
        for index, starts in ((0, [NOW + 2]), (1, [NOW + 3]), (2, [])):
            rows = store.history(run_id, 0, index)
            assert rows[0].state is State.SUBMITTED
            assert [row.at for row in rows[1:]] == starts
            assert all(row.state is State.RUNNING for row in rows[1:])

    def test_logs(self, store: Store) -> None:
        """Lines come back in order, with any text, from a place on, of an item, from a level on."""
        run_id = new_run(store)
        lines = [LogLine(k, k, 0, NOW + k, 10 * (k + 1), "user", f"line {k} \udcff\x00é") for k in range(4)]
        store.append(run_id, 1, [LogWritten(0, [0, 1, 0, 1], [1, 1, 2, 1], lines)])
        store.append(run_id, 1, [LogWritten(-1, [-1], [0], [replace(lines[0], message="of the flow")])])
        rows = store.logs(run_id)
        assert [(row.index, row.attempt, row.level) for row in rows[:4]] == [
            (0, 1, 10),
            (1, 1, 20),
            (0, 2, 30),
            (1, 1, 40),
        ]
        assert rows[0].message.startswith("line 0 ")
        assert (rows[0].task_name, rows[0].logger, rows[0].at) == ("task", "user", NOW)
        assert (rows[4].node_id, rows[4].task_name, rows[4].message) == (-1, "", "of the flow")
        assert [row.level for row in store.logs(run_id, after=rows[1].seq, node_id=0)] == [30, 40]
        assert [row.level for row in store.logs(run_id, index=0, min_level=20)] == [30]
        assert len(store.logs(run_id, limit=2)) == 2

    def test_errors_are_counted_once_each(self, store: Store) -> None:
        """The summary tells by what task runs ended, not by what they were retried."""
        run_id = new_run(store)
        other = Detail("KeyError", "'x'")
        store.append(
            run_id,
            1,
            [
                ended(0, [0], State.AWAITING_RETRY, Outcome.FAILED, details={0: other}),
                ended(0, [1, 2], State.FAILED, Outcome.FAILED, details={0: BOOM, 1: BOOM}),
                ended(0, [0], State.FAILED, Outcome.FAILED, attempt=2, details={0: other}),
                ended(0, [3], State.AWAITING_RETRY, Outcome.FAILED, details={0: Detail("OSError")}),
            ],
        )
        found = [(group.error.type_name, group.count, group.state) for group in store.failures(run_id)]
        assert found == [("ValueError", 2, State.FAILED), ("KeyError", 1, State.FAILED)]
        assert len(store.failures(run_id, limit=1)) == 1

    def test_failures_that_are_alike_are_one(self, store: Store) -> None:
        """Of one type from the same lines, whatever they say; with the first and the last by the time they ended."""
        run_id = new_run(store)
        trace = 'Traceback:\n  File "flows.py", line 3, in f\nValueError: '
        errors = [Detail("ValueError", f"no {k}", f"{trace}no {k}") for k in range(4)]
        elsewhere = Detail(
            "ValueError", "no 4", 'Traceback:\n  File "flows.py", line 9, in g\nValueError: no 4'
        )
        late = ended(
            0, [2, 3], State.FAILED, Outcome.FAILED, details=dict(enumerate(errors[2:])), started=NOW + 5
        )
        early = ended(
            0, [0, 1], State.FAILED, Outcome.FAILED, details=dict(enumerate(errors[:2])), started=NOW - 5
        )
        other = ended(0, [4], State.FAILED, Outcome.FAILED, details={0: elsewhere})
        store.append(run_id, 1, [node(1, 2), late])
        store.append(run_id, 1, [other, replace(early, node_id=1)])
        one, two = store.failures(run_id)
        assert (one.count, one.error.message, one.root, two.count) == (4, "no 0", None, 1)
        assert (one.first, one.last) == (Place(1, 0, NOW - 4.75), Place(0, 3, NOW + 5.25))

    def test_failures_without_an_error(self, store: Store) -> None:
        """By reason; those that never ran come last, by the task whose failure it was, and say whose it was."""
        run_id = new_run(store)
        lost = ended(0, [0], State.CRASHED, LOST, reason="its worker died")
        own, shared = Roots(0, "task", array("i", [7, 0, 5])), Roots(0, "task", [3])
        moves: list[Entry] = [
            Moved(1, [1, 2, 4], State.UPSTREAM_FAILED, NOW, "one of task ended Failed", roots=own),
            Moved(1, range(5, 7), State.UPSTREAM_FAILED, NOW + 1, "task[3] ended Crashed", roots=shared),
            Moved(0, [9], State.CRASHED, NOW + 3, "its worker died"),
            Moved(0, [8], State.CRASHED, NOW, "interrupted"),
        ]
        store.append(run_id, 1, [node(1, 8), lost, *moves])
        died, other, never = store.failures(run_id)
        assert (died.state, died.count, died.error) == (State.CRASHED, 2, Detail(message="its worker died"))
        assert (other.reason, other.count, other.root) == ("interrupted", 1, None)
        assert (never.state, never.count, never.root) == (State.UPSTREAM_FAILED, 5, (0, 7))
        assert (never.first, never.last) == (Place(1, 1, NOW), Place(1, 6, NOW + 1))
        found = {item.index: item.root for item in store.task_runs(run_id, node_id=1)}
        assert found == {0: None, 1: (0, 7), 2: (0, 0), 3: None, 4: (0, 5), 5: (0, 3), 6: (0, 3), 7: None}

    def test_a_running_task_run_tells_its_worker(self, store: Store) -> None:
        """From its start on, not only when its attempt has ended."""
        run_id = new_run(store)
        store.append(run_id, 1, [Moved(0, range(2), State.RUNNING, NOW, worker="worker-7")])
        store.append(run_id, 1, [ended(0, [1])])
        first, second = store.task_runs(run_id, limit=2)
        assert (first.state, first.worker, second.worker) == (State.RUNNING, "worker-7", "worker-1")

    def test_an_append_is_all_or_nothing(self, store: Store) -> None:
        """What comes with an old epoch leaves no trace at all."""
        run_id = new_run(store)
        with pytest.raises(FencedError):
            store.append(run_id, 7, [ended(0, range(10)), Counted(0, counts(completed=10))])
        assert {item.state for item in store.task_runs(run_id)} == {State.PENDING}
        with pytest.raises(RunNotFoundError):
            store.append("x", 1, [])
