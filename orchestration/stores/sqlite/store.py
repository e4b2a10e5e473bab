"""SqliteStore: the port over one file. Each method is one transaction; the SQL is in the modules beside."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runners.messages import Detail

from ...core.journal import Entry
from ...core.states import RunState, State
from .. import limits as rules
from .. import replay
from ..base import (
    AttemptRow,
    Grant,
    HistoryRow,
    LeaseRow,
    Limit,
    LogRow,
    NodeRow,
    RecoveredNode,
    Requests,
    RunRow,
    Store,
    TaskRunRow,
)
from ..timing import RunTiming, timing
from . import journal, leases, runs
from .database import LOCK_TIMEOUT_SECONDS, Database
from .rows import LOG_COLUMNS, RunView, to_detail, to_log
from .text import clean

_open: weakref.WeakSet[SqliteStore] = weakref.WeakSet()


class SqliteStore(Store):
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

    # --- a run's own process --------------------------------------------------------------------

    def create_run(self, run: RunRow) -> None:
        self._database.write(lambda connection: runs.create(connection, run))

    def claim(self, run_id: str, *, host: str, pid: int, now: float) -> RunRow:
        return self._database.write(lambda connection: runs.claim(connection, run_id, host, pid, now))

    def append(self, run_id: str, epoch: int, entries: Sequence[Entry]) -> None:
        self._database.write(lambda connection: journal.append(connection, run_id, epoch, entries))

    def heartbeat(self, run_id: str, epoch: int, now: float) -> Requests:
        def work(connection: sqlite3.Connection) -> Requests:
            asked = runs.beat(connection, run_id, epoch, now)
            if not asked.fenced:
                leases.renew(connection, run_id, now)
            return asked

        return self._database.write(work)

    def requests(self, run_id: str, epoch: int) -> Requests:
        with self._database.read() as connection:
            return runs.requests(connection, run_id, epoch)

    def recovered(self, run_id: str) -> dict[str, RecoveredNode]:
        with self._view(run_id) as view:
            return replay.recovered(view)

    def timing(self, run_id: str) -> RunTiming:
        with self._view(run_id) as view:
            return timing(view)

    def next_ids(self, run_id: str) -> tuple[int, int]:
        with self._database.read() as connection:
            return runs.next_ids(connection, run_id)

    # --- other processes ------------------------------------------------------------------------

    def request(self, run_id: str, *, cancel: bool | None = None, pause: bool | None = None) -> None:
        self._database.write(lambda connection: runs.request(connection, run_id, cancel, pause))

    def reap(self, now: float) -> list[str]:
        with self._database.read() as connection:
            if not runs.dead(connection, now):
                return []  # the usual case does not write
        return self._database.write(lambda connection: runs.reap(connection, now))

    def runs(
        self,
        *,
        states: frozenset[RunState] | None = None,
        flow_name: str | None = None,
        parent_run_id: str | None = None,
        limit: int = 50,
        before: float | None = None,
    ) -> list[RunRow]:
        with self._database.read() as connection:
            return runs.listing(
                connection,
                states=states,
                flow_name=flow_name,
                parent_run_id=parent_run_id,
                limit=limit,
                before=before,
            )

    def run(self, run: str) -> RunRow:
        with self._database.read() as connection:
            return runs.find(connection, run, self.url)

    def nodes(self, run_id: str) -> list[NodeRow]:
        with self._view(run_id) as view:
            return view.nodes()

    def task_runs(
        self,
        run_id: str,
        *,
        node_id: int | None = None,
        states: frozenset[State] | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> list[TaskRunRow]:
        with self._view(run_id) as view:
            return replay.task_runs(view, node_id, states, offset, limit)

    def attempts(self, run_id: str, node_id: int, index: int) -> list[AttemptRow]:
        with self._view(run_id) as view:
            return replay.attempts(view, node_id, index)

    def history(self, run_id: str, node_id: int, index: int) -> list[HistoryRow]:
        with self._view(run_id) as view:
            return replay.history(view, node_id, index)

    def logs(
        self,
        run_id: str,
        *,
        after: int = 0,
        node_id: int | None = None,
        index: int | None = None,
        min_level: int = 0,
        limit: int = 1000,
    ) -> list[LogRow]:
        with self._database.read() as connection:
            found = connection.execute(
                f"SELECT {LOG_COLUMNS} FROM log LEFT JOIN node USING (run_no, node_id) "
                "WHERE run_no = ? AND seq > ? AND level >= ? AND log.node_id = coalesce(?, log.node_id) "
                "AND item_index = coalesce(?, item_index) ORDER BY seq LIMIT ?",
                (runs.number_of(connection, run_id), after, min_level, node_id, index, limit),
            )
            return [to_log(row) for row in found]

    def errors(self, run_id: str, limit: int = 20) -> list[tuple[Detail, int]]:
        with self._database.read() as connection:
            found = connection.execute(
                "SELECT type_name, error.message, traceback, exception, after_seconds, retriable, abandoned, "
                "sum(error.ended) AS task_runs FROM error JOIN node USING (run_no, node_id) "
                "WHERE run_no = ? AND replaced_by IS NULL AND type_name <> 'Skip' "  # a skip is a success
                "GROUP BY digest HAVING task_runs > 0 "
                "ORDER BY task_runs DESC, min(error_no) LIMIT ?",
                (runs.number_of(connection, run_id), limit),
            )
            return [(to_detail(row[:7]), row[7]) for row in found]

    # --- limits ---------------------------------------------------------------------------------

    def set_limit(self, name: str, slots: int, per_second: float | None = None) -> None:
        rules.check(name, slots, per_second)
        self._database.write(lambda connection: leases.set_limit(connection, name, slots, per_second))

    def remove_limit(self, name: str) -> bool:
        return self._database.write(lambda connection: leases.remove_limit(connection, name))

    def limits(self, now: float) -> list[Limit]:
        with self._database.read() as connection:
            return leases.limits(connection, now)

    def leases(self, name: str, now: float) -> list[LeaseRow]:
        with self._database.read() as connection:
            return leases.leases(connection, name, now)

    def acquire(
        self,
        names: Sequence[str],
        *,
        holder: str,
        run_id: str,
        label: str,
        slots: int,
        now: float,
    ) -> Grant:
        demand = rules.Demand(tuple(dict.fromkeys(names)), holder, run_id, clean(label), slots)
        with self._database.read() as connection:
            answer = leases.acquire_by_reading(connection, demand, now)
        if answer is not None:
            return answer
        return self._database.write(lambda connection: leases.acquire(connection, demand, now))

    def release(self, holders: Sequence[str]) -> None:
        if holders:
            self._database.write(lambda connection: leases.release(connection, holders))

    @contextmanager
    def _view(self, run_id: str) -> Iterator[RunView]:
        with self._database.read() as connection:
            yield RunView(connection, runs.number_of(connection, run_id))


def _after_fork() -> None:
    for store in list(_open):
        store._database.after_fork()


os.register_at_fork(after_in_child=_after_fork)
