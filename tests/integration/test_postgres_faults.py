"""A PostgreSQL server that is restarted, cuts connections or stays away: nothing is lost, nothing is written twice."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from orchestration import flow, stores, task
from orchestration.core.states import RunState, State
from orchestration.errors import FencedError, StoreUnreachableError
from orchestration.stores.base import DEAD_AFTER_SECONDS
from orchestration.stores.postgres import PostgresStore
from orchestration.testing.postgres import PrivateServer, server_programs
from orchestration.testing.store_entries import NOW, ended, new_run
from runners import SequentialTaskRunner, ThreadPoolTaskRunner
from runners.base import TaskRunner

pytestmark = pytest.mark.postgres
PORT_FILE = ".s.PGSQL.5432"


@pytest.fixture(scope="module")
def server(require: Callable[[str, object], None]) -> Iterator[PrivateServer]:
    """A server of this module's own, because it is stopped."""
    require("PostgreSQL's server programs", server_programs())
    with PrivateServer() as server:
        yield server


@pytest.fixture
def store(server: PrivateServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresStore]:
    """A store in a database of its own; flows that name its address use this very object."""
    store = PostgresStore(server.new_database())
    monkeypatch.setitem(stores._open, store.address, store)
    yield store
    store.close()


class Cutter:
    """Stands between client and server, and cuts a connection at a COMMIT when it is told to.

    Args:
        server: the path of its socket.
        path: of the socket to listen on.
    """

    def __init__(self, server: str, path: str) -> None:
        self.cut = (
            ""  # "before" the server hears of it, right "behind" it, or "after" the server has answered
        )
        self.cuts = 0
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            there = socket.socket(socket.AF_UNIX)
            there.connect(self._server)
            hush = threading.Event()  # answers go nowhere
            threading.Thread(target=self._answers, args=(there, client, hush), daemon=True).start()
            threading.Thread(target=self._requests, args=(client, there, hush), daemon=True).start()

    def _requests(self, client: socket.socket, there: socket.socket, hush: threading.Event) -> None:
        with client, there:
            while data := _read(client):
                how = self.cut if b"COMMIT" in data else ""
                if how:
                    self.cut, self.cuts = "", self.cuts + 1
                if how == "before":
                    break
                if how == "after":
                    hush.set()
                if not _send(there, data) or how == "behind":
                    break
            _shut(client, there)

    def _answers(self, there: socket.socket, client: socket.socket, hush: threading.Event) -> None:
        while data := _read(there):
            if hush.is_set():
                if b"COMMIT\0" in data:  # it is done
                    break
                continue
            if not _send(client, data):
                break
        _shut(client, there)


def _read(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 20)
    except OSError:
        return b""


def _send(connection: socket.socket, data: bytes) -> bool:
    try:
        connection.sendall(data)
    except OSError:
        return False
    return True


def _shut(*connections: socket.socket) -> None:
    for connection in connections:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


@pytest.fixture
def cutter(server: PrivateServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cutter]:
    folder = f"{server.folder}/cutter"
    os.makedirs(folder)
    cutter = Cutter(f"{server.folder}/{PORT_FILE}", f"{folder}/{PORT_FILE}")
    yield cutter
    cutter.close()
    os.remove(f"{folder}/{PORT_FILE}")
    os.rmdir(folder)


@pytest.mark.parametrize("how", ["before", "behind", "after"])
def test_a_connection_that_breaks_in_commit(store: PostgresStore, cutter: Cutter, how: str) -> None:
    """Committed or not, known or not: each append, count and lease is there once."""
    through = PostgresStore(f"{store.address}/cutter")
    run_id = new_run(through)
    through.set_limit("n", 0)
    through.set_limit("db", 1)

    def count(connection: object) -> None:
        connection.execute("UPDATE limit_ SET slots = slots + 1 WHERE name = 'n'")  # type: ignore[attr-defined]

    for k in range(10):
        cutter.cut = how
        through.append(run_id, 1, [ended(0, [0, 1], batch_id=k)])
        cutter.cut = how
        through._write(count)
        cutter.cut = how
        assert through.acquire(
            ["db"], holder=f"h{k}", run_id=run_id, epoch=1, label="l", slots=1, now=NOW
        ).granted
        cutter.cut = how
        through.release([f"h{k}"])
    assert cutter.cuts == 40
    assert [row.batch_id for row in store.attempts(run_id, 0, 0)] == list(range(10))
    assert {limit.name: (limit.slots, limit.held) for limit in store.limits(NOW)} == {
        "n": (10, 0),
        "db": (1, 0),
    }
    through.close()


def test_sessions_that_are_ended_while_they_write(store: PostgresStore, server: PrivateServer) -> None:
    """300 appends, a third of them while the server ends all sessions: each is there once, in order."""
    run_id = new_run(store)
    go, over = threading.Event(), threading.Event()
    ended_sessions = 0

    def kill() -> None:
        nonlocal ended_sessions
        with psycopg.connect(store.address, autocommit=True, application_name="killer") as raw:
            while go.wait(30) and not over.is_set():
                go.clear()
                found = raw.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'millrace'"
                )
                ended_sessions += len(found.fetchall())

    killer = threading.Thread(target=kill)
    killer.start()
    for k in range(300):
        if k % 3 == 0:
            go.set()
        store.append(run_id, 1, [ended(0, [0, 1], batch_id=k)])
    over.set()
    go.set()
    killer.join()
    assert ended_sessions > 10
    assert [row.batch_id for row in store.attempts(run_id, 0, 0)] == list(range(300))


@pytest.mark.parametrize(
    "runner", [SequentialTaskRunner(), ThreadPoolTaskRunner(4)], ids=["sequential", "threads"]
)
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_while_a_run_goes_on(
    server: PrivateServer, store: PostgresStore, mode: str, runner: TaskRunner
) -> None:
    """The run waits, goes on, and its record is whole."""
    times: list[int] = []

    @task(batch=5)
    def work(n: int) -> int:
        times.append(n)
        if n == 47:
            server.stop(mode)
            server.start()
        return n

    @flow(task_runner=runner, store=store.address)
    def main() -> int:
        return sum(work.map(range(100)).result())

    assert main() == 4950
    (run,) = store.runs()
    assert (run.state, run.counts[State.COMPLETED]) == (RunState.COMPLETED, 100)
    assert [row.attempts for row in store.task_runs(run.run_id, limit=200)] == [1] * 100
    assert sorted(times) == list(range(100))


AWAY = """
import os, sys
from pathlib import Path
from orchestration import flow, stores, task
from orchestration.stores.postgres import PostgresStore
from runners import SequentialTaskRunner

URL, NOTES, GO = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
stores._open[URL] = PostgresStore(URL, patience_seconds=0.3)

@task(batch=1)
def work(n):
    if n == 7 and not GO.exists():
        print("stop", flush=True)
        sys.stdin.readline()
    with NOTES.open("a") as file:
        file.write(f"{n}\\n")
    return n

@flow(task_runner=SequentialTaskRunner(), store=URL, persist_results=True)
def main():
    return sum(work.map(range(10)).result())

main.resume(sys.argv[4]) if sys.argv[4:] else main()
"""


def test_a_server_that_stays_away(
    server: PrivateServer, store: PostgresStore, tmp_path: Path, millrace_home: Path
) -> None:
    """The run stops with an error that names the server and the cure; what was recorded is there, and is resumed."""
    script, notes, go = tmp_path / "away.py", tmp_path / "notes", tmp_path / "go"
    script.write_text(AWAY)
    command = [sys.executable, str(script), store.address, str(notes), str(go)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stop\n"
    server.stop("immediate")
    _, errors = process.communicate("go on\n", timeout=60)
    server.start()
    assert process.returncode == 1
    assert f"StoreUnreachableError: The store {store.url} cannot be reached" in errors
    assert "millrace runs resume" in errors
    (run,) = store.runs()
    completed = {row.index for row in store.task_runs(run.run_id) if row.state is State.COMPLETED}
    assert 0 < len(completed) < 10
    go.touch()
    store.reap(store.now())
    done = subprocess.run([*command, run.run_id], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    run = store.run(run.run_id)
    assert (run.state, run.counts[State.COMPLETED]) == (RunState.COMPLETED, 10)
    again = [n for n in completed if notes.read_text().splitlines().count(str(n)) != 1]
    assert again == []


def test_a_server_that_was_never_there(tmp_path: Path) -> None:
    """The first command does not wait: it says what to look at."""
    with pytest.raises(StoreUnreachableError, match="psql") as caught:
        PostgresStore(f"postgresql://me@/db?host={tmp_path}")
    assert str(tmp_path) in str(caught.value)


def test_who_was_taken_over_stays_out(store: PostgresStore, server: PrivateServer) -> None:
    """A process that was cut off while another one took its run cannot append when it comes back."""
    run_id = new_run(store)
    other = PostgresStore(store.address)
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'millrace'"
    )
    other.claim(run_id, host="elsewhere", pid=1, now=NOW + DEAD_AFTER_SECONDS + 1)
    with pytest.raises(FencedError):
        store.append(run_id, 1, [ended(0, [0])])
    assert store.heartbeat(run_id, 1, NOW).fenced
    assert store.attempts(run_id, 0, 0) == []
    other.close()
