"""The rows of runs: who owns them, who lives, what is asked of them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Sequence
from typing import Any

from ...core.journal import Counted, Entry, RunMoved
from ...core.states import RUN_TERMINAL, RunState, State
from ...errors import UserError
from ..base import BATCH_IDS_PER_EPOCH, DEAD_AFTER_SECONDS, Requests, RunRow
from ..liveness import is_gone
from ..lookup import MIN_PREFIX, alive, ambiguous, completed, not_found, unknown
from ..replay import counts_of, interrupted, states_of
from . import failures, journal, leases
from .connection import Connection
from .rows import RUN_COLUMNS, RUN_TABLES, RunView, to_run
from .text import clean, plain, to_json

_LATEST = (1e18, "")  # later than any run
_LIVE = f"({','.join(str(int(s)) for s in RunState if s not in RUN_TERMINAL)})"


def create(connection: Connection, run: RunRow, mark: str) -> None:
    """Add a run. `mark` is its process's, see stores/liveness.py."""
    row: dict[str, Any] = {
        "run_id": run.run_id,
        "name": clean(run.name),
        "flow_name": clean(run.flow_name),
        "state": int(run.state),
        "state_name": run.state_name,
        "message": clean(run.message),
        "created": run.created,
        "started": run.started,
        "ended": run.ended,
        "heartbeat": run.heartbeat,
        "runner": clean(run.runner),
        "entrypoint": clean(run.entrypoint),
        "version": clean(run.version),
        "tags": to_json(sorted(run.tags)),
        "parameters": plain(run.parameters),
        "parameters_pickle": run.parameters_pickle,
        "parent_run_id": run.parent_run_id,
        "parent_task_run_id": run.parent_task_run_id,
        "host": clean(run.host),
        "pid": run.pid,
        "process": mark,
        "epoch": run.epoch,
        "counts": to_json(list(run.counts)),
    }
    columns, marks = ", ".join(row), ", ".join("?" * len(row))
    added = connection.execute(
        f"INSERT INTO run ({columns}) VALUES ({marks}) ON CONFLICT (run_id) DO NOTHING RETURNING run_no",
        list(row.values()),
    ).fetchall()
    if not added:
        raise UserError(f"There already is a run {run.run_id!r} in this store.")


def number_of(connection: Connection, run_id: str) -> int:
    """Return the run's number in this database.

    Raises:
        RunNotFoundError
    """
    found = connection.execute("SELECT run_no FROM run WHERE run_id = ?", (run_id,)).fetchone()
    if found is None:
        raise unknown(run_id)
    return int(found[0])


def _lock(connection: Connection, run_id: str) -> None:
    """Make others wait who want to change this run, until the transaction ends."""
    connection.execute(
        f"SELECT run_no FROM run WHERE run_id = ? {connection.for_update}", (run_id,)
    ).fetchall()


def lock_if_free(connection: Connection, run_id: str) -> bool:
    """Lock a run as `_lock` does, unless another transaction has; return whether none has, or there is no such run."""
    if not connection.for_update:
        return True
    there = connection.execute("SELECT 1 FROM run WHERE run_id = ?", (run_id,))
    free = connection.execute(
        f"SELECT 1 FROM run WHERE run_id = ? {connection.for_update} SKIP LOCKED", (run_id,)
    )
    return bool(free.fetchall()) or not there.fetchall()


def get(connection: Connection, run_id: str) -> RunRow | None:
    found = _select(connection, "run_id = ?", (run_id,))
    return found[0] if found else None


def _select(connection: Connection, where: str, values: Sequence[Any], rest: str = "") -> list[RunRow]:
    found = connection.execute(f"SELECT {RUN_COLUMNS} FROM {RUN_TABLES} WHERE {where} {rest}", values)
    return [to_run(row) for row in found.fetchall()]


def claim(connection: Connection, run_id: str, host: str, pid: int, now: float, mark: str) -> RunRow:
    """Take over a run; what was asked of its earlier process is not asked of this one."""
    _lock(connection, run_id)
    run = get(connection, run_id)
    if run is None:
        raise unknown(run_id)
    if run.state is RunState.COMPLETED:  # by a process that was faster
        raise completed(run)
    (before,) = connection.execute("SELECT process FROM run WHERE run_id = ?", (run_id,)).fetchone()
    gone = is_gone(run.host, run.pid, before)
    if run.heartbeat is not None and now - run.heartbeat <= DEAD_AFTER_SECONDS and not gone:
        raise alive(run, now)
    connection.execute(
        "UPDATE run SET epoch = epoch + 1, host = ?, pid = ?, process = ?, heartbeat = ?, reaped = NULL, "
        "cancel_requested = FALSE, pause_requested = FALSE WHERE run_id = ?",
        (host, pid, mark, now, run_id),
    )
    leases.lose_process(connection, run_id, proven=gone)
    claimed = get(connection, run_id)
    assert claimed is not None
    return claimed


def beat(connection: Connection, run_id: str, epoch: int, now: float) -> Requests:
    """Note that the run's process lives."""
    connection.execute("UPDATE run SET heartbeat = ? WHERE run_id = ? AND epoch = ?", (now, run_id, epoch))
    return requests(connection, run_id, epoch)


def requests(connection: Connection, run_id: str, epoch: int) -> Requests:
    found = connection.execute(
        "SELECT cancel_requested, pause_requested, epoch FROM run WHERE run_id = ?", (run_id,)
    ).fetchone()
    if found is None:
        raise unknown(run_id)
    return Requests(cancel=bool(found[0]), pause=bool(found[1]), fenced=found[2] != epoch)


def request(connection: Connection, run_id: str, cancel: bool | None, pause: bool | None) -> None:
    done = connection.execute(
        "UPDATE run SET cancel_requested = coalesce(?, cancel_requested), "
        "pause_requested = coalesce(?, pause_requested) WHERE run_id = ? RETURNING run_no",
        (cancel, pause, run_id),
    ).fetchall()
    if not done:
        raise unknown(run_id)


def next_ids(connection: Connection, run_id: str) -> tuple[int, int]:
    run_no = number_of(connection, run_id)
    (node,) = connection.execute(
        "SELECT coalesce(max(node_id) + 1, 0) FROM node WHERE run_no = ?", (run_no,)
    ).fetchone()
    batch, epoch = connection.execute(
        "SELECT next_batch, epoch FROM run WHERE run_no = ?", (run_no,)
    ).fetchone()
    if epoch > 1:
        batch = max(epoch - 1, -(-batch // BATCH_IDS_PER_EPOCH)) * BATCH_IDS_PER_EPOCH
    return node, batch


def dead(connection: Connection, now: float, proven: bool = False) -> dict[str, bool]:
    """Return live runs whose process has ended, or has not been heard of for too long, and whether its end is proven.

    A run that no process has taken up yet (no pid, no heartbeat) is not one of them. With `proven`, silence does not
    count.
    """
    found = connection.execute(
        f"SELECT run_id, host, pid, process, coalesce(heartbeat, created), heartbeat IS NULL FROM run "
        f"WHERE state < 5 AND state IN {_LIVE}"
    ).fetchall()
    return {
        run_id: gone
        for run_id, host, pid, mark, heard, never in found
        if (pid or not never)
        and ((gone := is_gone(host, pid, mark)) or (not proven and now - heard > DEAD_AFTER_SECONDS))
    }


def reap(
    connection: Connection, now: float, proven: bool = False, *, among: Collection[str] | None = None
) -> list[str]:
    """End what dead processes have left behind; a new epoch keeps out one that was only stopped.

    Args:
        among: runs that it is about; None: all.
    """
    reaped = []
    for run_id in sorted(dead(connection, now, proven)):
        if among is not None and run_id not in among:
            continue
        _lock(connection, run_id)
        gone = dead(connection, now, proven).get(run_id)
        if gone is None:
            continue  # another process was faster
        reaped.append(run_id)
        run = get(connection, run_id)
        assert run is not None
        reason = f"its process {run.pid} on {run.host or 'an unknown host'} ended without a word"
        connection.execute("UPDATE run SET reaped = epoch, epoch = epoch + 1 WHERE run_id = ?", (run_id,))
        leases.lose_process(connection, run_id, proven=gone)
        entries = interrupted(RunView(connection, number_of(connection, run_id)), now, reason)
        entries.append(RunMoved(RunState.CRASHED, now, message=f"Crashed: {reason}"))
        journal.append(connection, run_id, run.epoch + 1, entries)
    return reaped


def revive(connection: Connection, run_id: str, epoch: int, now: float, *, lives: bool) -> None:
    """Give a run back to the process that was given up for dead and is heard of after all, if nobody has claimed it.

    Its leases are renewed again, whatever they were tied to: it will say when they end. What is true of a process that
    has ended (not `lives`) is that the run is reaped once more when all that it had written is there.
    """
    found = connection.execute(
        "UPDATE run SET epoch = ?, reaped = NULL WHERE run_id = ? AND reaped = ? AND epoch = ? RETURNING run_no",
        (epoch, run_id, epoch, epoch + 1),
    ).fetchall()
    if not found:
        return
    told = "its process is heard of again" if lives else "what its process had written comes after its end"
    entries: list[Entry] = [
        *_undone(connection, found[0][0], epoch),
        RunMoved(RunState.RUNNING, now, message=told),
    ]
    journal.append(connection, run_id, epoch, entries)
    if lives:
        connection.execute("UPDATE run SET heartbeat = ? WHERE run_id = ?", (now, run_id))
        leases.tie_again(connection, run_id)


def _undone(connection: Connection, run_no: int, epoch: int) -> list[Counted]:
    """Take back the ends of task runs that the reaping wrote; return how many of them are in which state now."""
    (at,) = connection.execute(
        "SELECT at FROM run_history WHERE run_no = ? AND epoch = ? ORDER BY seq DESC LIMIT 1",
        (run_no, epoch + 1),
    ).fetchone()
    gone = connection.execute(
        "DELETE FROM journal WHERE run_no = ? AND kind = ? AND state = ? AND at = ? RETURNING node_id",
        (run_no, journal.MOVED, int(State.CRASHED), at),
    ).fetchall()
    failures.take_back(connection, run_no, at)
    touched, view = {node_id for (node_id,) in gone}, RunView(connection, run_no)
    nodes = [node for node in view.nodes() if node.node_id in touched]
    return [Counted(node.node_id, counts_of(states_of(view, node))) for node in nodes]


def find(connection: Connection, run: str, url: str) -> RunRow:
    """Return a run by id, name or the beginning of its id."""
    found = get(connection, run)
    if found is not None:
        return found
    named = _select(connection, "name = ?", (run,), "ORDER BY created DESC, run_id DESC LIMIT 1")
    if named:
        return named[0]
    if len(run) >= MIN_PREFIX:
        # The bounds are for the index; ids are of digits and small letters, whatever the database's collation.
        alike = "run_id > ? AND run_id < ? AND substr(run_id, 1, ?) = ?"
        matching = _select(connection, alike, (run, f"{run}zz", len(run), run), "LIMIT 3")
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise ambiguous(run, [row.run_id for row in matching])
    known = connection.execute(
        "SELECT run_id, name FROM run ORDER BY created DESC, run_id DESC LIMIT 1000"
    ).fetchall()
    raise not_found(run, known, url)


def listing(
    connection: Connection,
    *,
    states: frozenset[RunState] | None,
    flow_name: str | None,
    parent_run_id: str | None,
    limit: int,
    before: tuple[float, str] | None,
) -> list[RunRow]:
    """Return runs, newest first: for each wanted state the newest, since an index has them in that order."""
    if states is None or flow_name is not None or parent_run_id is not None:
        return _listed(connection, states, None, flow_name, parent_run_id, limit, before)
    pages = [
        _listed(connection, None, state, flow_name, parent_run_id, limit, before) for state in sorted(states)
    ]
    newest = heapq.merge(*pages, key=lambda row: (row.created, row.run_id), reverse=True)
    return list(itertools.islice(newest, limit))


def _listed(
    connection: Connection,
    states: frozenset[RunState] | None,
    state: RunState | None,
    flow_name: str | None,
    parent_run_id: str | None,
    limit: int,
    before: tuple[float, str] | None,
) -> list[RunRow]:
    # A bound is always there: without one SQLite would call its walk along the index a scan, as it does without index.
    where, values = ["(created, run_id) < (?, ?)"], list[Any](before or _LATEST)
    if states is not None:
        where.append(f"state IN ({','.join('?' * len(states)) or 'NULL'})")
        values += sorted(states)
    equal = (("state", state), ("flow_name", flow_name), ("parent_run_id", parent_run_id))
    for column, value in equal:
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    order = "ORDER BY created DESC, run_id DESC LIMIT ?"
    return _select(connection, " AND ".join(where), [*values, limit], order)


def tally(connection: Connection, *, subflows: bool) -> list[tuple[str, RunState, int]]:
    """Count the runs of each flow by state."""
    chosen = "" if subflows else "WHERE parent_run_id IS NULL"
    found = connection.execute(
        f"SELECT flow_name, state, count(*) FROM run {chosen} GROUP BY flow_name, state ORDER BY flow_name, state"
    )
    return [(name, RunState(state), number) for name, state, number in found.fetchall()]
