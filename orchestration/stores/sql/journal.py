"""Writes the entries of one driver turn. A batch of any size is one row, its items are columns in it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from runners.messages import Detail

from ...core.journal import (
    AttemptsEnded,
    Counted,
    Entry,
    LeasesReturned,
    LogWritten,
    Moved,
    NodeAdded,
    RunMoved,
    StartRepeated,
    WidthLearned,
)
from ...core.states import RUN_TERMINAL, RunState, State
from ..columns import pack_floats, pack_ints
from ..failures import FailureGroup, Failures
from ..limits import Tie
from ..lookup import fenced, unknown
from .connection import Connection
from .failures import FAILURE, failure_values
from .text import clean, numbers_of, numbers_to_json, plain, to_json

MOVED, ENDED, REPEATED = 0, 1, 2
_NO_COUNTS = (0,) * len(State)
_NO_WAITS = numbers_to_json((0.0, 0.0, 0.0))
FLOW = -1  # in place of a node_id

# Columns by name: a later version's migration may add some while this one has the database open.
_JOURNAL = (
    "run_no", "node_id", "seq", "kind", "first_index", "last_index", "at", "state", "indices", "states", "outcomes",
    "attempts", "positions", "started", "seconds", "details", "names", "batch_id", "execution_id", "worker",
    "stored_url", "stored_digest", "reason", "name", "submitted_at", "cpu_seconds", "root_node", "roots",
)  # fmt: skip
LOG = ("run_no", "seq", "node_id", "item_index", "attempt", "at", "level", "logger", "message")
_NODE = f"""
    INSERT INTO node (run_no, node_id, path, task_name, kind, width, created, tags, upstream, fingerprint, policy,
                      parent_node, parent_index, counts, waited)
    VALUES ({",".join("?" * 15)})"""
_ERROR = """
    INSERT INTO error (run_no, node_id, digest, type_name, message, traceback, exception,
                       after_seconds, retriable, abandoned)
    VALUES (?,?,?,?,?,?,?,?,?,?)
    ON CONFLICT (run_no, node_id, digest) DO UPDATE SET digest = excluded.digest
    RETURNING error_no"""
# Asked for paths directly, SQLite goes through all nodes of the run: it takes the primary key for as good as the
# index, which lacks the columns wanted. To find node_ids the index is enough.
_NAMESAKES = """
    SELECT node_id, path, counts FROM node
    WHERE run_no = ? AND replaced_by IS NULL
      AND node_id IN (SELECT node_id FROM node WHERE run_no = ? AND path IN ({}))"""
_BEGUN_ANEW = f"""
    epoch > 1 OR EXISTS (
      SELECT 1 FROM run_history AS h WHERE h.run_no = run.run_no AND h.state = {RunState.AWAITING_RETRY:d})"""
_REPLACED = "UPDATE node SET replaced_by = ? WHERE run_no = ? AND node_id = ?"
MAX_NAMED = 500  # nodes in one statement
_SPAN = """
    started = CASE WHEN started < ? THEN started ELSE coalesce(?, started) END,
    ended = CASE WHEN ended > ? THEN ended ELSE coalesce(?, ended) END"""
_SPANS = f"UPDATE node SET {_SPAN} WHERE run_no = ? AND node_id = ?"
_COUNTS = (
    f"UPDATE node SET counts = ?, waited = coalesce(?, waited), {_SPAN} WHERE run_no = ? AND node_id = ?"
)


def append(connection: Connection, run_id: str, epoch: int, entries: Sequence[Entry]) -> None:
    """Write entries in the caller's transaction.

    Raises:
        RunNotFoundError
        FencedError
    """
    found = connection.execute(
        f"SELECT run_no, epoch, next_seq, next_batch, counts, {_BEGUN_ANEW} "
        f"FROM run WHERE run_id = ? {connection.for_update}",
        (run_id,),
    ).fetchone()
    if found is None:
        raise unknown(run_id)
    if found[1] != epoch:
        raise fenced(run_id, epoch, found[1])
    writing = _Turn(connection, run_id, found)
    for entry in entries:
        _WRITERS[type(entry)](writing, entry)
    writing.flush()


class _Turn:
    """One call of `append`: rows that wait to be inserted, and what changes of run and nodes."""

    def __init__(self, connection: Connection, run_id: str, row: tuple[Any, ...]) -> None:
        self.connection = connection
        self.run_id = run_id
        self.run_no, self.epoch, self.seq, self.batch, counts, self.anew = row
        self.counts: list[int] = json.loads(counts)
        self.journal: list[tuple[Any, ...]] = []
        self.logs: list[tuple[Any, ...]] = []
        self.added: dict[int, NodeAdded] = {}
        self.paths: dict[str, int] = {}  # of those that may replace others
        self.node_counts: dict[int, tuple[int, ...]] = {}
        self.waits: dict[int, tuple[float, ...]] = {}
        self.spans: dict[int, tuple[float | None, float | None]] = {}
        self.retries, self.retry_seconds = 0, 0.0
        self.failures = Failures()

    def next_seq(self) -> int:
        seq: int = self.seq
        self.seq += 1
        return seq

    # --- entries about task runs ----------------------------------------------------------------

    def moved(self, entry: Moved) -> None:
        if not entry.indices:
            return
        if entry.state is State.RUNNING:
            self._span(entry.node_id, entry.at, None)
        self.failures.moved(entry)
        roots = entry.roots
        self.journal.append(
            (
                *self._head(entry.node_id, MOVED, entry.indices, entry.at),
                int(entry.state),
                pack_ints(entry.indices),
                *(None,) * 10,
                clean(entry.worker) or None,
                *(None,) * 2,
                clean(entry.reason) or None,
                clean(entry.name) or None,
                *(None,) * 2,
                *((None, None) if roots is None else (roots.node_id, pack_ints(roots.indices))),
            )
        )

    def ended(self, entry: AttemptsEnded) -> None:
        if not entry.indices:
            return
        earliest = min(entry.started)
        if earliest == 0.0:  # where some did not start
            earliest = min(filter(None, entry.started), default=0.0)
        self._span(entry.node_id, earliest or None, entry.at)
        self.batch = max(self.batch, entry.batch_id + 1)
        retries, seconds = entry.retried()
        self.retries += retries
        self.retry_seconds += seconds
        self.failures.ended(entry)
        details = {k: self.error(entry.node_id, detail) for k, detail in entry.details.items()}
        stored = entry.stored
        self.journal.append(
            (
                *self._head(entry.node_id, ENDED, entry.indices, entry.at),
                None,
                pack_ints(entry.indices),
                bytes(entry.states),
                bytes(entry.outcomes),
                pack_ints(entry.attempts),
                pack_ints(entry.positions),
                pack_floats(entry.started),
                pack_floats(entry.durations),
                to_json(details) if details else None,
                to_json(dict(entry.names)) if entry.names else None,
                entry.batch_id,
                entry.execution_id,
                clean(entry.worker),
                clean(stored.url) if stored else None,
                stored.digest if stored else None,
                clean(entry.reason) or None,
                None,
                entry.submitted_at or None,
                entry.cpu_seconds or None,
                *(None,) * 2,
            )
        )

    def repeated(self, entry: StartRepeated) -> None:
        if not entry.indices:
            return
        self.batch = max(self.batch, entry.batch_id + 1)
        self.journal.append(
            (
                *self._head(entry.node_id, REPEATED, entry.indices, entry.at),
                None,
                pack_ints(entry.indices),
                *(None,) * 8,
                entry.batch_id,
                entry.execution_id,
                clean(entry.worker),
                *(None,) * 8,
            )
        )

    def _head(self, node_id: int, kind: int, indices: Sequence[int], at: float) -> tuple[Any, ...]:
        if isinstance(indices, range) and indices.step > 0:
            first, last = indices[0], indices[-1]
        else:
            first, last = min(indices), max(indices)
        return self.run_no, node_id, self.next_seq(), kind, first, last, at

    def _span(self, node_id: int, started: float | None, ended: float | None) -> None:
        first, last = self.spans.get(node_id, (None, None))
        first = started if first is None else first if started is None else min(first, started)
        last = ended if last is None else last if ended is None else max(last, ended)
        self.spans[node_id] = first, last

    def error(self, node_id: int, detail: Detail) -> int:
        texts = (clean(detail.type_name), clean(detail.message), clean(detail.traceback))
        flags = (detail.after_seconds, bool(detail.retriable), bool(detail.abandoned))
        digest = hashlib.blake2b(repr((texts, flags)).encode(), digest_size=16)
        digest.update(detail.exception or b"")
        row = (self.run_no, node_id, digest.digest(), *texts, detail.exception, *flags)
        # What is there already is "updated", else it would not be returned; and all rows of RETURNING have to be
        # read, else the statement stays open.
        ((number,),) = self.connection.execute(_ERROR, row).fetchall()
        return int(number)

    # --- nodes ----------------------------------------------------------------------------------

    def node_added(self, entry: NodeAdded) -> None:
        if self.anew:  # the flow's function has been begun before: by an earlier process, or by its own retry
            path = clean(entry.path)
            if path in self.paths:  # the one replaces the other
                self._flush_counts()
            self.paths[path] = entry.node_id
        self.added[entry.node_id] = entry

    def _replace(self) -> None:
        """Note what the new nodes stand for of earlier ones: a resume adds thousands in a turn."""
        paths, replaced = list(self.paths), []
        counted: Counter[str] = Counter()
        for first in range(0, len(paths), MAX_NAMED):
            part = paths[first : first + MAX_NAMED]
            statement = _NAMESAKES.format(", ".join("?" * len(part)))
            for node_id, path, counts in self.connection.execute(
                statement, (self.run_no, self.run_no, *part)
            ):
                replaced.append((self.paths[path], self.run_no, node_id))
                counted[counts] += 1
        for counts, n in counted.items():
            self._count(numbers_of(counts), -n)
        if replaced:
            self.connection.executemany(_REPLACED, replaced)
        self.paths.clear()

    def _count(self, counts: Sequence[int], n: int = 1) -> None:
        """Add the counts of n nodes to the run's."""
        self.counts = [a + n * b for a, b in zip(self.counts, counts, strict=True)]

    def width_learned(self, entry: WidthLearned) -> None:
        added = self.added.get(entry.node_id)
        if added is not None:
            self.added[entry.node_id] = replace(added, width=entry.width)
            return
        self.connection.execute(
            "UPDATE node SET width = ? WHERE run_no = ? AND node_id = ?",
            (entry.width, self.run_no, entry.node_id),
        )

    def counted(self, entry: Counted) -> None:
        self.node_counts[entry.node_id] = entry.counts
        if entry.waited:
            self.waits[entry.node_id] = entry.waited

    # --- all else -------------------------------------------------------------------------------

    def log_written(self, entry: LogWritten) -> None:
        run_no, node_id = self.run_no, entry.node_id
        for item, attempt, line in zip(entry.items, entry.attempts, entry.lines, strict=True):
            self.logs.append(
                (
                    run_no,
                    self.next_seq(),
                    node_id,
                    item,
                    attempt,
                    line.at,
                    line.level,
                    clean(line.logger),
                    clean(line.message),
                )
            )

    def leases_returned(self, entry: LeasesReturned) -> None:
        self.connection.executemany("DELETE FROM lease WHERE holder = ?", [(h,) for h in entry.holders])

    def run_moved(self, entry: RunMoved) -> None:
        self.anew = self.anew or entry.state is RunState.AWAITING_RETRY
        error_no = self.error(FLOW, entry.detail) if entry.detail else None
        name, message = clean(entry.name), clean(entry.message)
        over = entry.state in RUN_TERMINAL
        self.connection.execute(
            """UPDATE run SET state = ?, state_name = ?, message = ?, error_no = ?, ended = ?,
                              coordinator_seconds = coalesce(?, coordinator_seconds),
                              engine_url = coalesce(?, engine_url),
                              started = CASE WHEN ? THEN coalesce(started, ?) ELSE started END,
                              heartbeat = CASE WHEN ? THEN NULL ELSE heartbeat END
               WHERE run_no = ?""",
            (
                int(entry.state),
                name,
                message,
                error_no,
                entry.at if over else None,
                entry.coordinator_seconds or None,
                clean(entry.engine_url) or None,
                entry.state is RunState.RUNNING,
                entry.at,
                over,
                self.run_no,
            ),
        )
        self.connection.execute(
            "INSERT INTO run_history (run_no, seq, state, name, at, epoch, message) VALUES (?,?,?,?,?,?,?)",
            (self.run_no, self.next_seq(), int(entry.state), name, entry.at, self.epoch, message),
        )
        if over:  # whatever the run forgot to give back
            self.connection.execute(
                f"DELETE FROM lease WHERE run_id = ? AND tie <> {Tie.LEFT:d}", (self.run_id,)
            )

    # --- the end --------------------------------------------------------------------------------

    def flush(self) -> None:
        connection, run_no = self.connection, self.run_no
        self._flush_counts()  # reads, and what follows need not be waited for
        if self.journal:
            connection.insert("journal", _JOURNAL, self.journal)
        if self.logs:
            connection.insert("log", LOG, self.logs)
        if self.failures.kinds:
            connection.executemany(FAILURE, [self._failure(*pair) for pair in self.failures.kinds.items()])
        if self.spans:
            connection.executemany(_SPANS, [(a, a, b, b, run_no, n) for n, (a, b) in self.spans.items()])
        connection.execute(
            "UPDATE run SET next_seq = ?, next_batch = ?, counts = ?, retries = retries + ?, "
            "retry_seconds = retry_seconds + ? WHERE run_no = ?",
            (self.seq, self.batch, numbers_to_json(self.counts), self.retries, self.retry_seconds, run_no),
        )

    def _failure(self, kind: tuple[int, bytes], group: FailureGroup) -> tuple[Any, ...]:
        number = None if group.detail is None else self.error(kind[0], group.detail)
        return (self.run_no, *kind, *failure_values(group, number))

    def _flush_counts(self) -> None:
        """Write what is known of nodes by now: few statements for many nodes, since most of them are single items."""
        if self.paths:
            self._replace()
        if self.added:
            self._insert_nodes()
        known = self._known_counts(sorted(self.node_counts))
        rows = []
        changes: Counter[tuple[str, tuple[int, ...]]] = Counter()
        for node_id, (before, replaced_by) in known.items():
            counts, waited = self.node_counts[node_id], self.waits.get(node_id)
            if replaced_by is None:
                changes[before, counts] += 1
            first, last = self.spans.pop(node_id, (None, None))
            times = first, first, last, last
            rows.append(
                (
                    numbers_to_json(counts),
                    numbers_to_json(waited) if waited else None,
                    *times,
                    self.run_no,
                    node_id,
                )
            )
        for (before, counts), n in changes.items():
            self._count(numbers_of(before), -n)
            self._count(counts, n)
        if rows:
            self.connection.executemany(_COUNTS, rows)
        self.node_counts.clear()
        self.waits.clear()

    def _insert_nodes(self) -> None:
        """Write new nodes with what is known of them by the end of the turn, which saves an update of each."""
        rows = []
        counted: Counter[tuple[int, ...]] = Counter()
        policies: dict[int, str] = {}
        for node_id, entry in self.added.items():
            counts, waited = self.node_counts.pop(node_id, _NO_COUNTS), self.waits.pop(node_id, None)
            counted[counts] += 1
            policy = policies.get(id(entry.policy))  # all nodes of a task have the same one
            if policy is None:
                policy = policies[id(entry.policy)] = plain(entry.policy)
            rows.append(
                (
                    self.run_no,
                    node_id,
                    clean(entry.path),
                    clean(entry.task_name),
                    entry.kind,
                    entry.width,
                    entry.at,
                    to_json(sorted(entry.tags)) if entry.tags else "[]",
                    to_json(list(entry.upstream)) if entry.upstream else "[]",
                    entry.fingerprint,
                    policy,
                    *(entry.parent or (None, None)),
                    numbers_to_json(counts),
                    numbers_to_json(waited) if waited else _NO_WAITS,
                )
            )
        for counts, n in counted.items():
            self._count(counts, n)
        self.connection.executemany(_NODE, rows)
        self.added.clear()

    def _known_counts(self, node_ids: Sequence[int]) -> dict[int, tuple[str, int | None]]:
        """Return the recorded counts of nodes and by which others they were replaced."""
        found: dict[int, tuple[str, int | None]] = {}
        for first in range(0, len(node_ids), MAX_NAMED):
            part = node_ids[first : first + MAX_NAMED]
            rows = self.connection.execute(
                "SELECT node_id, counts, replaced_by FROM node "
                f"WHERE run_no = ? AND node_id IN ({', '.join('?' * len(part))})",
                (self.run_no, *part),
            )
            found.update((row[0], (row[1], row[2])) for row in rows.fetchall())
        return found


_WRITERS: dict[type, Any] = {
    Moved: _Turn.moved,
    AttemptsEnded: _Turn.ended,
    StartRepeated: _Turn.repeated,
    Counted: _Turn.counted,
    LogWritten: _Turn.log_written,
    NodeAdded: _Turn.node_added,
    WidthLearned: _Turn.width_learned,
    LeasesReturned: _Turn.leases_returned,
    RunMoved: _Turn.run_moved,
}
