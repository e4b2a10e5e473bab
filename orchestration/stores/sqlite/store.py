"""SqliteStore: the port over one file."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

from ...core.states import RUN_TERMINAL, RunState
from ...errors import StoreError
from ..clock import monotonic_clock_id, process_offset
from ..newsroom import Newsroom
from ..sql.connection import Connection
from ..sql.store import SqlStore
from .database import LOCK_TIMEOUT_SECONDS, Database
from .schema import newest

T = TypeVar("T")
LIVE = frozenset(RunState) - RUN_TERMINAL
LOOK_SECONDS = 0.01  # looking whether another process has written costs some microseconds
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
        self._news = -1
        _open.add(self)

    def close(self) -> None:
        self._database.close()

    def now(self) -> float:
        return self._offset + time.monotonic()

    @cached_property
    def _offset(self) -> float:
        """What the first process since the machine's start has added to the monotonic clock, which they share."""
        clock, own = monotonic_clock_id(), process_offset()
        if not clock:
            return own

        def find(connection: Connection) -> float | None:
            found = connection.execute("SELECT offset_seconds FROM clock WHERE id = ?", (clock,)).fetchone()
            return None if found is None else float(found[0])

        def found_or_made(connection: Connection) -> float:
            found = find(connection)
            if found is None:
                connection.execute("DELETE FROM clock")
                connection.execute("INSERT INTO clock (id, offset_seconds) VALUES (?, ?)", (clock, own))
            return own if found is None else found

        found = self._read(find)
        try:
            return self._write(found_or_made) if found is None else found
        except StoreError:  # who cannot write holds no leases
            return own

    @cached_property
    def _newsroom(self) -> Newsroom:
        return Newsroom(self._fresh_news, LOOK_SECONDS)

    def _fresh_news(self) -> int:
        """Return how often others may have got a lease since the last call; 1 for the first."""
        if not self._database.has_changed():
            return 0
        (number,) = self._read(lambda c: c.execute("SELECT number FROM lease_news").fetchone())
        before, self._news = self._news, int(number)
        return 1 if before < 0 else self._news - before

    @classmethod
    def versions(cls, path: str) -> tuple[int, int]:
        """Return the schema's version in a file, which is left as it is, and the one that this program wants."""
        return Database(os.path.realpath(path)).version(), newest()

    def integrity(self) -> list[str]:
        found = self._read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
        return [text for (text,) in found if text != "ok"]

    def reclaim(self) -> int | None:
        if self.runs(states=LIVE, limit=1):
            return None  # it would have to wait while the whole file is written anew
        before = os.path.getsize(self.path)
        self._database.vacuum()
        return max(0, before - os.path.getsize(self.path))

    def _write(self, work: Callable[[Connection], T], limits: Sequence[str] = ()) -> T:
        return self._database.write(work, limits)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._database.read() as connection:
            return work(connection)


def _after_fork() -> None:
    for store in list(_open):
        store._database.after_fork()
        store._newsroom.after_fork()


os.register_at_fork(after_in_child=_after_fork)
