"""The server is killed, stopped, cut off, replaced; disks are full: nothing is lost, nothing is recorded twice."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestration import flow, stores, task
from orchestration.core.states import RunState, State
from orchestration.errors import FencedError, StoreError, StoreFullError, StoreUnreachableError
from orchestration.stores.base import DEAD_AFTER_SECONDS, LEASE_SECONDS
from orchestration.stores.remote import RemoteStore, link
from orchestration.stores.sqlite import SqliteStore
from orchestration.testing.limit_contract import ask
from orchestration.testing.server import ServerProcess
from orchestration.testing.store_entries import NOW, ended, new_run
from runners import SequentialTaskRunner, ThreadPoolTaskRunner
from runners.base import TaskRunner


@pytest.fixture
def server(tmp_path: Path, millrace_home: Path) -> Iterator[ServerProcess]:
    """A server of a test's own, because it is killed."""
    with ServerProcess(str(tmp_path / "millrace.db")) as server:
        yield server


@pytest.fixture
def store(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteStore]:
    """A store by way of the server; flows that name its address use this very object."""
    store = RemoteStore(server.url)
    monkeypatch.setitem(stores._open, store.address, store)
    yield store
    store.close()


@pytest.fixture
def direct(server: ServerProcess, tmp_path: Path) -> Iterator[SqliteStore]:
    """The server's store, also while it is away."""
    store = SqliteStore(tmp_path / "millrace.db")
    yield store
    store.close()


def spools(home: Path) -> list[Path]:
    return list((home / "spool").glob("*.spool"))


def append_until_full(store: RemoteStore, run_id: str, reason: str) -> tuple[int, str]:
    """Return how many batches have found room, and what was said of the next one."""
    for k in range(10_000):
        try:
            store.append(run_id, 1, [ended(0, [0], batch_id=k, reason=reason)])
        except StoreFullError as error:
            return k, str(error)
    raise AssertionError("there was always room")


def batches(store: SqliteStore, run_id: str) -> list[int]:
    return [row.batch_id for row in store.attempts(run_id, 0, 0)]


@pytest.mark.parametrize(
    "runner", [SequentialTaskRunner(), ThreadPoolTaskRunner(4)], ids=["sequential", "threads"]
)
@pytest.mark.parametrize("how", ["killed", "suspended"])
def test_the_server_is_away_while_a_run_goes_on(
    server: ServerProcess,
    store: RemoteStore,
    direct: SqliteStore,
    millrace_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    runner: TaskRunner,
) -> None:
    """The run goes on without it, and its record is whole when it is back; nothing is run twice."""
    monkeypatch.setattr(link, "WRITE_SECONDS", 0.3)
    times: list[int] = []
    kept: list[int] = []

    @task(batch=5)
    def work(n: int) -> int:
        times.append(n)
        if n == 47:
            (server.kill if how == "killed" else server.suspend)()
        if n == 83:  # it is away for as long as nothing has been kept
            assert wait_until(lambda: spools(millrace_home))
            kept.append(sum(file.stat().st_size for file in spools(millrace_home)))
            (server.start if how == "killed" else server.go_on)()
        return n

    @flow(task_runner=runner, store=store.address)
    def main() -> int:
        return sum(work.map(range(100)).result())

    assert main() == 4950
    assert kept[0] > 0
    (run,) = store.runs()
    assert (run.state, run.counts[State.COMPLETED]) == (RunState.COMPLETED, 100)
    assert [row.attempts for row in store.task_runs(run.run_id, limit=200)] == [1] * 100
    assert sorted(times) == list(range(100))
    assert direct.problems(direct.now()) == []
    assert spools(millrace_home) == []


def wait_until(true: Callable[[], object]) -> bool:
    """Look again and again; return whether it became true."""
    pause = threading.Event()
    return any(true() or pause.wait(0.01) for _ in range(3000))


def test_answers_that_are_lost(server: ServerProcess, direct: SqliteStore, answers: Callable) -> None:
    """150 transactions, of every third the answer is cut off: each is there once, in order."""
    cutter = answers(server.url)
    store = RemoteStore(cutter.url)
    run_id = new_run(store)
    for k in range(150):
        cutter.cut = cutter.cut or k % 3 == 0
        store.append(run_id, 1, [ended(0, [0, 1], batch_id=k)])
        if k % 3 == 2:
            store.flush()
    assert cutter.cuts == 50
    assert batches(direct, run_id) == list(range(150))
    store.close()


def test_a_claim_whose_answer_is_lost(server: ServerProcess, direct: SqliteStore, answers: Callable) -> None:
    """It is claimed once, and by who has asked."""
    cutter = answers(server.url)
    store = RemoteStore(cutter.url)
    run_id = new_run(direct)
    cutter.cut = True
    run = store.claim(run_id, host="h", pid=5, now=NOW + DEAD_AFTER_SECONDS + 1)
    assert cutter.cuts == 1
    assert (run.epoch, direct.run(run_id).epoch) == (2, 2)
    store.close()


def test_no_room_for_what_is_kept(
    server: ServerProcess, direct: SqliteStore, tmp_path: Path, require: Callable[[str, object], None]
) -> None:
    """A disk that is full: the error names the file; what was kept before, and what comes after, is recorded."""
    require("root", os.geteuid() == 0)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], check=True)
    try:
        store = RemoteStore(server.url)
        store._journal.buffer._folder = disk / "spool"
        run_id = new_run(store)
        server.kill()
        kept, error = append_until_full(store, run_id, "x" * 2000)
        assert kept > 10
        assert ".spool cannot be written (No space left on device)" in error
        with pytest.raises(StoreFullError):
            store.append(run_id, 1, [ended(0, [0], batch_id=kept, reason="x" * 2000)])
        server.start()
        store.flush()
        store.append(run_id, 1, [ended(0, [0], batch_id=kept)])
        assert batches(direct, run_id) == list(range(kept + 1))
        store.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_no_room_for_the_first_that_is_kept(
    server: ServerProcess, direct: SqliteStore, answers: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may have heard it already. So it is not given back to be written again as another one."""
    cutter = answers(server.url)
    store = RemoteStore(cutter.url)
    run_id = new_run(store)

    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cutter.cut = True
    monkeypatch.setattr(os, "pwrite", no_room)
    store.append(run_id, 1, [ended(0, [0], batch_id=7)])
    assert cutter.cuts == 1
    assert batches(direct, run_id) == [7]
    store.close()


def test_the_buffer_is_bounded(server: ServerProcess, direct: SqliteStore) -> None:
    """Beyond its size nothing is kept, and the error says what to do."""
    store = RemoteStore(server.url, buffer_bytes=3000)
    run_id = new_run(store)
    server.kill()
    kept, error = append_until_full(store, run_id, "")
    assert "Get the server going again" in error
    server.start()
    store.flush()
    assert batches(direct, run_id) == list(range(kept))
    store.close()


def test_a_server_that_stays_away(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs its answer says so when the patience is over; who asks next does not wait all over again."""
    store = RemoteStore(server.url, patience_seconds=0.2)
    run_id = new_run(store)
    server.kill()
    store.append(run_id, 1, [ended(0, [0])])
    for question in (lambda: store.run(run_id), lambda: store.heartbeat(run_id, 1, NOW)):
        with pytest.raises(StoreUnreachableError, match="millrace runs resume"):
            question()
    with pytest.raises(StoreUnreachableError, match="curl"):
        RemoteStore(server.url)
    server.start()
    store.flush()
    assert len(store.attempts(run_id, 0, 0)) == 1
    store.close()


def test_who_was_taken_over_stays_out(
    server: ServerProcess,
    store: RemoteStore,
    direct: SqliteStore,
    millrace_home: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What a process kept while another one took its run is refused, and that is told."""
    run_id = new_run(store)
    server.kill()
    store.append(run_id, 1, [ended(0, [0], batch_id=7)])
    direct.claim(run_id, host="elsewhere", pid=1, now=NOW + DEAD_AFTER_SECONDS + 1)
    server.start()
    store.flush()
    assert batches(direct, run_id) == []
    assert "was refused" in caplog.text
    assert "taken over" in caplog.text
    assert spools(millrace_home) == []
    assert store.heartbeat(run_id, 1, NOW).fenced
    with pytest.raises(FencedError):
        store.append(run_id, 1, [ended(0, [0], batch_id=8)])


def test_limits_hold_over_an_absence(server: ServerProcess, store: RemoteStore) -> None:
    """A lease that could not be renewed while the server was away is still its holder's when it is back."""
    store.set_limit("db", 1)
    run_id = new_run(store)
    past = store.now() - LEASE_SECONDS - 10
    assert ask(store, "a", "db", run=run_id, now=past).granted
    server.kill()
    answers: list[bool] = []
    other = threading.Thread(
        target=lambda: answers.append(ask(store, "b", "db", run="r2", now=store.now()).granted)
    )
    other.start()
    server.start()
    other.join()
    assert answers == [False]


@pytest.mark.parametrize("requests", [False, True])
def test_who_waits_is_woken(server: ServerProcess, store: RemoteStore, requests: bool) -> None:
    """By a stream, whatever process of the server has made the news; also after the server was killed."""
    run_id = new_run(store)
    other = RemoteStore(server.url)
    told = threading.Event()
    stop = store.listen_for_requests(run_id, told.set) if requests else store.listen(told.set)
    for _ in range(2):
        assert told.wait(30)  # when it begins to listen
        told.clear()
        if requests:
            other.request(run_id, cancel=True)
        else:
            other.release(["nobody"])
        assert told.wait(30)
        told.clear()
        server.kill()
        server.start()
    stop()
    other.close()


def test_a_store_that_its_server_cannot_write(
    server: ServerProcess, direct: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error arrives as what it is."""
    store = RemoteStore(server.url)
    run_id = new_run(store)
    direct._write(lambda connection: connection.execute("DROP TABLE journal"))
    with pytest.raises(StoreError):
        store.append(run_id, 1, [ended(0, [0])])
    store.close()
