"""Brings a file to this version's schema: numbered SQL files, each applied in a transaction of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..sql.migrations import migrations
from .faults import corrupt, newer

FOLDER = Path(__file__).parents[1] / "migrations" / "sqlite"
APPLICATION_ID = 0x4D494C4C  # "MILL": tells our files from other programs' databases


def newest() -> int:
    return migrations(FOLDER)[-1][0]


def is_current(connection: sqlite3.Connection, path: str) -> bool:
    """Tell whether the file needs no migration.

    Raises:
        StoreNewerError, StoreCorruptError
    """
    return version_of(connection, path) == newest()


def version_of(connection: sqlite3.Connection, path: str) -> int:
    """Return the number of the newest migration that was applied; 0 of an empty file.

    Raises:
        StoreNewerError, StoreCorruptError
    """
    with _one_state(connection):
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        owner: int = connection.execute("PRAGMA application_id").fetchone()[0]
        tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if owner != APPLICATION_ID and (owner or version or tables):
        raise corrupt(path, "it is the database of another program")
    known = newest()
    if version > known:
        raise newer(path, version, known)
    return version


@contextmanager
def _one_state(connection: sqlite3.Connection) -> Iterator[None]:
    """See the file as it is at one moment, though another process may be making it a store just now."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Apply what is missing; the caller keeps other processes out."""
    if is_current(connection, path):
        return
    connection.execute("PRAGMA journal_mode = WAL")
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    for number, file in migrations(FOLDER):
        if number <= version:
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(file.read_text(encoding="utf-8")):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO schema_version (version, applied_at) VALUES (?, datetime('now'))", (number,)
            )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _statements(script: str) -> Iterator[str]:
    # executescript would commit the transaction it finds open.
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
