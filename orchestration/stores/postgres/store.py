"""PostgresStore: the port over a database of a PostgreSQL server."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

from ..newsroom import Newsroom
from ..patience import PATIENCE_SECONDS
from ..sql.connection import Connection
from ..sql.store import SqlStore
from .address import Address
from .database import Database
from .listening import PostgresNewsroom
from .schema import newest

T = TypeVar("T")
_open: weakref.WeakSet[PostgresStore] = weakref.WeakSet()


class PostgresStore(SqlStore):
    """A store in one database, for any number of processes and machines. Its tables are in the schema `millrace`.

    Args:
        url: as libpq takes it, `postgresql://user@host:5432/database?sslmode=verify-full`.
        patience_seconds: how long a server that has gone away is waited for.

    Raises:
        UserError: the URL cannot be read.
        StoreError: the server cannot be reached or used, or its schema is of a newer version.
    """

    def __init__(self, url: str, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        address = Address(url)
        self.url = address.shown
        self._database = Database(address, patience_seconds)
        self._database.open()
        _open.add(self)

    @property
    def address(self) -> str:
        return self._database.address.url

    def close(self) -> None:
        self._database.close()

    def now(self) -> float:
        return self._offset + time.monotonic()

    @cached_property
    def _offset(self) -> float:
        """What to add to this process's monotonic clock to get the server's, which all processes share."""
        before = time.monotonic()
        (there,) = self._read(lambda c: c.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone())
        return float(there) - (before + time.monotonic()) / 2

    @cached_property
    def _newsroom(self) -> Newsroom:
        return PostgresNewsroom(self._database)

    @classmethod
    def versions(cls, url: str) -> tuple[int, int]:
        """Return the schema's version in a database, which is left as it is, and the one that this program wants."""
        return Database(Address(url), 0.0).version(), newest()

    def integrity(self) -> list[str]:
        # What is checked next reads every row but those of log lines: a page whose checksum is wrong is an error.
        return []

    def reclaim(self) -> int | None:
        self._database.vacuum()
        return None

    def _write(self, work: Callable[[Connection], T], limits: Sequence[str] = ()) -> T:
        return self._database.write(work, limits)

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._database.read(work)


def _after_fork() -> None:
    for store in list(_open):
        store._database.after_fork()
        store._newsroom.after_fork()


os.register_at_fork(after_in_child=_after_fork)
