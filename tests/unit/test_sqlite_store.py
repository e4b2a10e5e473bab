"""What is the SQLite store's own: its file, its faults, its writer."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.core.journal import Counted, Moved
from orchestration.core.states import State
from orchestration.errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreNewerError,
    StoreReadOnlyError,
    UserError,
)
from orchestration.stores.base import NodeRow, RunRow
from orchestration.stores.sql import journal, rows
from orchestration.stores.sqlite import SqliteStore, database, schema
from orchestration.testing.store_entries import NOW, counts, ended, new_run, node


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records" / "millrace.db"


@pytest.fixture
def mounted(tmp_path: Path, require: Callable[[str, object], None]) -> Iterator[Callable[..., Path]]:
    """`mounted("size=1m")`: a tmpfs of its own, for a disk that can be full or read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "millrace-test", str(folder)]
        done = subprocess.run(command, capture_output=True, check=False) if not os.geteuid() else None
        require("the right to mount a tmpfs", done is not None and done.returncode == 0)
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


def grow(store: SqliteStore, run_id: str, first: int = 0, last: int = 10_000) -> int:
    """Append batches until the store refuses; return how many it took."""
    for k in range(first, last):
        try:
            store.append(run_id, 1, [ended(0, range(k * 50, k * 50 + 50), batch_id=k)])
        except StoreError:
            return k - first
    pytest.fail("nothing was refused")


# --- the file ------------------------------------------------------------------------------------


def test_the_files_are_their_owners_only(path: Path) -> None:
    """Parameters and log lines may be private, whatever the umask."""
    old = os.umask(0)
    try:
        store = SqliteStore(path)
        new_run(store)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert set(modes) == {"millrace.db", "millrace.db-wal", "millrace.db-shm", "millrace.db.lock"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()
    assert {file.name for file in path.parent.iterdir()} == {"millrace.db", "millrace.db.lock"}


def test_a_closed_store_opens_again_when_used(path: Path) -> None:
    """One flow run's end does not pull the store from under another one of the process."""
    store = SqliteStore(path)
    run_id = new_run(store)
    store.close()
    store.append(run_id, 1, [ended(0, [0])])
    store.close()
    assert store.task_runs(run_id, limit=1)[0].state is State.COMPLETED
    store.close()


def test_paths_may_hold_what_urls_reserve(tmp_path: Path) -> None:
    """A folder named `50%? #1` is a folder like others."""
    store = SqliteStore(tmp_path / "50%? #1" / "my store.db")
    new_run(store)
    assert (tmp_path / "50%? #1" / "my store.db").stat().st_size > 0
    store.close()


def test_the_wal_file_is_kept_small(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer makes the checkpoints; a reader that stands in the way only delays them."""
    monkeypatch.setattr(database, "CHECKPOINT_BYTES", 200_000)
    store = SqliteStore(path)
    store._database._checkpoint_at = 200_000
    run_id = new_run(store)
    wal = Path(f"{path}-wal")
    with store._database.read() as reader:
        reader.execute("SELECT * FROM run").fetchone()
        for k in range(60):
            store.append(run_id, 1, [ended(0, range(k * 99, k * 99 + 99), batch_id=k)])
        assert wal.stat().st_size > 400_000
    for k in range(60, 120):
        store.append(run_id, 1, [ended(0, range(k * 99, k * 99 + 99), batch_id=k)])
    assert wal.stat().st_size < 400_000
    assert len(store.task_runs(run_id, states=frozenset({State.COMPLETED}), limit=20_000)) == 120 * 99
    store.close()


# --- faults --------------------------------------------------------------------------------------


def test_a_full_disk(mounted: Callable[..., Path]) -> None:
    """The append is refused whole, with the cure; after room is made the store goes on."""
    folder = mounted("size=600k,mode=700")
    store = SqliteStore(folder / "millrace.db")
    run_id = new_run(store)
    taken = grow(store, run_id)
    assert taken > 2
    with pytest.raises(StoreFullError, match="MILLRACE_STORE") as caught:
        store.append(run_id, 1, [ended(0, range(5000)), Counted(0, counts(completed=5000))])
    assert str(folder) in str(caught.value)
    assert sum(store.run(run_id).counts) == 0
    completed = store.task_runs(run_id, node_id=0, states=frozenset({State.COMPLETED}), limit=10**6)
    assert len(completed) == taken * 50
    subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True)
    store.append(run_id, 1, [ended(0, range(5000)), Counted(0, counts(completed=5000))])
    assert sum(store.run(run_id).counts) == 5000
    store.close()


def test_a_disk_without_room_for_a_new_store(mounted: Callable[..., Path]) -> None:
    """The first command of a user on a full disk says so."""
    folder = mounted("size=16k,mode=700")
    with pytest.raises(StoreFullError):
        new_run(SqliteStore(folder / "millrace.db"))


def test_a_file_size_limit(path: Path) -> None:
    """`ulimit -f` is a full disk, too."""
    code = f"""if True:
        import resource
        from orchestration.stores.sqlite import SqliteStore
        from orchestration.errors import StoreFullError
        from orchestration.testing.store_entries import ended, new_run
        store = SqliteStore({str(path)!r})
        run_id = new_run(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        try:
            for k in range(1000):
                store.append(run_id, 1, [ended(0, range(k * 50, k * 50 + 50), batch_id=k)])
        except StoreFullError:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            store.append(run_id, 1, [ended(0, [0])])
            print("refused, and went on")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "refused, and went on\n", done.stderr


def test_a_read_only_disk(mounted: Callable[..., Path]) -> None:
    """What is there can be read; what is new is refused with the cure; a remount ends it."""
    folder = mounted("size=5m,mode=700")
    store = SqliteStore(folder / "millrace.db")
    run_id = new_run(store)
    remount = ["mount", "-o", "remount,ro", str(folder)]
    if subprocess.run(remount, capture_output=True, check=False).returncode:
        # Open files forbid it: close them, as another process would find the disk.
        store.close()
        subprocess.run(remount, check=True)
    with pytest.raises(StoreReadOnlyError, match="writable"):
        store.append(run_id, 1, [ended(0, [0])])
    with pytest.raises(StoreReadOnlyError, match="writable"):
        SqliteStore(folder / "other.db")
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    store.append(run_id, 1, [ended(0, [0])])
    store.close()


def test_records_on_a_read_only_disk(mounted: Callable[..., Path]) -> None:
    """A store that was closed can be read where nothing can be written, and written again where that has changed."""
    folder = mounted("size=5m,mode=700")
    store = SqliteStore(folder / "millrace.db")
    run_id = new_run(store)
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    store = SqliteStore(folder / "millrace.db")
    assert store.runs()[0].run_id == run_id
    with pytest.raises(StoreReadOnlyError, match="writable"):
        store.append(run_id, 1, [ended(0, [0])])
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    store.append(run_id, 1, [ended(0, [0])])
    assert store.task_runs(run_id, limit=1)[0].state is State.COMPLETED
    store.close()


def test_records_that_cannot_be_read_without_writing(mounted: Callable[..., Path], path: Path) -> None:
    """A copy of a live store has its newest records in a second file: they are not left out without a word."""
    folder = mounted("size=5m,mode=700")
    live = SqliteStore(path)
    new_run(live)
    for name in (path.name, f"{path.name}-wal"):
        shutil.copy(path.with_name(name), folder)
    live.close()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with pytest.raises(StoreReadOnlyError, match="Copy both files"):
        SqliteStore(folder / path.name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    """A folder without permission is named with the cure."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreReadOnlyError, match="MILLRACE_HOME"):
            SqliteStore(tmp_path / "new" / "millrace.db")
    finally:
        tmp_path.chmod(0o700)


def test_a_foreign_transaction(path: Path) -> None:
    """A database tool with an open transaction: the append waits its time, then names the cause."""
    store = SqliteStore(path, lock_timeout_seconds=0.05)
    run_id = new_run(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreLockedError, match="fuser"):
        store.append(run_id, 1, [ended(0, [0])])
    assert store.task_runs(run_id, limit=1)[0].state is State.PENDING, "reading goes on"
    other.execute("ROLLBACK")
    other.close()
    store.append(run_id, 1, [ended(0, [0])])
    store.close()


def test_a_stopped_process_at_the_gate(path: Path) -> None:
    """Who waits for another process gives up after its time, names it, and gets in when that one is gone."""
    store = SqliteStore(path, lock_timeout_seconds=0.05)
    run_id = new_run(store)
    code = f"import fcntl; f = open('{path}.lock'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(StoreLockedError, match=r"0\.05 s") as caught:
        store.append(run_id, 1, [ended(0, [0])])
    if os.path.exists("/proc/locks"):
        assert f"Process {holder.pid} has held" in str(caught.value)
        assert f"kill -9 {holder.pid}" in str(caught.value)
        assert "suspended" not in str(caught.value)
    holder.kill()
    holder.communicate()
    store.append(run_id, 1, [ended(0, [0])])
    store.close()


def test_a_resumed_node_is_found_by_its_path(path: Path) -> None:
    """A resume that adds as many nodes as there are must not go through all of them for each turn."""
    SqliteStore(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN " + journal._NAMESAKES.format("?, ?"), (1, 1, "a", "b")
        ).fetchall()
    steps = [detail for *_, detail in plan if "node" in detail]
    assert [detail.partition("(")[2] for detail in steps] == [
        "run_no=? AND node_id=?)",
        "run_no=? AND path=?)",
    ]


def test_task_runs_of_one_node_need_no_other_node(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for what runs asks node by node: a loop of 20,000 `submit`s has as many of them."""
    store = SqliteStore(path)
    run_id = new_run(store)
    store.append(run_id, 1, [node(number, 2) for number in range(1, 5)])
    read: list[int] = []
    real = rows._to_node

    def noted(row: tuple[Any, ...]) -> NodeRow:
        made = real(row)
        read.append(made.node_id)
        return made

    monkeypatch.setattr(rows, "_to_node", noted)
    found = store.task_runs(run_id, node_id=3, states=frozenset({State.PENDING}))
    assert [(row.node_id, row.index) for row in found] == [(3, 0), (3, 1)]
    assert store.states(run_id, 3) == bytes(2)
    assert store.task_runs(run_id, node_id=7) == []
    assert read == [3, 3]
    store.close()


def test_damaged_pages(path: Path) -> None:
    """Flipped bytes are reported with the file and the cure, not as a bug."""
    store = SqliteStore(path)
    run_id = new_run(store)
    grow_by = [ended(0, range(k * 50, k * 50 + 50), batch_id=k) for k in range(200)]
    store.append(run_id, 1, grow_by)
    store.close()
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(b ^ 0x5A for b in data[4096:])
    path.write_bytes(data)
    with pytest.raises(StoreCorruptError, match="recover") as caught:
        SqliteStore(path).runs()
    assert str(path) in str(caught.value)
    with pytest.raises(StoreCorruptError):
        SqliteStore(path).append(run_id, 1, grow_by[:1])


def test_a_file_that_is_no_database(path: Path) -> None:
    """A text file under the store's name is left alone."""
    path.parent.mkdir()
    path.write_text("not a database, but long enough to have a header" * 100)
    with pytest.raises(StoreCorruptError, match="no Millrace store"):
        SqliteStore(path)


def test_a_database_of_another_program(path: Path) -> None:
    """Nothing is written into somebody else's database."""
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (url)")
    other.commit()
    with pytest.raises(StoreCorruptError, match="another program"):
        SqliteStore(path)
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    other.close()


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    """Naming a folder says which file to name."""
    with pytest.raises(StoreError, match=r"folder.*millrace\.db"):
        SqliteStore(tmp_path)


def test_a_deleted_store(path: Path) -> None:
    """SQLite would write on into the deleted file; nothing may be acknowledged there."""
    store = SqliteStore(path)
    run_id = new_run(store)
    shutil.rmtree(path.parent)
    with pytest.raises(StoreError):
        store.append(run_id, 1, [ended(0, [0])])
    store.close()


# --- schema --------------------------------------------------------------------------------------


def test_a_newer_schema_is_refused(path: Path) -> None:
    """An old program does not touch a new program's file."""
    SqliteStore(path).close()
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {schema.newest() + 1}")
    other.close()
    with pytest.raises(StoreNewerError, match="Upgrade"):
        SqliteStore(path)


def test_processes_agree_on_the_time_of_leases(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that began after the clock was put forward by an hour does not take a live lease for expired."""
    here, there = SqliteStore(path), SqliteStore(path)
    here.set_limit("db", 1)
    now = here.now()
    assert here.acquire(["db"], holder="a", run_id="r", epoch=1, label="a", slots=1, now=now).granted
    monkeypatch.setattr(
        "orchestration.stores.sqlite.store.process_offset", lambda: now - time.monotonic() + 3600
    )
    assert not there.acquire(
        ["db"], holder="b", run_id="r", epoch=1, label="b", slots=1, now=there.now()
    ).granted
    assert now <= there.now() < now + 60


def test_a_store_that_cannot_tell_whether_clocks_agree(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not say which clock it has, a process keeps its own."""
    monkeypatch.setattr("orchestration.stores.sqlite.store.monotonic_clock_id", lambda: "")
    monkeypatch.setattr("orchestration.stores.sqlite.store.process_offset", lambda: 1e9 - time.monotonic())
    assert 1e9 <= SqliteStore(path).now() < 1e9 + 60


def test_an_older_schema_is_migrated(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of an older version are there after an upgrade, also for a store that is already open."""
    old = SqliteStore(path)
    run_id = new_run(old)
    folder = tmp_path / "migrations"
    shutil.copytree(schema.FOLDER, folder)
    number = schema.newest() + 1
    (folder / f"{number:04}_more.sql").write_text(
        "-- a comment; with a semicolon\nCREATE TABLE extra (x);\nINSERT INTO extra VALUES ('a;b');\n"
    )
    monkeypatch.setattr(schema, "FOLDER", folder)
    new = SqliteStore(path)
    assert new.run(run_id).run_id == run_id
    with new._database.read() as connection:
        assert connection.execute("SELECT x FROM extra").fetchone() == ("a;b",)
        versions = connection.execute("SELECT version FROM schema_version ORDER BY version").fetchall()
    assert versions == [(k,) for k in range(1, number + 1)]
    old.append(run_id, 1, [ended(0, [0])])
    new.close()
    old.close()


def test_runs_of_the_first_schema_can_be_read_and_continued(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first version recorded has no waits and no times of submission; the rest is as it was."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    shutil.copy(schema.FOLDER / "0001_init.sql", folder)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "FOLDER", folder)
        SqliteStore(path).close()
    current = SqliteStore(tmp_path / "current.db")
    run_id = new_run(current)
    current.append(run_id, 1, [ended(0, [3, 4])])
    current.close()
    with sqlite3.connect(path) as old:
        old.execute("ATTACH ? AS current", (str(tmp_path / "current.db"),))
        for table in ("run", "run_history", "node", "journal"):
            columns = ", ".join(row[1] for row in old.execute(f"PRAGMA main.table_info({table})"))
            old.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM current.{table}")
    old.close()
    store = SqliteStore(path)
    assert store.nodes(run_id)[0].waited == (0.0, 0.0, 0.0)
    store.append(run_id, 1, [ended(0, [5])])
    assert [item.index for item in store.task_runs(run_id, states=frozenset({State.COMPLETED}))] == [3, 4, 5]
    store.close()


def test_a_failing_migration_leaves_the_old_schema(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a migration is none."""
    SqliteStore(path).close()
    folder = tmp_path / "migrations"
    shutil.copytree(schema.FOLDER, folder)
    number = schema.newest()
    (folder / f"{number + 1:04}_bad.sql").write_text("CREATE TABLE extra (x);\nCREATE TABLE run (x);\n")
    with monkeypatch.context() as patched:
        patched.setattr(schema, "FOLDER", folder)
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            SqliteStore(path)
    store = SqliteStore(path)
    with store._database.read() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (number,)
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'extra'").fetchone()
    store.close()


# --- the writer ----------------------------------------------------------------------------------


def test_queued_work_shares_a_transaction_but_not_its_faults(path: Path) -> None:
    """What gathers behind a slow writer is committed at once; one caller's mistake stays its own."""
    store = SqliteStore(path)
    run_id = new_run(store)
    base = store._database
    entered, leave = threading.Event(), threading.Event()
    commits: list[int] = []

    def slow(connection: sqlite3.Connection) -> None:
        entered.set()
        leave.wait(10)

    def job(k: int) -> Callable[[sqlite3.Connection], int]:
        def work(connection: sqlite3.Connection) -> int:
            commits.append(connection.execute("SELECT count(*) FROM limit_").fetchone()[0])
            connection.execute("INSERT INTO limit_ VALUES (?, 1, NULL, 1, 0)", (f"l{k % 4}",))
            return k

        return work

    results: list[int] = []
    errors: list[BaseException] = []

    def call(k: int) -> None:
        try:
            results.append(base.write(job(k)))
        except sqlite3.IntegrityError as error:
            errors.append(error)

    threads = [threading.Thread(target=base.write, args=(slow,))]
    threads[0].start()
    entered.wait(10)
    threads += [threading.Thread(target=call, args=(k,)) for k in range(5)]
    for thread in threads[1:]:
        thread.start()
    while len(base._waiting) < 5:
        threading.Event().wait(0.001)
    leave.set()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(errors) == 1
    assert len(store.limits(NOW)) == 4
    store.append(run_id, 1, [Moved(0, [0], State.SUBMITTED, NOW)])
    store.close()


def test_an_interrupted_caller_leaves_nothing_behind(path: Path) -> None:
    """Ctrl-C inside the work rolls back; the next caller is not affected."""
    store = SqliteStore(path)

    def interrupted(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO limit_ VALUES ('x', 1, NULL, 1, 0)")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store._database.write(interrupted)
    assert not store._database._waiting
    assert store.limits(NOW) == []
    store.set_limit("x", 1)
    store.close()


def test_a_fork_gets_connections_of_its_own(path: Path) -> None:
    """Parent and child go on with one store object, on their own connections."""
    store = SqliteStore(path)
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


def test_a_read_cannot_write(path: Path) -> None:
    """Readers are kept from writing by SQLite itself."""
    store = SqliteStore(path)
    with pytest.raises(StoreReadOnlyError), store._database.read() as connection:
        connection.execute("INSERT INTO limit_ VALUES ('x', 1, NULL, 1, 0)")
    store.close()


def test_a_second_run_of_one_id_is_refused(path: Path) -> None:
    """And the store works on."""
    store = SqliteStore(path)
    store.create_run(RunRow("a", "a", "f"))
    with pytest.raises(UserError):
        store.create_run(RunRow("a", "a", "f"))
    store.create_run(RunRow("b", "b", "f"))
    store.close()


def test_a_file_that_becomes_a_store_while_it_is_looked_at(tmp_path: Path) -> None:
    """What is read of a new file is of one moment: it is empty or a store, never another program's."""
    path = str(tmp_path / "millrace.db")
    reader = sqlite3.connect(path, isolation_level=None)

    class Slow:
        """Another process makes the file a store between two things that are read of it."""

        in_transaction = False

        def execute(self, statement: str) -> sqlite3.Cursor:
            if statement.startswith("SELECT count"):
                writer = sqlite3.connect(path, isolation_level=None, timeout=0)
                with contextlib.suppress(sqlite3.OperationalError):  # it is looked at
                    schema.migrate(writer, path)
                writer.close()
            return reader.execute(statement)

    assert schema.version_of(Slow(), path) == 0  # type: ignore[arg-type]
    reader.close()


def test_a_file_that_was_moved_away_is_missed(tmp_path: Path) -> None:
    """By who reads and who writes: SQLite itself goes on with it. Put back it is used again; another is read anew."""
    path, other = tmp_path / "here.db", tmp_path / "other.db"
    for place, name in ((path, "0"), (other, "1")):
        made = SqliteStore(place)
        new_run(made, name)
        made.close()
    store = SqliteStore(path)
    assert [run.run_id for run in store.runs()] == ["0"]
    store.set_limit("db", 1)
    path.rename(tmp_path / "away.db")
    with pytest.raises(StoreError, match="is gone: it was moved or deleted"):
        store.runs()
    with pytest.raises(StoreError, match="is gone: it was moved or deleted"):
        store.set_limit("db", 2)
    (tmp_path / "away.db").rename(path)
    assert [run.run_id for run in store.runs()] == ["0"]
    store.set_limit("db", 3)
    for ending in ("-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)
    other.rename(path)
    assert [run.run_id for run in store.runs()] == ["1"]
    store.close()
