"""Both stores that keep something are checked, pruned and migrated alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestration.core.journal import Counted, LogWritten, Moved, RunMoved
from orchestration.core.states import RunState, State
from orchestration.errors import RunNotFoundError
from orchestration.stores.base import DEAD_AFTER_SECONDS, REUSE_TAG
from orchestration.stores.postgres import PostgresStore
from orchestration.stores.sql.store import SqlStore
from orchestration.stores.sqlite import SqliteStore
from orchestration.testing.store_entries import NOW, counts, ended, new_run
from runners.messages import LogLine, Stored


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    """An empty store."""
    if request.param == "sqlite":
        made: SqlStore = SqliteStore(tmp_path / "millrace.db")
    else:
        made = PostgresStore(request.getfixturevalue("postgres_url"))
    yield made
    made.close()


def finished(store: SqlStore, run_id: str, at: float = NOW, **fields: object) -> str:
    """Record a run of 10 task runs that completes 10 s after `at`."""
    new_run(store, run_id, created=at, **fields)
    url = f"file:///results/runs/{run_id}/0-0-x.result"
    store.append(
        run_id,
        1,
        [
            ended(0, range(10), stored=Stored(url, "d")),
            Counted(0, counts(completed=10)),
            LogWritten(0, [0], [1], [LogLine(0, 0, 0, at, 20, "user", "hello")]),
            RunMoved(RunState.COMPLETED, at + 10),
        ],
    )
    return run_id


def kinds(store: SqlStore, now: float = NOW + 5) -> list[str]:
    return [problem.kind for problem in store.problems(now)]


# --- check ---------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_what_millrace_writes(store: SqlStore) -> None:
    """Live, finished and crashed runs, held and left leases."""
    finished(store, "done")
    live = new_run(store, "live", host="elsewhere", pid=7)
    store.append(live, 1, [Moved(0, range(10), State.SUBMITTED, NOW), Counted(0, counts(submitted=10))])
    store.set_limit("db", 1)
    for holder in ("a", "b"):
        store.acquire(["db"], holder=holder, run_id=live, epoch=1, label=holder, slots=1, now=NOW)
    assert kinds(store) == []
    assert store.reap(NOW + DEAD_AFTER_SECONDS + 1) == [live]
    assert [lease.left for lease in store.leases("db", NOW + 5)] == [True]
    assert kinds(store) == []


DAMAGES: list[tuple[str, str, str]] = [
    ("DELETE FROM run WHERE run_id = 'done'", "orphans", "not there"),
    ("DELETE FROM node", "orphans", "node 0"),
    ("UPDATE run SET state = 1 WHERE run_id = 'done'", "state", "history ends with Completed"),
    ("UPDATE run SET counts = '[10,0,0,0,0,0,0,0,0,0,0,0,0]'", "state", "10 Pending"),
    ("UPDATE node SET counts = '[0,0,0,0,0,0,0,9,0,1,0,0,0]'", "state", "1 Failed"),
    ("UPDATE journal SET states = NULL, state = 4, kind = 0", "state", "10 Running"),
]


@pytest.mark.parametrize(("damage", "kind", "text"), DAMAGES)
def test_what_does_not_agree_is_found(store: SqlStore, damage: str, kind: str, text: str) -> None:
    """Each kind of damage is named, with the run where there is one."""
    finished(store, "done")
    store._write(lambda connection: connection.execute(damage))
    found = store.problems(NOW + 5)
    assert any(problem.kind == kind and text in problem.text for problem in found), found


def test_leases_of_runs_that_are_not_live(store: SqlStore) -> None:
    """A slot that nobody will give back is found until it expires."""
    finished(store, "done")
    store.set_limit("db", 1)
    store.acquire(
        ["db"], holder="done/batch/1", run_id="done", epoch=1, label="task of done", slots=1, now=NOW
    )
    (problem,) = store.problems(NOW + 5)
    assert (problem.kind, problem.run_id) == ("lease", "done")
    assert "'db'" in problem.text
    assert kinds(store, NOW + 3600) == []


def test_runs_whose_process_is_silent(store: SqlStore) -> None:
    """They are told, not changed."""
    new_run(store, "live", host="elsewhere", pid=7)
    assert kinds(store, NOW + DEAD_AFTER_SECONDS + 1) == ["stale"]
    assert store.run("live").state is RunState.RUNNING


# --- prune ---------------------------------------------------------------------------------------


def going(store: SqlStore, **which: float | int | None) -> list[str]:
    trees = store.prunable(**{"ended_before": None, "keep": None, **which})  # type: ignore[arg-type]
    return [run_id for tree in trees for run_id in tree.run_ids]


def test_what_is_old_or_beyond_the_count(store: SqlStore) -> None:
    """By the end of the run, or by its place among the newest; a live run stays and counts."""
    for k in range(4):
        finished(store, f"run{k}", NOW + 100 * k)
    new_run(store, "live", created=NOW + 1000)
    assert going(store) == []
    assert going(store, ended_before=NOW + 111) == ["run1", "run0"]
    assert going(store, keep=3) == ["run1", "run0"]
    assert going(store, keep=0) == ["run3", "run2", "run1", "run0"]
    assert going(store, ended_before=NOW + 11, keep=4) == ["run0"]


def test_subflow_runs_stay_or_go_with_theirs(store: SqlStore) -> None:
    """A tree with a live run in it stays whole; a parent that is not there makes no difference."""
    finished(store, "parent")
    finished(store, "child", NOW + 1, parent_run_id="parent")
    finished(store, "grandchild", NOW + 2, parent_run_id="child")
    finished(store, "other")
    new_run(store, "lives", parent_run_id="other")
    finished(store, "lost-child", parent_run_id="never-there")
    assert sorted(going(store, keep=0)) == ["child", "grandchild", "lost-child", "parent"]


def test_results_that_others_have_taken_over_stay(store: SqlStore) -> None:
    """A retry reads the stored results of the run before it, and of the one before that."""
    finished(store, "first", NOW)
    finished(store, "second", NOW + 100, tags=frozenset({f"{REUSE_TAG}first"}))
    finished(store, "third", NOW + 200, tags=frozenset({f"{REUSE_TAG}second"}))
    assert going(store, keep=1) == []
    assert going(store, keep=0) == ["third", "second", "first"]


def test_all_of_a_run_goes(store: SqlStore) -> None:
    """No row of it stays, nothing of others goes, and the places of its results are told."""
    finished(store, "gone")
    finished(store, "stays", NOW + 100)
    (tree,) = store.prunable(ended_before=None, keep=1)
    assert store.result_places(tree) == {("file:///results", "runs/gone")}
    assert store.delete(tree)
    assert store.delete(tree), "again does no harm"
    with pytest.raises(RunNotFoundError):
        store.run("gone")
    assert store.run("stays").counts[State.COMPLETED] == 10
    assert len(store.logs("stays")) == 1
    assert kinds(store) == []
    for table in ("node", "journal", "run_history", "log", "run"):
        (rows,) = store._read(lambda c, t=table: c.execute(f"SELECT count(*) FROM {t}").fetchone())  # type: ignore[misc]
        assert rows == (2 if table == "run_history" else 1)


def test_a_run_that_is_taken_up_again_stays(store: SqlStore) -> None:
    """Between the choice and the deletion somebody has resumed it."""
    finished(store, "back")
    store.append("back", 1, [RunMoved(RunState.FAILED, NOW + 10)])
    (tree,) = store.prunable(ended_before=None, keep=0)
    store.claim("back", host="h", pid=1, now=NOW)
    store.append("back", 2, [RunMoved(RunState.RUNNING, NOW + 20)])
    assert not store.delete(tree)
    assert store.run("back").state is RunState.RUNNING


def test_room_is_made(store: SqlStore) -> None:
    """SQLite's file gets smaller, unless a run is live; PostgreSQL uses the room again."""
    run_id = finished(store, "big")
    store.append(run_id, 1, [ended(0, range(0, 20_000, 2), batch_id=k) for k in range(20)])
    (tree,) = store.prunable(ended_before=None, keep=0)
    new_run(store, "live")
    assert store.delete(tree)
    assert store.reclaim() is None
    store.append("live", 1, [RunMoved(RunState.COMPLETED, NOW)])
    freed = store.reclaim()
    assert freed is None if isinstance(store, PostgresStore) else (freed or 0) > 1_000_000
    assert store.run("live").state is RunState.COMPLETED


# --- versions ------------------------------------------------------------------------------------


def test_versions_are_told_and_not_changed(
    store: SqlStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of a current store, and of an empty one."""
    versions: Callable[[str], tuple[int, int]] = type(store).versions  # type: ignore[attr-defined]
    found, wanted = versions(store.path if isinstance(store, SqliteStore) else store.address)
    assert found == wanted >= 1
    if isinstance(store, SqliteStore):
        (tmp_path / "empty.db").touch()
        assert versions(str(tmp_path / "empty.db"))[0] == 0
    else:
        server = request.getfixturevalue("postgres_server")
        empty = server.new_database()
        assert versions(empty)[0] == 0
        assert server.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'millrace'", empty) == [(0,)]
