"""The file: one connection that writes, a few that read, and who may write when.

Writing. There is one write connection per process, and no writer thread (sql/grouping.py).

Other processes wait at the gate (gate.py), so that SQLite's own locks never make anyone wait.
"""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NoReturn

from ...errors import StoreError
from ..sql.grouping import GroupCommit, Job
from . import schema
from .faults import explain, is_frozen, locked
from .gate import Gate

LOCK_TIMEOUT_SECONDS = 30.0
CHECKPOINT_BYTES = 8 << 20  # of the -wal file; a checkpoint of so much takes 10-30 ms on a local disk
MAX_IDLE_READERS = 4

logger = logging.getLogger(__name__)
_left_to_parents: list[Any] = []  # connections must not be used, nor even closed, on the other side of a fork


class SqliteConnection(sqlite3.Connection):
    """A connection as the shared statements need it."""

    for_update = ""  # a write transaction has the file to itself

    def insert(self, table: str, columns: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> None:
        self.executemany(_insertion(table, columns), rows)


@functools.lru_cache
def _insertion(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({','.join('?' * len(columns))})"


class Database(GroupCommit[SqliteConnection]):
    """A store's file.

    Args:
        path: absolute; made, readable by its owner only, if it does not exist.
        lock_timeout_seconds: how long other processes may hold the write lock.
    """

    def __init__(self, path: str, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS) -> None:
        self.path = path
        self._timeout = lock_timeout_seconds
        self._forget()

    def _forget(self) -> None:
        super()._forget()
        self._writer: SqliteConnection | None = None
        self._gate: Gate | None = None
        self._readers: list[SqliteConnection] = []
        self._watcher: SqliteConnection | None = None
        self._seen_version = 0
        self._inode = 0  # of the file that is written
        self._read_inode = 0
        self._checked = False
        self._frozen = (
            False  # nobody can write it: read it without the files that SQLite would make beside it
        )
        self._checkpoint_at = CHECKPOINT_BYTES

    def after_fork(self) -> None:
        """Start anew in a child process; what the parent has open stays its own."""
        _left_to_parents.append((self._writer, self._readers, self._watcher))
        gate = self._gate
        self._forget()
        if gate is not None:
            gate.close()  # else the child would keep the parent's lock alive when that dies

    def open(self) -> None:
        """Make the file, or see that it is a store, and bring it to this version's schema."""
        try:
            self._create_file()
            if not self._is_current():
                with self._lock, self._turn() as connection:
                    schema.migrate(connection, self.path)
        except (sqlite3.Error, OSError) as error:
            self._raise(error)
        self._checked = True

    def _is_current(self) -> bool:
        try:
            with closing(self._connect()) as reader:
                return schema.is_current(reader, self.path)
        except sqlite3.OperationalError as error:
            if not is_frozen(error, self.path):
                raise
        self._frozen = True
        with closing(self._connect()) as reader:
            return schema.is_current(reader, self.path)

    @contextmanager
    def read(self) -> Iterator[SqliteConnection]:
        """Lend a connection that sees one consistent state of the file and cannot write."""
        try:
            if not self._checked:
                self.open()
            connection, inode = self._reader()
        except (sqlite3.Error, OSError) as error:
            self._raise(error)
        try:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            connection.close()  # a rollback could fail for the same reason
            if isinstance(error, sqlite3.Error):
                self._raise(error)
            raise
        if len(self._readers) < MAX_IDLE_READERS and inode == self._read_inode:
            self._readers.append(connection)
        else:
            connection.close()

    def _reader(self) -> tuple[SqliteConnection, int]:
        """Return a connection to the file that is there now: SQLite would go on to read one that was moved away."""
        inode = os.stat(self.path).st_ino
        if inode != self._read_inode:
            readers, self._readers, self._read_inode = self._readers, [], inode
            for reader in readers:
                reader.close()
        return self._readers.pop() if self._readers else self._connect(), inode

    def has_changed(self) -> bool:
        """Whether anything was written since the last call. From one thread at a time."""
        if self._watcher is None:
            self._watcher = self._connect()
        (version,) = self._watcher.execute("PRAGMA data_version").fetchone()
        before, self._seen_version = self._seen_version, version
        return bool(before != version)

    def version(self) -> int:
        """Return the number of the newest migration that was applied, and apply none; 0 where there is no file."""
        if not os.path.exists(self.path):
            return 0
        try:
            with closing(self._connect()) as reader:
                return schema.version_of(reader, self.path)
        except (sqlite3.Error, OSError) as error:
            self._raise(error)

    def vacuum(self) -> None:
        """Write the file anew without its gaps. Others wait meanwhile."""
        try:
            with self._lock, self._turn() as connection:
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except (sqlite3.Error, OSError) as error:
            self._raise(error)

    def close(self) -> None:
        """Close everything; the next use opens it again."""
        with self._lock:
            watcher, self._watcher = self._watcher, None
            if watcher is not None:
                watcher.close()
            readers, self._readers = self._readers, []
            for reader in readers:
                reader.close()
            self._close_writer()
            if self._gate is not None:
                self._gate.close()
                self._gate = None

    # --- writing, with self._lock held ----------------------------------------------------------

    def _transact(self, jobs: list[Job[SqliteConnection]]) -> None:
        try:
            if not self._checked:
                self._create_file()
            with self._turn() as connection:
                if not self._checked:
                    schema.migrate(connection, self.path)
                    self._checked = True
                self._run(connection, jobs)
        except (sqlite3.Error, OSError) as error:
            self._close_writer()  # after an I/O error a connection's view of the file is not to be trusted
            self._raise(error)

    def _run(self, connection: SqliteConnection, jobs: list[Job[SqliteConnection]]) -> None:
        committing = False
        connection.execute("BEGIN IMMEDIATE")
        try:
            for job in jobs:
                job.result = job.work(connection)
            committing = True
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                committing = False
                connection.execute("ROLLBACK")
            raise
        finally:
            # Also when an interrupt arrives right after COMMIT: what is written must not be written again.
            if committing and not connection.in_transaction:
                for job in jobs:
                    job.done = True
        self._checkpoint_if_due(connection)

    @contextmanager
    def _turn(self) -> Iterator[SqliteConnection]:
        if self._gate is None:
            self._gate = Gate(self.path)
        if not self._gate.enter(self._timeout):
            raise locked(self.path, self._timeout, self._gate.holder())
        try:
            if self._writer is None:
                self._writer = self._connect_writer()
            elif os.stat(self.path).st_ino != self._inode:
                # SQLite would go on to write into the deleted file.
                raise StoreError(f"The store {self.path} was replaced or restored while in use. Start again.")
            yield self._writer
        finally:
            self._gate.leave()

    def _checkpoint_if_due(self, connection: SqliteConnection) -> None:
        # Passive: waits for nobody. The gate is ours, so nobody writes meanwhile (see gate.py).
        try:
            size = os.stat(f"{self.path}-wal").st_size
            if size < self._checkpoint_at:
                return
            _, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            # A reader that looks at an old state keeps the file from starting anew: try again later.
            self._checkpoint_at = CHECKPOINT_BYTES if moved == frames else size + CHECKPOINT_BYTES
        except (sqlite3.Error, OSError) as error:
            # The transaction is safe in the -wal file; the next write will report what lasts.
            self._checkpoint_at += CHECKPOINT_BYTES
            logger.warning("A checkpoint of %s failed and will be tried again: %s", self.path, error)

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        # The last connection of all makes a checkpoint; it has the file for itself and needs no gate.
        try:
            writer.close()
        except sqlite3.Error as error:
            logger.debug("Closing %s: %s", self.path, error)

    def _raise(self, error: sqlite3.Error | OSError) -> NoReturn:
        explained = explain(error, self.path)
        if explained is error:
            raise error
        raise explained from error

    # --- connections ----------------------------------------------------------------------------

    def _create_file(self) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass

    def _connect(self) -> SqliteConnection:
        quoted = self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        connection = sqlite3.connect(
            # Never create: a store that was deleted must not come back empty.
            f"file:{quoted}?{'immutable=1' if self._frozen else 'mode=rw'}",
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            factory=SqliteConnection,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _connect_writer(self) -> SqliteConnection:
        self._inode = os.stat(self.path).st_ino
        if self._frozen:  # no longer: the gate is open
            self._frozen = False
            readers, self._readers = self._readers, []
            for reader in readers:
                reader.close()
        connection = self._connect()
        for pragma in (
            "query_only = OFF",
            "synchronous = NORMAL",
            "wal_autocheckpoint = 0",
            "journal_size_limit = 0",  # the -wal file's size then tells how much a checkpoint has to move
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection
