"""What a store gives to those who resume a run, and to many threads. Part of `store_contract.StoreContract`."""

from __future__ import annotations

import threading
from dataclasses import replace

from runners.messages import Outcome, Stored

from ..core.journal import (
    Counted,
    Entry,
    Moved,
    RunMoved,
)
from ..core.states import RunState, State
from ..stores.base import Store
from .store_entries import BOOM, NOW, counts, ended, new_run, node


class ResumeContract:
    """What earlier processes left can be used; threads share a store."""

    def test_what_is_recovered(self, store: Store) -> None:
        """Stored results by index, spent attempts of the rest."""
        run_id = new_run(store)
        file = Stored("file:///r/1", "abc")
        store.append(
            run_id,
            1,
            [
                ended(0, range(2, 5), stored=file),
                ended(0, [7], State.AWAITING_RETRY, Outcome.FAILED, attempt=2),
                ended(0, [8]),
                ended(0, [9], State.READY, Outcome.UNSTARTED),
            ],
        )
        (found,) = store.recovered(run_id).values()
        assert (found.path, found.fingerprint, found.width) == ("task#0", "v1", 10)
        assert found.results == {2: (file, 0), 3: (file, 1), 4: (file, 2)}
        assert found.attempts == {7: 2}

    def test_a_second_resume_recovers_what_the_first_process_stored(self, store: Store) -> None:
        """Reused results are moves in the later process's node; of changed code nothing is reused."""
        run_id = new_run(store)
        file, newer = Stored("file:///r/1", "abc"), Stored("file:///r/2", "def")
        store.append(
            run_id, 1, [ended(0, range(4), stored=file), node(1, 3), ended(1, range(3), stored=file)]
        )
        store.append(run_id, 1, [RunMoved(RunState.CRASHED, NOW)])
        store.claim(run_id, host="h", pid=1, now=NOW)
        again: list[Entry] = [
            node(2, 10, "task#0"),
            Moved(2, range(4), State.COMPLETED, NOW, "reused"),
            ended(2, [5], stored=newer),
            ended(2, [3], State.FAILED, Outcome.FAILED),
            node(3, 3, "task#1", fingerprint="v2"),
        ]
        store.append(run_id, 2, [*again, Counted(2, counts(completed=5))])
        found = store.recovered(run_id)
        assert found["task#0"].results == {0: (file, 0), 1: (file, 1), 2: (file, 2), 5: (newer, 0)}
        assert found["task#0"].attempts == {3: 1}
        assert (found["task#1"].results, found["task#1"].fingerprint) == ({}, "v2")

    def test_single_task_runs_that_are_taken_over_again_and_again(self, store: Store) -> None:
        """By a process that came to all, to some, or to none of them; of one that fails after all, its attempts."""
        run_id = new_run(store)
        files = [Stored(f"file:///r/{n}", "abc") for n in range(3)]
        first: list[Entry] = []
        for n in range(1, 4):
            first += [node(n, 1, f"task#{n}"), Moved(n, [0], State.RUNNING, NOW)]
            first.append(ended(n, [0], batch_id=n, stored=files[n - 1]))
        store.append(run_id, 1, [*first, RunMoved(RunState.FAILED, NOW)])
        before = store.recovered(run_id)
        store.claim(run_id, host="h", pid=1, now=NOW)
        again: list[Entry] = [node(n + 3, 1, f"task#{n}") for n in range(1, 4)]
        reused = Moved(4, [0], State.COMPLETED, NOW, "reused")
        lost = ended(6, [0], State.FAILED, Outcome.FAILED, batch_id=9)
        store.append(run_id, 2, [*again, reused, lost])
        after = store.recovered(run_id)
        assert set(after) == set(before) == {"task#0", "task#1", "task#2", "task#3"}
        assert [dict(before[f"task#{n}"].results) for n in range(1, 4)] == [{0: (file, 0)} for file in files]
        assert [dict(after[f"task#{n}"].results) for n in range(1, 4)] == [
            {0: (files[0], 0)},
            {0: (files[1], 0)},
            {},
        ]
        assert (after["task#3"].attempts, after["task#2"].attempts) == ({0: 1}, {})

    def test_many_nodes_are_replaced_in_one_turn(self, store: Store) -> None:
        """Each by the newest of its path, also where that is of the same turn; the run counts what stands."""
        run_id = new_run(store)  # with node 0, task#0
        old: list[Entry] = [node(n, 1, f"task#{n}") for n in range(1, 4)]
        done: list[Entry] = [ended(n, [0]) for n in range(4)]
        totals = [Counted(n, counts(completed=1)) for n in range(4)]
        store.append(run_id, 1, [*old, *done, *totals, RunMoved(RunState.CRASHED, NOW)])
        store.claim(run_id, host="h", pid=1, now=NOW)
        new: list[Entry] = [node(n + 4, 1, f"task#{n}") for n in range(4)]
        moved: list[Entry] = [Moved(n, [0], State.COMPLETED, NOW) for n in range(4, 8)]
        again: list[Entry] = [node(8, 1, "task#3"), *(Counted(n, counts(completed=1)) for n in range(4, 7))]
        store.append(
            run_id, 2, [*new, *moved, *again, Counted(7, counts(completed=1)), Counted(8, counts(failed=1))]
        )
        replaced = {row.node_id: row.replaced_by for row in store.nodes(run_id)}
        assert replaced == {0: 4, 1: 5, 2: 6, 3: 7, 4: None, 5: None, 6: None, 7: 8, 8: None}
        assert store.run(run_id).counts == counts(completed=3, failed=1)

    def test_what_must_not_run_twice_counts_as_started_for_ever(self, store: Store) -> None:
        """Also where its result is stored: the result may be of no use to a later process, with other code."""
        run_id = new_run(store)
        once = replace(node(1, 4), policy={"rerun_on_loss": False})
        file = Stored("file:///r/1", "abc")
        first: list[Entry] = [once, ended(1, [0], stored=file), ended(1, [1], State.FAILED, Outcome.FAILED)]
        store.append(run_id, 1, [*first, RunMoved(RunState.CRASHED, NOW)])
        assert store.recovered(run_id)["task#1"].started == {0}
        store.claim(run_id, host="h", pid=1, now=NOW)
        store.append(run_id, 2, [replace(once, node_id=2, path="task#1", fingerprint="v2")])
        found = store.recovered(run_id)["task#1"]
        assert not found.results
        assert found.started == {0}

    def test_items_of_a_wider_map_are_told_although_nothing_was_taken_over(self, store: Store) -> None:
        """What a resume has started tells that it knew its items. If it started none, what was before it counts."""
        run_id = new_run(store)
        once = replace(node(1, 3), policy={"rerun_on_loss": False})
        started = Moved(1, [0], State.RUNNING, NOW)
        store.append(run_id, 1, [once, started, RunMoved(RunState.CRASHED, NOW)])
        store.claim(run_id, host="h", pid=1, now=NOW)
        wider = replace(once, node_id=2, width=5, fingerprint="v2")
        lost = Moved(2, [0], State.CRASHED, NOW, "it must not run twice")
        store.append(run_id, 2, [wider, lost, RunMoved(RunState.CRASHED, NOW)])
        found = store.recovered(run_id)["task#1"]
        assert (found.fingerprint, found.width, found.started) == ("v1", 3, frozenset({0}))
        store.claim(run_id, host="h", pid=1, now=NOW)
        store.append(run_id, 3, [replace(wider, node_id=3), Moved(3, [3], State.RUNNING, NOW)])
        found = store.recovered(run_id)["task#1"]
        assert (found.fingerprint, found.width, found.started) == ("v2", 5, frozenset({0, 3}))

    def test_what_asked_to_be_skipped_stays_so(self, store: Store) -> None:
        """Also through a process that only took it over; not with other code, and not what was tried again since."""
        run_id = new_run(store)
        once = replace(node(1, 4), policy={"rerun_on_loss": False})
        skips = [ended(n, [0, 2], State.SKIPPED, Outcome.SKIPPED) for n in (0, 1)]
        store.append(run_id, 1, [once, *skips, RunMoved(RunState.CRASHED, NOW)])
        found = store.recovered(run_id)
        assert found["task#0"].skipped == found["task#1"].skipped == {0, 2}
        assert found["task#1"].started == {0, 2}
        store.claim(run_id, host="h", pid=1, now=NOW)
        again: list[Entry] = [
            node(2, 10, "task#0"),
            Moved(2, [0], State.SKIPPED, NOW, "it asked for it in an earlier process"),
            ended(2, [2], State.FAILED, Outcome.FAILED),
            replace(once, node_id=3, fingerprint="v2"),
        ]
        store.append(run_id, 2, again)
        found = store.recovered(run_id)
        assert found["task#0"].skipped == {0}
        assert not found["task#1"].skipped
        assert found["task#1"].started == {0, 2}

    def test_a_later_process_replaces_nodes_of_the_same_path(self, store: Store) -> None:
        """Counts, task runs and errors are about the newest node of each path, the older stays readable."""
        run_id = new_run(store)
        store.append(
            run_id,
            1,
            [
                ended(0, [0], State.FAILED, Outcome.FAILED, details={0: BOOM}),
                Counted(0, counts(running=9, failed=1)),
                RunMoved(RunState.CRASHED, NOW),
            ],
        )
        store.claim(run_id, host="h", pid=1, now=NOW)
        store.append(run_id, 2, [node(1, 10, "task#0"), Counted(1, counts(pending=10))])
        assert [(row.node_id, row.replaced_by) for row in store.nodes(run_id)] == [(0, 1), (1, None)]
        assert store.run(run_id).counts == counts(pending=10)
        assert {row.node_id for row in store.task_runs(run_id)} == {1}
        assert store.task_runs(run_id, node_id=0, limit=1)[0].state is State.FAILED
        assert store.failures(run_id) == []

    def test_a_flow_that_is_tried_again_replaces_its_nodes(self, store: Store) -> None:
        """`@flow(retries=1)`: its second attempt records its task runs anew, in the same epoch."""
        run_id = new_run(store)
        failed: list[Entry] = [ended(0, [0], State.FAILED, Outcome.FAILED, details={0: BOOM})]
        store.append(run_id, 1, [*failed, Counted(0, counts(completed=9, failed=1))])
        store.append(run_id, 1, [RunMoved(RunState.AWAITING_RETRY, NOW), RunMoved(RunState.RUNNING, NOW)])
        store.append(run_id, 1, [node(1, 10, "task#0"), Counted(1, counts(pending=10))])
        assert [(row.node_id, row.replaced_by) for row in store.nodes(run_id)] == [(0, 1), (1, None)]
        assert store.run(run_id).counts == counts(pending=10)
        assert {row.node_id for row in store.task_runs(run_id)} == {1}
        assert store.failures(run_id) == []

    def test_next_ids_are_unused(self, store: Store) -> None:
        """Also by batches that were at the engine when the process died and never came back."""
        run_id = new_run(store)
        assert store.next_ids(run_id) == (1, 0)
        store.append(run_id, 1, [ended(0, [0], batch_id=41), node(5, 1)])
        assert store.next_ids(run_id) == (6, 42)
        store.append(run_id, 1, [RunMoved(RunState.CRASHED, NOW)])
        store.claim(run_id, host="h", pid=1, now=NOW)
        node_id, batch_id = store.next_ids(run_id)
        assert node_id == 6
        assert batch_id > 100_000
        store.append(run_id, 2, [ended(0, [0], batch_id=batch_id)])
        store.append(run_id, 2, [RunMoved(RunState.CRASHED, NOW)])
        store.claim(run_id, host="h", pid=1, now=NOW)
        assert store.next_ids(run_id)[1] > batch_id + 100_000

    def test_many_threads(self, store: Store) -> None:
        """Runs of one process share a store; nobody's entries get lost or mixed up."""
        runs = [new_run(store, f"thread-{k}") for k in range(6)]
        failures: list[BaseException] = []

        def work(run_id: str) -> None:
            try:
                for k in range(10):
                    store.append(run_id, 1, [ended(0, [k], batch_id=k)])
                    store.append(run_id, 1, [Counted(0, counts(pending=9 - k, completed=k + 1))])
                    assert len(store.task_runs(run_id, states=frozenset({State.COMPLETED}))) == k + 1
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(run_id,)) for run_id in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert {store.run(run_id).counts for run_id in runs} == {counts(completed=10)}
