"""Rows of the database as the port's dataclasses, and a view of one run's journal."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

from runners.messages import Detail, Stored

from ...core.journal import AttemptsEnded, Moved, Roots, StartRepeated
from ...core.states import RunState, State
from ..base import LogRow, NodeRow, RunRow
from ..columns import unpack_floats, unpack_ints
from ..failures import FailureGroup
from ..remains import NodeHead, Row, Trace
from ..replay import MAX_INDEX, ItemEntry
from ..timeline import Ended
from .connection import Connection
from .failures import groups
from .journal import ENDED, MOVED, REPEATED
from .text import keyed

_DETAIL = "type_name, error.message, traceback, exception, after_seconds, retriable, abandoned"
# Columns that have the names of the dataclasses' fields.
_RUN_FIELDS = tuple(field.name for field in fields(RunRow) if field.name != "detail")
_NODE_FIELDS = tuple(field.name for field in fields(NodeRow) if field.name != "parent")
RUN_COLUMNS = f"{', '.join(f'run.{field}' for field in _RUN_FIELDS)}, {_DETAIL}"
RUN_TABLES = "run LEFT JOIN error ON error.error_no = run.error_no"
_ENTRY_COLUMNS = """
    seq, kind, at, state, indices, states, outcomes, attempts, positions, started, seconds, details, names,
    batch_id, execution_id, worker, stored_url, stored_digest, reason, name,
    submitted_at, cpu_seconds, root_node, roots"""
_LOG_COLUMNS = "seq, log.node_id, item_index, attempt, task_name, at, level, logger, message"


def to_run(row: tuple[Any, ...]) -> RunRow:
    values = dict(zip(_RUN_FIELDS, row, strict=False))
    values["state"] = RunState(values["state"])
    values["tags"] = frozenset(json.loads(values["tags"]))
    values["parameters"] = json.loads(values["parameters"])
    values["counts"] = tuple(json.loads(values["counts"]))
    error = row[len(_RUN_FIELDS) :]
    return RunRow(**values, detail=None if error[0] is None else to_detail(error))


@lru_cache(maxsize=1024)
def _tuple(text: str) -> tuple[Any, ...]:
    """Parse a list; those of many nodes are the same."""
    return tuple(json.loads(text))


_ONCE = '%"rerun_on_loss":%false%'  # a policy that is not like it lets its node run twice
# Most rows are of single task runs. What is not asked for is not copied: policies are long, and all starts are moves.
_REMAINS = f"""
    SELECT path, fingerprint, node.node_id, width, CASE WHEN policy LIKE ? THEN policy END,
           indices, state, states, outcomes, attempts, positions, stored_url, stored_digest
    FROM node LEFT JOIN journal ON journal.run_no = node.run_no AND journal.node_id = node.node_id AND (
      journal.kind = {ENDED} OR journal.kind = {MOVED} AND (
        state IN ({State.COMPLETED:d}, {State.SKIPPED:d})
        OR state IN ({State.READY:d}, {State.RUNNING:d}) AND policy LIKE ?))
    WHERE node.run_no = ? ORDER BY node.node_id, seq"""


@lru_cache(maxsize=1024)
def _once(policy: str) -> bool:
    """Whether a node of this policy must not run twice."""
    return json.loads(policy).get("rerun_on_loss") is False


def to_detail(row: tuple[Any, ...]) -> Detail:
    type_name, message, traceback, exception, after_seconds, retriable, abandoned = row
    return Detail(type_name, message, traceback, exception, after_seconds, bool(retriable), bool(abandoned))


def _to_log(row: tuple[Any, ...]) -> LogRow:
    seq, node_id, index, attempt, task_name, at, level, logger, message = row
    return LogRow(seq, node_id, index, attempt, task_name or "", at, level, logger, message)


def _to_node(row: tuple[Any, ...]) -> NodeRow:
    *plain, parent_node, parent_index = row
    values = dict(zip(_NODE_FIELDS, plain, strict=True))
    values["tags"] = frozenset(_tuple(values["tags"]))
    values["upstream"] = _tuple(values["upstream"])
    values["policy"] = json.loads(values["policy"])
    values["counts"] = _tuple(values["counts"])
    values["waited"] = _tuple(values["waited"])
    return NodeRow(**values, parent=None if parent_node is None else (parent_node, parent_index))


class RunView:
    """A consistent look at one run, within a read or write transaction of the connection."""

    def __init__(self, connection: Connection, run_no: int) -> None:
        self._connection = connection
        self._run_no = run_no

    def nodes(self, node_id: int | None = None) -> list[NodeRow]:
        chosen, given = ("", ()) if node_id is None else (" AND node_id = ?", (node_id,))
        found = self._connection.execute(
            f"SELECT {', '.join(_NODE_FIELDS)}, parent_node, parent_index FROM node WHERE run_no = ?{chosen} "
            "ORDER BY node_id",
            (self._run_no, *given),
        )
        return [_to_node(row) for row in found]

    def transitions(
        self, node_id: int, first: int = 0, last: int = MAX_INDEX, after: int = 0
    ) -> Iterator[tuple[int, Sequence[int], bytes | int]]:
        found = self._connection.execute(
            "SELECT seq, indices, states, state FROM journal WHERE run_no = ? AND node_id = ? AND seq > ? "
            "AND kind <> ? AND first_index <= ? AND last_index >= ? ORDER BY seq",
            (self._run_no, node_id, after, REPEATED, last, first),
        )
        for seq, indices, states, state in found:
            yield seq, unpack_ints(indices), state if states is None else states

    def entries(self, node_id: int, wanted: Sequence[int]) -> Iterator[tuple[int, ItemEntry]]:
        errors: dict[int, Detail] | None = None
        found = self._connection.execute(
            f"SELECT first_index, last_index, {_ENTRY_COLUMNS} FROM journal "
            "WHERE run_no = ? AND node_id = ? AND first_index <= ? AND last_index >= ? ORDER BY seq",
            (self._run_no, node_id, wanted[-1], wanted[0]),
        )
        for first, last, *row in found:
            place = bisect_left(wanted, first)
            if place == len(wanted) or wanted[place] > last:
                continue  # unpacking it costs more than finding that out
            if row[11] is not None and errors is None:
                errors = self._errors(node_id)
            yield row[0], _to_entry(node_id, tuple(row), errors or {})

    def logs(
        self, *, after: int, node_id: int | None, index: int | None, min_level: int, limit: int
    ) -> list[LogRow]:
        """Return log lines above `after`."""
        found = self._connection.execute(
            f"SELECT {_LOG_COLUMNS} FROM log LEFT JOIN node USING (run_no, node_id) "
            "WHERE run_no = ? AND seq > ? AND level >= ? AND log.node_id = coalesce(?, log.node_id) "
            "AND item_index = coalesce(?, item_index) ORDER BY seq LIMIT ?",
            (self._run_no, after, min_level, node_id, index, limit),
        )
        return [_to_log(row) for row in found]

    def failures(self, limit: int) -> list[FailureGroup]:
        return groups(self._connection, self._run_no, limit)

    def ended(self, after: int) -> Iterator[Ended]:
        # CROSS JOIN: each node's entries are sought; from the journal SQLite would go through all of the run's.
        found = self._connection.execute(
            "SELECT seq, journal.node_id, worker, indices, attempts, journal.started, seconds, states, outcomes "
            "FROM node CROSS JOIN journal "
            "WHERE node.run_no = ? AND node.replaced_by IS NULL AND journal.run_no = node.run_no "
            "AND journal.node_id = node.node_id AND seq > ? AND journal.kind = ? "
            "ORDER BY node.node_id, seq",
            (self._run_no, after, ENDED),
        )
        for seq, node_id, worker, indices, attempts, started, seconds, states, outcomes in found:
            yield Ended(
                seq, node_id, worker, unpack_ints(indices), unpack_ints(attempts), unpack_floats(started),
                unpack_floats(seconds), states, outcomes,
            )  # fmt: skip

    def everything(self) -> Iterator[tuple[int, ItemEntry]]:
        found = self._connection.execute(
            f"SELECT node_id, {_ENTRY_COLUMNS} FROM journal WHERE run_no = ? ORDER BY node_id, seq",
            (self._run_no,),
        )
        errors: dict[int, Detail] = defaultdict(Detail)
        for node_id, *row in found:
            yield node_id, _to_entry(node_id, tuple(row), errors)

    def remains(self) -> Iterator[Row]:
        found = self._connection.execute(_REMAINS, (_ONCE, _ONCE, self._run_no))
        return iter(found)

    @staticmethod
    def read_remains(row: Row) -> tuple[NodeHead, Trace | None]:
        path, fingerprint, node_id, width, policy, indices, state, states, *columns = row
        once = policy is not None and _once(policy)
        node = NodeHead(node_id, path, fingerprint, width, once)
        if indices is None:
            return node, None
        if states is None:
            return node, Trace(unpack_ints(indices), State(state))
        outcomes, attempts, positions, url, digest = columns
        stored = None if url is None else Stored(url, digest)
        return node, Trace(
            unpack_ints(indices),
            None,
            states,
            outcomes,
            unpack_ints(attempts),
            unpack_ints(positions),
            stored,
        )

    def _errors(self, node_id: int) -> dict[int, Detail]:
        found = self._connection.execute(
            f"SELECT error_no, {_DETAIL} FROM error WHERE run_no = ? AND node_id = ?", (self._run_no, node_id)
        )
        return {row[0]: to_detail(row[1:]) for row in found}


def _to_entry(node_id: int, row: tuple[Any, ...], errors: dict[int, Detail]) -> ItemEntry:
    (_, kind, at, state, packed, states, outcomes, attempts, positions, started, seconds, details, names) = (
        row[:13]
    )
    (batch_id, execution_id, worker, stored_url, stored_digest, reason, name, submitted_at, cpu_seconds) = (
        row[13:22]
    )
    root_node, roots = row[22:]
    indices = unpack_ints(packed)
    if kind == MOVED:
        by = None if root_node is None else Roots(root_node, "", unpack_ints(roots))
        return Moved(node_id, indices, State(state), at, reason or "", name or "", worker or "", by)
    if kind != ENDED:
        return StartRepeated(node_id, batch_id, indices, execution_id, worker, at)
    return AttemptsEnded(
        node_id,
        batch_id,
        execution_id,
        worker,
        at,
        indices,
        unpack_ints(attempts),
        outcomes,
        states,
        unpack_floats(started),
        unpack_floats(seconds),
        unpack_ints(positions),
        {k: errors[number] for k, number in keyed(details).items()},
        keyed(names),
        None if stored_url is None else Stored(stored_url, stored_digest),
        reason or "",
        submitted_at=submitted_at or 0.0,
        cpu_seconds=cpu_seconds or 0.0,
    )
