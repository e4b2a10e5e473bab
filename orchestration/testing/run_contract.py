"""What every store does with runs and their owners. Part of `store_contract.StoreContract`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runners.messages import Detail

from ..core.journal import (
    Counted,
    Moved,
    RunMoved,
)
from ..core.states import RunState, State
from ..errors import FencedError, RunAliveError, RunNotFoundError, RunNotResumableError, UserError
from ..stores.base import DEAD_AFTER_SECONDS, RunRow, Store
from ..stores.liveness import this_host
from .store_entries import NOW, counts, ended, new_run


class RunContract:
    """Runs are found, owned by one process at a time, and end even if that process does not end them."""

    def test_a_run_comes_back_as_it_was_recorded(self, store: Store) -> None:
        """Every field survives, text of any kind and parameters that JSON cannot say included."""
        run = RunRow(
            run_id="f" * 32,
            name="müde-otter",
            flow_name="nightly",
            state=RunState.PENDING,
            created=NOW,
            heartbeat=NOW + 1,
            runner="threads",
            entrypoint="flows.py:nightly",
            version="3",
            tags=frozenset({"a", "b"}),
            parameters={"x": 1, "y": [1.5, None, "ü"]},
            parameters_pickle=b"\x80\x05.",
            parent_run_id="e" * 32,
            parent_task_run_id="e/0/1",
            host="elsewhere",
            pid=77,
        )
        store.create_run(run)
        assert store.run(run.run_id) == run
        with pytest.raises(UserError, match="already"):
            store.create_run(run)

    def test_the_states_of_a_run(self, store: Store) -> None:
        """Start and end are those of the first and last move; an error comes back without its exception."""
        run_id = new_run(store)
        row = store.run(run_id)
        assert (row.state, row.started, row.ended) == (RunState.RUNNING, NOW, None)
        detail = Detail("ValueError", "boom", live=ValueError("boom"))
        store.append(run_id, 1, [RunMoved(RunState.FAILED, NOW + 9, "Failed", "ValueError: boom", detail)])
        row = store.run(run_id)
        assert row.coordinator_seconds == 0.0
        assert (row.state, row.ended, row.message) == (RunState.FAILED, NOW + 9, "ValueError: boom")
        assert row.detail == Detail("ValueError", "boom")
        assert row.heartbeat is None
        store.append(run_id, 1, [RunMoved(RunState.RUNNING, NOW + 20, coordinator_seconds=1.5)])
        assert store.run(run_id).coordinator_seconds == 1.5
        engine = "http://127.0.0.1:8787/status"
        store.append(run_id, 1, [RunMoved(RunState.RUNNING, NOW + 20, engine_url=engine)])
        store.append(run_id, 1, [RunMoved(RunState.RUNNING, NOW + 21)])
        row = store.run(run_id)
        assert row.coordinator_seconds == 1.5
        assert row.engine_url == engine
        assert (row.started, row.ended, row.detail) == (NOW, None, None)

    def test_finding_a_run(self, store: Store) -> None:
        """By id, by a beginning of it, by name; of several of one name the newest."""
        new_run(store, "aaaaaaaa1111", name="jumpy-puppy")
        new_run(store, "aaaaaaaa2222", name="jumpy-puppy", created=NOW + 1)
        new_run(store, "bbbbbbbb3333", name="calm-otter")
        assert store.run("aaaaaaaa1111").run_id == "aaaaaaaa1111"
        assert store.run("bbbbbbbb").run_id == "bbbbbbbb3333"
        assert store.run("jumpy-puppy").run_id == "aaaaaaaa2222"
        with pytest.raises(RunNotFoundError, match="several"):
            store.run("aaaaaaaa")
        with pytest.raises(RunNotFoundError, match="jumpy-puppy"):
            store.run("jumpy-pupy")
        with pytest.raises(RunNotFoundError, match="bbbbbbbb3333"):
            store.run("bbbbb")
        with pytest.raises(RunNotFoundError):
            store.run("%_")

    def test_a_store_without_runs_says_so(self, store: Store) -> None:
        """A typo and an empty store are told apart."""
        with pytest.raises(RunNotFoundError, match="no runs"):
            store.run("x")
        for call in (
            store.nodes,
            store.task_runs,
            store.logs,
            store.failures,
            store.recovered,
            store.next_ids,
        ):
            with pytest.raises(RunNotFoundError):
                call("x")

    def test_listing_runs(self, store: Store) -> None:
        """Newest first, by state, flow, parent and time."""
        for k in range(4):
            new_run(store, f"run-{k}", created=NOW + k, flow_name="odd" if k % 2 else "even")
        store.append("run-0", 1, [RunMoved(RunState.COMPLETED, NOW)])
        store.create_run(RunRow("child", "child", "sub", created=NOW + 9, parent_run_id="run-3"))

        def ids(**filters: object) -> list[str]:
            return [row.run_id for row in store.runs(**filters)]  # type: ignore[arg-type]

        assert ids() == ["child", "run-3", "run-2", "run-1", "run-0"]
        assert ids(limit=2, before=(NOW + 3, "")) == ["run-2", "run-1"]
        assert ids(states=frozenset({RunState.COMPLETED})) == ["run-0"]
        assert ids(states=frozenset()) == []
        assert ids(flow_name="odd") == ["run-3", "run-1"]
        assert ids(parent_run_id="run-3") == ["child"]
        assert store.tally() == [
            ("even", RunState.RUNNING, 1),
            ("even", RunState.COMPLETED, 1),
            ("odd", RunState.RUNNING, 2),
            ("sub", RunState.PENDING, 1),
        ]
        assert [name for name, _, _ in store.tally(subflows=False)] == ["even", "even", "odd"]

    def test_pages_of_runs_of_one_moment(self, store: Store) -> None:
        """Each is told once, whatever the filter, and in one order."""
        for k in (3, 1, 4, 0, 2):
            new_run(store, f"run-{k}", created=NOW, flow_name="same")
        store.append("run-1", 1, [RunMoved(RunState.COMPLETED, NOW)])
        for filters in ({}, {"flow_name": "same"}, {"states": frozenset(RunState)}):
            seen, before = [], None
            while page := store.runs(limit=2, before=before, **filters):
                seen += [row.run_id for row in page]
                before = page[-1].created, page[-1].run_id
            assert seen == ["run-4", "run-3", "run-2", "run-1", "run-0"]

    # --- ownership ------------------------------------------------------------------------------

    def test_an_old_owner_is_fenced(self, store: Store) -> None:
        """After a claim nothing that the earlier process appends is written, and it is told so."""
        run_id = new_run(store, heartbeat=NOW - 60)
        claimed = store.claim(run_id, host="h", pid=1, now=NOW)
        assert claimed.epoch == 2
        with pytest.raises(FencedError):
            store.append(run_id, 1, [Counted(0, counts(completed=10))])
        assert store.heartbeat(run_id, 1, NOW).fenced
        assert store.requests(run_id, 1).fenced
        assert not store.heartbeat(run_id, 2, NOW + 1).fenced
        assert sum(store.run(run_id).counts) == 0
        assert store.run(run_id).heartbeat == NOW + 1

    def test_a_live_run_cannot_be_claimed(self, store: Store) -> None:
        """Two resumes of one run: the second is refused, as is one of a run that still works."""
        run_id = new_run(store, host="far", pid=5)
        with pytest.raises(RunAliveError, match="far"):
            store.claim(run_id, host="h", pid=1, now=NOW + DEAD_AFTER_SECONDS - 1)
        store.append(run_id, 1, [RunMoved(RunState.FAILED, NOW)])
        store.claim(run_id, host="h", pid=os.getpid(), now=NOW + 1)
        with pytest.raises(RunAliveError):
            store.claim(run_id, host="h", pid=1, now=NOW + 2)
        with pytest.raises(RunNotFoundError):
            store.claim("x", host="h", pid=1, now=NOW)

    def test_a_completed_run_cannot_be_claimed(self, store: Store) -> None:
        """A process that looked before another had completed the run comes too late, and changes nothing."""
        run_id = new_run(store, heartbeat=NOW - 60)
        store.append(run_id, 1, [RunMoved(RunState.COMPLETED, NOW)])
        with pytest.raises(RunNotResumableError, match="completed"):
            store.claim(run_id, host="h", pid=1, now=NOW)
        assert store.run(run_id).epoch == 1

    def test_a_dead_process_is_proven_by_its_pid(self, store: Store) -> None:
        """On one host nobody waits for a heartbeat to grow old; this process is alive and stays."""
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        run_id = new_run(store, host=this_host(), pid=child.pid)
        mine = new_run(store, "mine", host=this_host(), pid=os.getpid())
        with pytest.raises(RunAliveError):
            store.claim(run_id, host="h", pid=1, now=NOW)
        assert store.reap(NOW) == []
        child.communicate(b"\n")
        assert store.reap(NOW) == [run_id]
        assert store.run(mine).state is RunState.RUNNING

    def test_reaping_ends_the_run_and_its_task_runs(self, store: Store) -> None:
        """What a silent process leaves says Crashed, not Running for ever; it cannot come back and write."""
        run_id = new_run(store, host="far", pid=5)
        store.create_run(RunRow("scheduled", "later", "f", created=NOW - 999))
        store.append(run_id, 1, [ended(0, range(4)), Moved(0, range(4, 6), State.RUNNING, NOW)])
        assert store.reap(NOW + DEAD_AFTER_SECONDS) == []
        assert store.reap(NOW + DEAD_AFTER_SECONDS + 1) == [run_id]
        row = store.run(run_id)
        assert (row.state, row.ended) == (RunState.CRASHED, NOW + DEAD_AFTER_SECONDS + 1)
        assert row.counts == counts(completed=4, crashed=6)
        assert [item.state for item in store.task_runs(run_id)] == [State.COMPLETED] * 4 + [State.CRASHED] * 6
        with pytest.raises(FencedError):
            store.append(run_id, 1, [])
        assert store.reap(NOW + 999) == []
        assert store.run("scheduled").state is RunState.PENDING

    def test_requests(self, store: Store) -> None:
        """Cancel and pause reach the run's process; they are not inherited by the one that resumes it."""
        run_id = new_run(store)
        assert store.requests(run_id, 1) == store.heartbeat(run_id, 1, NOW)
        store.request(run_id, pause=True)
        store.request(run_id, cancel=True)
        asked = store.heartbeat(run_id, 1, NOW)
        assert (asked.cancel, asked.pause, asked.fenced) == (True, True, False)
        store.request(run_id, pause=False)
        assert not store.requests(run_id, 1).pause
        with pytest.raises(RunNotFoundError):
            store.request("x", cancel=True)
        store.append(run_id, 1, [RunMoved(RunState.CANCELLED, NOW)])
        store.claim(run_id, host="h", pid=1, now=NOW)
        assert not store.requests(run_id, 2).cancel
