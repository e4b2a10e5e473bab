"""What is the PostgreSQL store's own: its address, its schema, its rights, its wake-ups."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from orchestration.core.states import State
from orchestration.errors import (
    StoreCorruptError,
    StoreFullError,
    StoreLockedError,
    StoreNewerError,
    StoreReadOnlyError,
    StoreUnreachableError,
)
from orchestration.stores import open_store
from orchestration.stores.base import DEAD_AFTER_SECONDS
from orchestration.stores.postgres import PostgresStore, schema
from orchestration.stores.sqlite import SqliteStore
from orchestration.testing.postgres import PrivateServer
from orchestration.testing.store_entries import NOW, ended, new_run

pytestmark = pytest.mark.postgres
PASSWORD = "can@ry/7"


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    yield store
    store.close()


# --- the address ---------------------------------------------------------------------------------


@pytest.fixture
def secured(postgres_server: PrivateServer) -> Iterator[PrivateServer]:
    """The server, where the user `guarded` needs a password."""
    file = Path(postgres_server.folder) / "data" / "pg_hba.conf"
    before = file.read_text()
    file.write_text(f"local all guarded scram-sha-256\n{before}")
    postgres_server.execute(f"CREATE ROLE guarded LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    postgres_server.execute("SELECT pg_reload_conf()")
    yield postgres_server
    file.write_text(before)
    postgres_server.execute("SELECT pg_reload_conf()")
    postgres_server.execute("DROP DATABASE IF EXISTS guarded WITH (FORCE)")
    postgres_server.execute("DROP ROLE guarded")


def test_no_message_has_the_password(secured: PrivateServer) -> None:
    """Not the store's URL, not an error with its causes; the password itself is used."""
    secured.execute("CREATE DATABASE guarded")
    store = PostgresStore(secured.url("guarded", user="guarded", password=PASSWORD))
    new_run(store)
    assert "guarded@" in store.url
    assert "ry" not in store.url.partition("@")[0]
    assert "can%40ry" in store.address
    store.close()
    with pytest.raises(StoreUnreachableError, match="authentication failed") as caught:
        PostgresStore(secured.url("guarded", user="guarded", password=f"{PASSWORD}8"))
    told = "".join(traceback.format_exception(caught.value))
    assert "can@ry" not in told
    assert "can%40ry" not in told
    with pytest.raises(StoreUnreachableError) as caught:
        PostgresStore("postgresql://u:can%40ry@/db?host=/nowhere&password=can%40ry&sslpassword=can%40ry")
    assert "40ry" not in str(caught.value)
    assert "can@ry" not in str(caught.value)


def test_who_shares_a_store_in_one_process(postgres_url: str) -> None:
    """One object per URL, and one of its own in a child process."""
    store = open_store(postgres_url)
    assert open_store(postgres_url) is store
    run_id = new_run(store)
    pid = os.fork()
    if pid == 0:
        try:
            store.append(run_id, 1, [ended(0, [0])])
            os._exit(len(store.task_runs(run_id, states=frozenset({State.COMPLETED}))))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    store.append(run_id, 1, [ended(0, [1])])
    assert len(store.task_runs(run_id, states=frozenset({State.COMPLETED}))) == 2
    store.close()


def test_a_closed_store_opens_again_when_used(store: PostgresStore) -> None:
    """And leaves no row of its process behind."""
    run_id = new_run(store)
    store.close()
    store.append(run_id, 1, [ended(0, [0])])
    assert store.task_runs(run_id, limit=1)[0].state is State.COMPLETED
    store.close()
    with psycopg.connect(store.address) as raw:
        assert raw.execute("SELECT count(*) FROM millrace.writer").fetchone() == (0,)


def test_the_extra_is_named(tmp_path: Path) -> None:
    """Without psycopg the message has the line that installs it."""
    code = "import sys; sys.modules['psycopg'] = None\nfrom orchestration import flow\n"
    code += "flow(lambda: 1, name='f', store='postgresql://u:canary@h/d')()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'millrace[postgres]'" in done.stderr
    assert "canary" not in done.stderr.replace(code, "")


# --- the schema ----------------------------------------------------------------------------------


def test_both_schemas_have_the_same_columns(store: PostgresStore, tmp_path: Path) -> None:
    """The statements are shared, so a migration of one database needs one of the other."""
    own = {"writer", "clock", "lease_news"}
    with psycopg.connect(store.address) as raw:
        there = raw.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'millrace'"
        ).fetchall()
    sqlite = SqliteStore(tmp_path / "millrace.db")
    with sqlite._database.read() as connection:
        here = connection.execute(
            "SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c "
            "WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'"
        ).fetchall()
    sqlite.close()
    assert {row for row in there if row[0] not in own} == {row for row in here if row[0] not in own}


def test_many_processes_may_open_an_empty_database(postgres_url: str) -> None:
    """One of them makes the schema, the others wait for it."""
    stores: list[PostgresStore] = []
    barrier = threading.Barrier(8)

    def open_one() -> None:
        barrier.wait()
        stores.append(PostgresStore(postgres_url))

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.runs() for store in stores] == [[]] * 8
    for store in stores:
        store.close()


def test_a_newer_schema_is_refused(store: PostgresStore) -> None:
    """An old program does not touch a new program's tables."""
    store._write(
        lambda c: c.execute("INSERT INTO schema_version (version) VALUES (?)", (schema.newest() + 1,))
    )
    with pytest.raises(StoreNewerError, match="Upgrade"):
        PostgresStore(store.address)


def test_an_older_schema_is_migrated(
    store: PostgresStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of an older version are there after an upgrade, also for a store that is already open."""
    run_id, number = new_run(store), schema.newest() + 1
    for file in schema.FOLDER.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / f"{number:04}_more.sql").write_text("-- more; of it\nCREATE TABLE extra (x TEXT);\n")
    monkeypatch.setattr(schema, "FOLDER", tmp_path)
    new = PostgresStore(store.address)
    assert new.run(run_id).run_id == run_id
    assert new._read(lambda c: c.execute("SELECT max(version) FROM schema_version").fetchone()) == (number,)
    store.append(run_id, 1, [ended(0, [0])])
    new.close()


def test_tables_of_somebody_else_are_left_alone(postgres_server: PrivateServer, postgres_url: str) -> None:
    """A schema of our name that holds other tables is refused."""
    postgres_server.execute(
        "CREATE SCHEMA millrace; CREATE TABLE millrace.bookmarks (url TEXT)", postgres_url
    )
    with pytest.raises(StoreCorruptError, match="not of a Millrace store"):
        PostgresStore(postgres_url)


# --- rights, room, locks -------------------------------------------------------------------------


def test_a_read_only_database(store: PostgresStore, postgres_server: PrivateServer) -> None:
    """What is there can be read; a write is refused with the cure, and done once the database allows it."""
    run_id = new_run(store)
    name = store.url.partition("@/")[2].partition("?")[0]
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        closed = PostgresStore(store.address)
        assert closed.run(run_id).run_id == run_id
        with pytest.raises(StoreReadOnlyError, match="default_transaction_read_only"):
            closed.append(run_id, 1, [ended(0, [0])])
    finally:
        postgres_server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    closed.close()
    closed.append(run_id, 1, [ended(0, [0])])
    assert closed.task_runs(run_id, limit=1)[0].state is State.COMPLETED
    closed.close()


def test_a_user_without_rights(store: PostgresStore, postgres_server: PrivateServer) -> None:
    """The message names the right that is missing."""
    postgres_server.execute("CREATE ROLE stranger LOGIN")
    name = store.url.partition("@/")[2].partition("?")[0]
    try:
        with pytest.raises(StoreReadOnlyError, match="GRANT"):
            PostgresStore(postgres_server.url(name, user="stranger"))
    finally:
        postgres_server.execute("DROP ROLE stranger")


def test_a_full_disk(postgres_server: PrivateServer, require: Callable[[str, object], None]) -> None:
    """The append is refused whole, with the cure; after room is made the store goes on."""
    folder = Path(postgres_server.folder) / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "millrace-test", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False) if not os.geteuid() else None
    require("the right to mount a tmpfs", done is not None and done.returncode == 0)
    try:
        owner = os.stat(postgres_server.folder)
        os.chown(folder, owner.st_uid, owner.st_gid)
        postgres_server.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        postgres_server.execute("CREATE DATABASE small TABLESPACE small")
        store = PostgresStore(postgres_server.url("small"))
        run_id = new_run(store)
        k = fill(store, run_id)
        with pytest.raises(StoreFullError, match="store prune"):
            store.append(run_id, 1, [ended(0, range(0, 200_000, 2), batch_id=k)])
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        store.append(run_id, 1, [ended(0, range(k * 50, k * 50 + 50), batch_id=k)])
        batches = {entry.batch_id for entry in store.attempts(run_id, 0, 0)}
        assert batches == set(range(k + (k == 0)))
        store.close()
        postgres_server.execute("DROP DATABASE small WITH (FORCE)")
        postgres_server.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


def fill(store: PostgresStore, run_id: str) -> int:
    """Append batches until the store has no room; return how many it took."""
    for k in range(10_000):
        try:
            store.append(run_id, 1, [ended(0, range(0, 200_000, 2), batch_id=k)])
        except StoreFullError:
            return k
    pytest.fail("nothing was refused")


def test_a_foreign_transaction(store: PostgresStore) -> None:
    """A database tool with an open transaction: the append waits its time, then names where to look."""
    run_id = new_run(store)
    store._write(lambda c: c.execute("SET lock_timeout = '50ms'"))
    with psycopg.connect(store.address) as other:
        other.execute("SELECT * FROM millrace.run FOR UPDATE")
        with pytest.raises(StoreLockedError, match="pg_stat_activity"):
            store.append(run_id, 1, [ended(0, [0])])
        assert store.task_runs(run_id, limit=1)[0].state is State.PENDING, "reading goes on"
    store.append(run_id, 1, [ended(0, [0])])


def test_a_deadlock_is_resolved_by_repeating(store: PostgresStore, postgres_url: str) -> None:
    """Of two transactions that wait for each other the server ends one; it is done again, and nobody notices."""
    other = PostgresStore(postgres_url)
    both = threading.Barrier(2)
    tries: list[str] = []

    def lock(place: PostgresStore, names: str) -> None:
        def work(connection: object) -> None:
            tries.append(names)
            for name in names:
                statement = "UPDATE limit_ SET slots = slots + 1 WHERE name = ? RETURNING slots"
                # A transaction is a pipeline: the row is not locked before somebody waits for the answer.
                connection.execute(statement, (name,)).fetchone()  # type: ignore
                if len(tries) <= 2 and name == names[0]:
                    both.wait(10)

        place._write(work)

    for name in "ab":
        store.set_limit(name, 1)
    threads = [threading.Thread(target=lock, args=pair) for pair in ((store, "ab"), (other, "ba"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tries) == 3
    assert [limit.slots for limit in store.limits(NOW)] == [3, 3]
    other.close()


# --- wake-ups ------------------------------------------------------------------------------------


def end_listeners(store: PostgresStore) -> None:
    """End the sessions that listen in the store's database."""
    find = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    end = f"SELECT pg_terminate_backend(pid) FROM ({find}) AS listening"
    store._read(lambda connection: connection.execute(end).fetchall())


def test_news_of_another_process(store: PostgresStore, postgres_url: str) -> None:
    """Who waits hears of a release elsewhere, also after its connection was cut."""
    other = PostgresStore(postgres_url)
    store.set_limit("db", 1)
    told = threading.Event()
    stop = other.listen(told.set)
    try:
        assert told.wait(20), "the first word: it listens now"
        for _ in range(2):
            store.acquire(["db"], holder="a", run_id="r", epoch=1, label="a", slots=1, now=store.now())
            told.clear()
            store.release(["a"])
            assert told.wait(20)
            told.clear()
            end_listeners(store)
            assert told.wait(20), "the word after it has connected again"
    finally:
        stop()
        other.close()


def test_requests_are_heard_of(store: PostgresStore, postgres_url: str) -> None:
    """A run is told of a cancellation, and not of what is asked of others."""
    other = PostgresStore(postgres_url)
    heard: dict[str, threading.Event] = {}
    stops = []
    for run_id in ("one", "two"):
        new_run(store, run_id)
        heard[run_id] = threading.Event()
        stops.append(store.listen_for_requests(run_id, heard[run_id].set))
    try:
        assert heard["one"].wait(20), "the first word: it listens now"
        for event in heard.values():
            event.clear()
        other.request("two", cancel=True)
        assert heard["two"].wait(20)
        assert not heard["one"].is_set()
        heard["one"].clear()
        other.claim("one", host="h", pid=1, now=NOW + DEAD_AFTER_SECONDS + 1)
        assert heard["one"].wait(20), "it was taken over"
    finally:
        for stop in stops:
            stop()
        other.close()


def test_one_clock_for_all(store: PostgresStore, postgres_url: str) -> None:
    """A process whose own clock is an hour off goes by the server's."""
    code = (
        "import sys, time; real = time.time; time.time = lambda: real() + 3600\n"
        "from orchestration.stores.postgres import PostgresStore\n"
        "store = PostgresStore(sys.argv[1]); print(store.now()); store.close()"
    )
    before = store.now()
    done = subprocess.run(
        [sys.executable, "-c", code, postgres_url], capture_output=True, text=True, check=True
    )
    assert before - 1 <= float(done.stdout) <= store.now() + 1


def test_who_reads_cannot_write(store: PostgresStore) -> None:
    """Readers are kept from writing by the server itself."""
    with pytest.raises(StoreReadOnlyError):
        store._read(lambda c: c.execute("DELETE FROM limit_"))
