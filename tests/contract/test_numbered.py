"""Transactions that a server does for others: each once, in order, and none of a process that was replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.core.journal import Counted, Entry, RunMoved
from orchestration.core.states import RunState, State
from orchestration.errors import FencedError, UserError
from orchestration.stores.base import DEAD_AFTER_SECONDS, LEASE_SECONDS, RunRow
from orchestration.stores.postgres import PostgresStore
from orchestration.stores.sql.store import SqlStore
from orchestration.stores.sqlite import SqliteStore
from orchestration.stores.wire.port import Call, Group, Sending, Writing, unpack_answer, unpack_answers
from orchestration.testing.limit_contract import ask
from orchestration.testing.store_entries import NOW, counts, ended, new_run

SILENT = NOW + DEAD_AFTER_SECONDS + 1


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    """An empty store."""
    if request.param == "sqlite":
        made: SqlStore = SqliteStore(tmp_path / "millrace.db")
    else:
        made = PostgresStore(request.getfixturevalue("postgres_url"))
    yield made
    made.close()


def writing(*groups: Group, sending: Sending = Sending.AT_ONCE, writer: str = "w") -> Writing:
    return Writing(writer, sending, groups)


def appended(number: int, run_id: str, entries: Sequence[Entry], epoch: int = 1) -> Group:
    return Group(number, [Call("append", {"run_id": run_id, "epoch": epoch, "entries": entries})])


def table(number: int, run_id: str) -> Group:
    return appended(number, run_id, [ended(0, [0], batch_id=number)])


def batches(store: SqlStore, run_id: str) -> list[int]:
    return [row.batch_id for row in store.attempts(run_id, 0, 0)]


def test_what_comes_again_is_not_done_again(store: SqlStore) -> None:
    """Neither the newest nor an older one; what is new among them is."""
    run_id = new_run(store)
    store.numbered(writing(table(1, run_id)))
    store.numbered(writing(table(1, run_id)))
    store.numbered(writing(table(1, run_id), table(2, run_id), sending=Sending.BUFFERED))
    store.numbered(writing(table(1, run_id)))
    assert batches(store, run_id) == [1, 2]
    store.numbered(writing(table(1, run_id), writer="another"))
    assert batches(store, run_id) == [1, 2, 1]


def test_the_answer_comes_again(store: SqlStore) -> None:
    """Who claims a run and does not hear the answer gets it when it asks again, and is not taken for another one."""
    run_id = new_run(store)
    wanted = {"run_id": run_id, "host": "h", "pid": 7, "now": SILENT}
    claim = writing(Group(1, [Call("claim", wanted, "mark")]))
    (first,) = unpack_answers(store.numbered(claim))
    (second,) = unpack_answers(store.numbered(claim))
    assert first == second
    assert unpack_answer("claim", first).epoch == store.run(run_id).epoch == 2


def test_a_fault_of_one_undoes_all(store: SqlStore) -> None:
    """Also its number, so that the rest may come again."""
    run_id = new_run(store)
    create = Group(2, [Call("create_run", {"run": RunRow(run_id, "n", "f", created=NOW)}, "")])
    with pytest.raises(UserError, match="already"):
        store.numbered(writing(table(1, run_id), create))
    assert batches(store, run_id) == []
    store.numbered(writing(table(1, run_id)))
    assert batches(store, run_id) == [1]


def test_who_was_replaced_writes_nothing(store: SqlStore) -> None:
    """Neither at once nor from a buffer, also if the run was given up for dead before it was claimed."""
    run_id = new_run(store)
    assert store.reap(SILENT) == [run_id]
    store.claim(run_id, host="elsewhere", pid=1, now=SILENT)
    for sending in Sending:
        with pytest.raises(FencedError):
            store.numbered(writing(table(1, run_id), sending=sending))
    assert batches(store, run_id) == []


def test_who_was_given_up_and_lives(store: SqlStore) -> None:
    """What it kept while it could not be heard is recorded, it goes on, and its leases are renewed again."""
    store.set_limit("db", 1)
    run_id = new_run(store)
    assert ask(store, "a", "db", run=run_id).granted
    assert store.reap(SILENT) == [run_id]
    assert [(group.state, group.count) for group in store.failures(run_id)] == [(State.CRASHED, 10)]
    with pytest.raises(FencedError):
        store.numbered(writing(table(1, run_id)))
    store.numbered(writing(table(1, run_id), table(2, run_id), sending=Sending.BUFFERED))
    assert store.failures(run_id) == []
    run = store.run(run_id)
    assert (run.state, run.epoch, run.ended) == (RunState.RUNNING, 1, None)
    assert run.heartbeat is not None
    assert batches(store, run_id) == [1, 2]
    (first, *others) = store.task_runs(run_id)  # nothing of them is Crashed any more
    assert (first.state, {one.state for one in others}) == (State.COMPLETED, {State.PENDING})
    assert not store.heartbeat(run_id, 1, SILENT + 5).fenced
    (lease,) = store.leases("db", SILENT + 5)
    assert (lease.left, lease.expires) == (False, SILENT + 5 + LEASE_SECONDS)


def test_what_the_dead_have_left(store: SqlStore) -> None:
    """It is recorded, and the run is given up once more, at once claimable by who resumes it."""
    run_id = new_run(store, host="elsewhere", pid=77)
    assert store.reap(SILENT) == [run_id]
    left = appended(1, run_id, [ended(0, [0], batch_id=1), Counted(0, counts(completed=1, running=9))])
    store.numbered(writing(left, sending=Sending.LEFT))
    assert batches(store, run_id) == [1]
    assert store.reap(SILENT + 1) == [run_id]
    (first, *others) = store.task_runs(run_id)
    assert (first.state, {one.state for one in others}) == (State.COMPLETED, {State.CRASHED})
    assert store.run(run_id).counts == counts(completed=1, crashed=9)
    assert [(group.state, group.count) for group in store.failures(run_id)] == [(State.CRASHED, 9)]
    assert store.problems(SILENT + 1) == []
    assert store.claim(run_id, host="h", pid=1, now=SILENT + 2).epoch == 3


def test_the_end_of_a_run_that_nobody_heard_of(store: SqlStore) -> None:
    """Its process ended well while the server was away: then the run has ended well."""
    run_id = new_run(store)
    assert store.reap(SILENT) == [run_id]
    end = [Counted(0, counts(completed=10)), RunMoved(RunState.COMPLETED, SILENT - 9)]
    store.numbered(writing(appended(1, run_id, end), sending=Sending.LEFT))
    assert store.reap(SILENT + 100) == []
    run = store.run(run_id)
    assert (run.state, run.ended, run.counts) == (RunState.COMPLETED, SILENT - 9, counts(completed=10))


def test_silence_proves_nothing_after_an_absence(store: SqlStore) -> None:
    """Only a run whose process is provably gone is given up; leases are renewed before anybody asks."""
    store.set_limit("db", 1)
    run_id = new_run(store)
    assert ask(store, "a", "db", run=run_id).granted
    assert store.reap(NOW + 1000, proven=True) == []
    store.keep_leases(NOW + 1000)
    assert not ask(store, "b", "db", now=NOW + 1001).granted
    assert [lease.holder for lease in store.leases("db", NOW + 1001)] == ["a", "b"]


def test_marks_are_those_of_the_flows_machine(store: SqlStore) -> None:
    """A process that runs elsewhere under our host's name is not taken for one of ours that has ended."""
    from orchestration.stores.liveness import this_host

    run = replace(RunRow("r" * 32, "n", "f", created=NOW, heartbeat=NOW), host=this_host(), pid=2**22 - 1)
    store.numbered(writing(Group(1, [Call("create_run", {"run": run}, "another boot/pid:[1]/77")])))
    assert store.reap(NOW + 1) == []
