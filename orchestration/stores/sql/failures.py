"""The rows of failures that are alike: one for each kind in each node, which counts them."""

from __future__ import annotations

from typing import Any

from runners.messages import Detail

from ...core.states import State
from ..failures import FailureGroup, Place
from .connection import Connection
from .text import clean

_EARLIER = "excluded.first_at < failure.first_at"
_LATER = "excluded.last_at >= failure.last_at"
_OF_THE_FIRST = ("error_no", "reason", "root_node", "root_index", "first_index", "first_at", "first_name")
_OF_THE_LAST = ("last_index", "last_at", "last_name")
_COLUMNS = ("run_no", "node_id", "kind", "state", "failures", *_OF_THE_FIRST, *_OF_THE_LAST)


def _one_of(when: str, column: str) -> str:
    return f"{column} = CASE WHEN {when} THEN excluded.{column} ELSE failure.{column} END"


FAILURE = f"""
    INSERT INTO failure ({", ".join(_COLUMNS)}) VALUES ({", ".join("?" * len(_COLUMNS))})
    ON CONFLICT (run_no, node_id, kind) DO UPDATE SET failures = failure.failures + excluded.failures,
    {", ".join(_one_of(_EARLIER, column) for column in _OF_THE_FIRST)},
    {", ".join(_one_of(_LATER, column) for column in _OF_THE_LAST)}"""
# Of each kind the row that was first, with what all rows of the kind come to.
_GROUPS = f"""
    SELECT state, total, grouped.node_id, first_index, first_at, first_name, last_node, last_index, last_at, last_name,
           reason, root_node, root_index,
           type_name, message, traceback, exception, after_seconds, retriable, abandoned
    FROM (
      SELECT failure.kind AS alike, state, node_id, first_index, first_at, first_name, reason, root_node, root_index,
             error_no,
             sum(failures) OVER (PARTITION BY failure.kind) AS total,
             row_number() OVER (PARTITION BY failure.kind ORDER BY first_at, node_id) AS place,
             first_value(node_id) OVER latest AS last_node,
             first_value(last_index) OVER latest AS last_index,
             first_value(last_at) OVER latest AS last_at,
             first_value(last_name) OVER latest AS last_name
      FROM failure JOIN node USING (run_no, node_id)
      WHERE run_no = ? AND replaced_by IS NULL
      WINDOW latest AS (PARTITION BY failure.kind ORDER BY last_at DESC, node_id DESC)
    ) AS grouped LEFT JOIN error USING (error_no)
    WHERE place = 1
    ORDER BY CASE WHEN state = {State.UPSTREAM_FAILED:d} THEN 1 ELSE 0 END, total DESC, first_at, error_no,
             alike LIMIT ?"""


def failure_values(group: FailureGroup, error_no: int | None) -> tuple[Any, ...]:
    """Return the values of the columns from `state` on."""
    first, last = group.first, group.last
    assert first is not None
    assert last is not None
    root = group.root or (None, None)
    places = first.index, first.at, clean(first.name), last.index, last.at, clean(last.name)
    return int(group.state), group.count, error_no, clean(group.reason), *root, *places


def groups(connection: Connection, run_no: int, limit: int) -> list[FailureGroup]:
    """Return the failures of nodes that are not replaced: roots first, of these the most frequent."""
    return [_to_group(row) for row in connection.execute(_GROUPS, (run_no, limit))]


def take_back(connection: Connection, run_no: int, at: float) -> None:
    """Forget the ends that a reaping at this time wrote."""
    connection.execute(
        "DELETE FROM failure WHERE run_no = ? AND state = ? AND error_no IS NULL AND first_at = ? AND last_at = ?",
        (run_no, int(State.CRASHED), at, at),
    )


def _to_group(row: tuple[Any, ...]) -> FailureGroup:
    state, count, node_id, index, at, name, last_node, last_index, last_at, last_name = row[:10]
    reason, root_node, root_index = row[10:13]
    type_name, message, traceback, exception, after_seconds, retriable, abandoned = row[13:]
    detail = None
    if type_name is not None:
        detail = Detail(
            type_name, message, traceback, exception, after_seconds, bool(retriable), bool(abandoned)
        )
    return FailureGroup(
        State(state),
        int(count),
        None if at is None else Place(node_id, index, at, name),
        None if last_at is None else Place(last_node, last_index, last_at, last_name),
        reason,
        detail,
        None if root_node is None else (root_node, root_index),
    )
