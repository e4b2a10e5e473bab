"""SqliteStore: the port over one file."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TypeVar

from ..sql.connection import Connection
from ..sql.store import SqlStore
from .database import LOCK_TIMEOUT_SECONDS, Database

T = TypeVar("T")
_open: weakref.WeakSet[SqliteStore] = weakref.WeakSet()


class SqliteStore(SqlStore):
    """A store in one SQLite file, for any number of threads and processes of one machine.

    Args:
        path: of the file; it and its folder are made if they do not exist.
        lock_timeout_seconds: how long others may hold the write lock before `StoreLockedError`.

    Raises:
        StoreError: the file cannot be made, read or written, is damaged, or is of a newer version.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS
    ) -> None:
        # The real path: two ways to one file must meet at one gate.
        self.path = os.path.realpath(path)
        self.url = f"sqlite:///{self.path}"
        self._database = Database(self.path, lock_timeout_seconds)
        self._database.open()
        _open.add(self)

    def close(self) -> None:
        self._database.close()

    def _write(self, work: Callable[[Connection], T]) -> T:
        return self._database.write(work)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._database.read() as connection:
            return work(connection)


def _after_fork() -> None:
    for store in list(_open):
        store._database.after_fork()


os.register_at_fork(after_in_child=_after_fork)
