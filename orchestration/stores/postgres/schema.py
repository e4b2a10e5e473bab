"""Brings a database to this version's schema, one process at a time."""

from __future__ import annotations

from pathlib import Path

import psycopg

from ..sql.migrations import migrations
from .faults import foreign, newer

FOLDER = Path(__file__).parents[1] / "migrations" / "postgres"
SCHEMA = "millrace"
_LOCK = 0x4D494C4C  # "MILL", of advisory locks


def newest() -> int:
    return migrations(FOLDER)[-1][0]


def version_of(raw: psycopg.Connection, shown: str) -> int:
    """Return the number of the newest migration that was applied; 0 of an empty database.

    Raises:
        StoreNewerError, StoreCorruptError
    """
    tables = {
        name
        for (name,) in raw.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s", (SCHEMA,)
        ).fetchall()
    }
    if not tables:
        return 0
    if "schema_version" not in tables:
        raise foreign(shown)
    row = raw.execute("SELECT coalesce(max(version), 0) FROM millrace.schema_version").fetchone()
    assert row is not None
    version: int = row[0]
    if version > newest():
        raise newer(shown, version, newest())
    return version


def migrate(raw: psycopg.Connection, shown: str) -> None:
    """Apply what is missing, each file in a transaction of its own."""
    for number, file in migrations(FOLDER):
        with raw.transaction():
            raw.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if number <= version_of(raw, shown):
                continue  # another process was faster
            raw.execute("CREATE SCHEMA IF NOT EXISTS millrace")
            raw.execute(file.read_bytes())
            raw.execute("INSERT INTO schema_version (version) VALUES (%s)", (number,))
