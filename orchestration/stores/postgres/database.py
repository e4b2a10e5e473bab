"""The server: one connection that writes, a few that read, and what is done when they break.

A connection that breaks in COMMIT leaves open whether the transaction is there. So each process has a row in
the table `writer` and puts the number of a transaction into it as the transaction's first statement. A new
connection reads the row under its lock, and thereby waits for an old session that is still at work; the
number there tells whether the transaction has to be repeated.
"""

from __future__ import annotations

import contextlib
import random
import threading
import uuid
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg import errors

from ...errors import StoreError, StoreUnreachableError
from ..patience import FIRST_NAP_SECONDS, Patience
from ..sql.grouping import GroupCommit, Job
from . import schema
from .address import Address
from .connection import PostgresConnection
from .faults import explain, is_conflict, is_lost, unreachable

MAX_READERS = 3  # at once, whatever the number of threads: a server has few connections
_MOST_CONFLICTS = 20
_SETTINGS = (
    f"SET search_path = {schema.SCHEMA}; SET lock_timeout = '30s'; "
    # A process that was stopped in a transaction must not make all others wait.
    "SET idle_in_transaction_session_timeout = '60s'"
).encode()
_TO_WRITE = b"SET default_transaction_isolation = 'read committed'"
_TO_READ = b"SET default_transaction_isolation = 'repeatable read'; SET default_transaction_read_only = on"
_REGISTER = """
    INSERT INTO writer (writer_id, number, at) VALUES (%s, 0, extract(epoch FROM now()))
    ON CONFLICT (writer_id) DO UPDATE SET at = excluded.at RETURNING number"""

_NUMBER = """
    INSERT INTO writer (writer_id, number, at) VALUES (%s, %s, extract(epoch FROM now()))
    ON CONFLICT (writer_id) DO UPDATE SET number = excluded.number, at = excluded.at RETURNING number"""
_LOCK_LIMIT = "SELECT name FROM limit_ WHERE name = %s FOR UPDATE"

T = TypeVar("T")
_left_to_parents: list[Any] = []  # connections must not be used, nor even closed, on the other side of a fork


class Database(GroupCommit[PostgresConnection]):
    """A store's database.

    Args:
        patience_seconds: how long a server is waited for that this process has reached before.
    """

    def __init__(self, address: Address, patience_seconds: float) -> None:
        self.address = address
        self.patience_seconds = patience_seconds
        self._forget()

    def _forget(self) -> None:
        super()._forget()
        self._writer: PostgresConnection | None = None
        self._writer_id = uuid.uuid4().hex
        self._number = 0  # of this process's newest transaction
        self._committing = False
        self._reading = threading.BoundedSemaphore(MAX_READERS)
        self._readers: list[PostgresConnection] = []
        self.reached = False
        self._current = False  # the schema is
        self.closing = threading.Event()

    def after_fork(self) -> None:
        """Start anew in a child process; what the parent has open stays its own."""
        _left_to_parents.append((self._writer, self._readers))
        self._forget()

    def open(self) -> None:
        """See that the database is a store, and bring it to this version's schema."""
        self.read(lambda connection: None)

    def read(self, work: Callable[[PostgresConnection], T]) -> T:
        """Do `work` in a transaction that sees one state of the database; it may be called more than once."""
        waiting = _Waiting(self)
        with self._reading:
            while True:
                connection = None
                try:
                    connection = self._readers.pop() if self._readers else self._connect_reader()
                    connection.begin()
                    result = work(connection)
                    connection.commit()
                except psycopg.Error as error:
                    waiting.after(error, connection)
                except BaseException:
                    _drop(connection)
                    raise
                else:
                    self._readers.append(connection)
                    waiting.over()
                    return result

    def version(self) -> int:
        """Return the number of the newest migration that was applied, and apply none."""
        try:
            with psycopg.connect(**self.address.parameters, autocommit=True) as raw:
                return schema.version_of(raw, self.address.shown)
        except psycopg.Error as error:
            self.explain(error, lost=is_lost(error, None))

    def vacuum(self) -> None:
        """Let the room of deleted rows be used again. Nobody waits meanwhile."""
        try:
            with self._connect(_TO_WRITE).raw as raw:
                raw.execute(
                    "DELETE FROM writer WHERE at < extract(epoch FROM now()) - 7 * 86400"
                )  # left by the dead
                raw.execute("VACUUM run, node, journal, error, failure, run_history, log, lease, writer")
        except psycopg.Error as error:
            self.explain(error, lost=is_lost(error, None))

    def explain(self, error: psycopg.Error, *, lost: bool) -> NoReturn:
        """Raise what has happened, in words that name the server."""
        shown = self.address.shown
        explained = unreachable(error, shown) if lost else explain(error, shown)
        if explained is error:
            raise error
        raise explained from error

    def listener(self, channel: str) -> psycopg.Connection[Any]:
        """Return a connection of its own that hears of a channel; its owner closes it."""
        return self._connect(f"LISTEN {channel}".encode()).raw

    def close(self) -> None:
        """Close everything; the next use opens it again."""
        self.closing.set()
        with self._lock:
            readers, self._readers = self._readers, []
            for reader in readers:
                _drop(reader)
            writer, self._writer = self._writer, None
            if writer is not None:
                with contextlib.suppress(psycopg.Error):
                    writer.raw.execute("DELETE FROM writer WHERE writer_id = %s", (self._writer_id,))
                _drop(writer)
            self.closing.clear()
            self._current = False

    # --- writing, with self._lock held ----------------------------------------------------------

    def _transact(self, jobs: list[Job[PostgresConnection]]) -> None:
        self._number += 1
        waiting = _Waiting(self)
        while not jobs[0].done:
            connection, self._writer = self._writer, None
            try:
                if connection is None:
                    connection = self._connect_writer(jobs)
                else:
                    self._attempt(connection, jobs)
            except psycopg.Error as error:
                waiting.after(error, connection)
            except BaseException as error:
                self._give_up(connection, jobs, error)
                raise
            else:
                self._writer = connection
        waiting.over()

    def _attempt(self, connection: PostgresConnection, jobs: list[Job[PostgresConnection]]) -> None:
        self._committing = False
        connection.begin()
        numbered = connection.raw.execute(_NUMBER, (self._writer_id, self._number))
        for name in sorted({name for job in jobs for name in job.limits}):
            connection.raw.execute(_LOCK_LIMIT, (name,))
        for job in jobs:
            job.result = job.work(connection)
        # No COMMIT may leave before the row is known to be locked: a server that had not come to it would let a new
        # connection find the old number, and commit afterwards.
        numbered.fetchone()
        self._committing = True
        connection.commit()
        for job in jobs:
            job.done = True

    def _give_up(
        self, connection: PostgresConnection | None, jobs: list[Job[PostgresConnection]], error: BaseException
    ) -> None:
        """End a transaction that was broken off: by an error of a job, or by an exception sent to this thread."""
        if self._committing:  # whether COMMIT has been heard, a new connection finds out
            _drop(connection)
            with contextlib.suppress(psycopg.Error, StoreError):
                self._writer = self._connect_writer(jobs)
        elif connection is None or not isinstance(error, Exception):
            _drop(connection)
        else:
            try:
                connection.roll_back()
            except psycopg.Error:
                _drop(connection)
            else:
                self._writer = connection

    # --- connections ----------------------------------------------------------------------------

    def _connect_writer(self, jobs: list[Job[PostgresConnection]]) -> PostgresConnection:
        """Return a connection; jobs whose transaction turns out to be committed are marked as done."""
        connection = self._connect(_TO_WRITE)
        try:
            row = connection.raw.execute(_REGISTER, (self._writer_id,)).fetchone()
        except errors.LockNotAvailable as error:
            _drop(connection)
            raise psycopg.OperationalError("an older session of this process is still at work") from error
        except BaseException:
            _drop(connection)
            raise
        if row is not None and row[0] == self._number:
            for job in jobs:
                job.done = True
        return connection

    def _connect_reader(self) -> PostgresConnection:
        return self._connect(_TO_READ)

    def _connect(self, settings: bytes) -> PostgresConnection:
        raw = psycopg.connect(**self.address.parameters, autocommit=True)
        try:
            raw.execute(_SETTINGS)
            if not self._current:
                if schema.version_of(raw, self.address.shown) < schema.newest():
                    schema.migrate(raw, self.address.shown)
                self._current = True
            raw.execute(settings)
        except BaseException:
            raw.close()
            raise
        self.reached = True
        return PostgresConnection(raw)


class _Waiting:
    """Waits, with patience, for a server that has gone away in one call."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._conflicts = 0
        shown = database.address.shown
        self._patience = Patience(
            database.patience_seconds,
            database.closing,
            lambda error, waited: unreachable(error, shown, waited),
        )

    def after(self, error: psycopg.Error, connection: PostgresConnection | None) -> None:
        """Return when it is time to try again.

        Raises:
            StoreError, psycopg.Error: trying again is of no use, or there is no more patience.
        """
        lost = is_lost(error, connection.raw if connection is not None else None)
        _drop(connection)
        if is_conflict(error) and self._conflicts < _MOST_CONFLICTS:
            self._conflicts += 1
            self._database.closing.wait(random.random() * FIRST_NAP_SECONDS)
        elif lost and self._database.reached:
            self._wait(error)
        else:
            self._database.explain(error, lost=lost)

    def over(self) -> None:
        self._patience.over()

    def _wait(self, error: psycopg.Error) -> None:
        try:
            self._patience.nap(error)
        except StoreUnreachableError:
            self._database.reached = False  # who asks next does not wait all over again
            raise


def _drop(connection: PostgresConnection | None) -> None:
    if connection is not None:
        connection.close()
