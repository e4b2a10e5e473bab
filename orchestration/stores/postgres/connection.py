"""A connection as the shared statements need it: `?` for values, COPY for many rows."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import psycopg

# PostgreSQL counts a transaction's locks by row, so what is read to be changed has to be locked.
FOR_UPDATE = "FOR UPDATE"
_COPY_FROM_ROWS = 4  # fewer are as fast in one INSERT each, which needs one answer less
# Of the tables that `insert` is used for. Binary COPY converts nothing, so types have to be told.
_TYPES = {
    **dict.fromkeys(("at", "submitted_at", "cpu_seconds"), "float8"),
    **dict.fromkeys(
        ("indices", "states", "outcomes", "attempts", "positions", "started", "seconds"), "bytea"
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
    """Wraps a connection whose transactions its owner begins and ends."""

    for_update = FOR_UPDATE

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        return self.raw.execute(_translated(statement), values, binary=True)

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> None:
        with self.raw.cursor() as cursor:
            cursor.executemany(_translated(statement), rows)

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        names = ", ".join(columns)
        if len(rows) < _COPY_FROM_ROWS:
            marks = ", ".join("?" * len(columns))
            self.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
            return
        statement = f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)".encode()
        with self.raw.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([_TYPES.get(column, "int8") for column in columns])
            for row in rows:
                copy.write_row(row)


@functools.lru_cache(maxsize=256)
def _translated(statement: str) -> bytes:
    return statement.replace("%", "%%").replace("?", "%s").encode()
