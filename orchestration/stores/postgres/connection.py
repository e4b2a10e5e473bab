"""A connection as the shared statements need it: `?` for values, COPY for many rows."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import psycopg

_COPY_FROM_ROWS = 20  # fewer are faster in one INSERT each, for which nobody waits
# Of the tables that `insert` is used for. Binary COPY converts nothing, so types have to be told.
_TYPES = {
    **dict.fromkeys(("at", "submitted_at", "cpu_seconds"), "float8"),
    **dict.fromkeys(
        ("indices", "states", "outcomes", "attempts", "positions", "started", "seconds", "roots"), "bytea"
    ),
    **dict.fromkeys(
        (
            "details",
            "names",
            "execution_id",
            "worker",
            "stored_url",
            "stored_digest",
            "reason",
            "name",
            "logger",
            "message",
        ),
        "text",
    ),
}


class PostgresConnection:
    """Wraps a connection. A transaction is a pipeline: only who reads what a statement has found waits for it."""

    for_update = "FOR UPDATE"

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw
        self._pipeline = contextlib.ExitStack()

    def begin(self) -> None:
        self._pipeline.enter_context(self.raw.pipeline())
        self.raw.execute(b"BEGIN", prepare=False)

    def commit(self) -> None:
        """End the transaction, and raise what its statements have not raised yet."""
        self.raw.execute(b"COMMIT", prepare=False)
        self._pipeline.close()

    def roll_back(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._pipeline.close()
        self.raw.execute(b"ROLLBACK", prepare=False)

    def close(self) -> None:
        """Let go of the server, whatever the transaction was at."""
        self.raw.close()
        with contextlib.suppress(psycopg.Error):
            self._pipeline.close()

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        return self.raw.execute(_translated(statement), values, binary=True)

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> None:
        with self.raw.cursor() as cursor:
            cursor.executemany(_translated(statement), rows)

    def insert(self, table: str, columns: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> None:
        names = ", ".join(columns)
        if len(rows) < _COPY_FROM_ROWS:
            marks = ", ".join("?" * len(columns))
            self.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
            return
        self._pipeline.close()  # COPY cannot be part of one
        statement = f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)".encode()
        with self.raw.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([_TYPES.get(column, "int8") for column in columns])
            for row in rows:
                copy.write_row(row)
        self._pipeline.enter_context(self.raw.pipeline())


@functools.lru_cache(maxsize=256)
def _translated(statement: str) -> bytes:
    return statement.replace("%", "%%").replace("?", "%s").encode()
