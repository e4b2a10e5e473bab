"""Records as the API shows them. Keys are stable; `dashboard/src/types.ts` is their other end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from runners.messages import Detail

from ..core.states import RUN_TERMINAL, RunState, State
from ..stores.as_json import (
    attempt_json,
    counts_json,
    history_json,
    node_json,
    root_json,
    run_json,
    task_run_json,
)
from ..stores.base import AttemptRow, HistoryRow, LeaseRow, Limit, NodeRow, Requests, RunRow, TaskRunRow
from ..stores.failures import FailureGroup, Place
from ..terminal import words

_RETRIABLE = frozenset({RunState.FAILED, RunState.CRASHED, RunState.CANCELLED})
_TYPE = re.compile(r"[\w.]*\.")


def shown_run(row: RunRow, asked: Requests | None = None) -> dict[str, Any]:
    """Return a run as lists show it.

    Args:
        asked: what other processes have asked of it; by it a live run is Paused or Cancelling.
    """
    shown = run_json(row)
    del shown["error"], shown["processes"]
    shown["parent"] = shown.pop("parent_id")
    if not row.engine_url.startswith(("http://", "https://")):  # nothing else becomes a link
        shown["engine_url"] = None
    live = row.state not in RUN_TERMINAL
    if asked is not None and live and (asked.cancel or asked.pause):
        shown["state"] = shown["state_name"] = "Cancelling" if asked.cancel else "Paused"
    paused = asked is not None and asked.pause
    again = bool(row.entrypoint)
    shown["can"] = {
        "cancel": live,
        "pause": live and not paused,
        "resume": (live and paused) or (again and row.state in _RETRIABLE),
        "retry": again and not live,
    }
    return shown


def shown_error(detail: Detail | None) -> str | None:
    """Return an error as text: its traceback, or its type and message."""
    if detail is None:
        return None
    return detail.traceback.rstrip() or f"{short_type(detail.type_name)}: {detail.message}"


def short_type(name: str) -> str:
    """Return a class's name without its modules."""
    return _TYPE.sub("", name)


def shown_node(node: NodeRow) -> dict[str, Any]:
    parent = None if node.parent is None else {"node": node.parent[0], "index": node.parent[1]}
    waited = dict(zip(("Ready", "AwaitingLimit", "AwaitingRetry"), node.waited, strict=True))
    return node_json(node) | {"waited": waited, "parent": parent}


def shown_change(node: NodeRow) -> dict[str, Any]:
    """Return what a run's stream tells of a node that has changed."""
    return {
        "node": node.node_id,
        "width": node.width,
        "counts": counts_json(node.counts),
        "started": node.started,
        "ended": node.ended,
    }


def shown_task_run(row: TaskRunRow) -> dict[str, Any]:
    return task_run_json(row) | {"error": shown_error(row.detail)}


def shown_attempt(row: AttemptRow) -> dict[str, Any]:
    return attempt_json(row) | {"error": shown_error(row.detail)}


def story(history: Sequence[HistoryRow], attempts: Sequence[AttemptRow]) -> list[str]:
    """Return what happened to a task run, a sentence for each thing, in order."""
    told: list[tuple[float, str]] = [
        (row.at, f"{row.state.title}{': ' + row.reason if row.reason else ''}")
        for row in history
        if row.state is not State.RUNNING or row.reason  # heard after a short attempt has ended
    ]
    for row in attempts:
        took = "" if row.seconds is None else f" after {words.duration(row.seconds)}"
        where = f" on {row.worker}" if row.worker else ""
        error = "" if row.detail is None else f": {short_type(row.detail.type_name)}: {row.detail.message}"
        why = f" ({row.reason})" if row.reason else ""
        told.append((row.ended, f"Attempt {row.attempt} ended {row.state.title}{took}{where}{error}{why}"))
    return [text for _, text in sorted(told, key=lambda one: one[0])]


def shown_moves(history: Sequence[HistoryRow]) -> list[dict[str, Any]]:
    return [history_json(row) for row in history]


def shown_limit(limit: Limit, leases: Sequence[LeaseRow], names: dict[str, str]) -> dict[str, Any]:
    """Return a limit with who holds it and who waits, in the order of their arrival.

    Args:
        names: of runs by id, as far as known.
    """

    def lease(row: LeaseRow) -> dict[str, Any]:
        return {
            "run": row.run_id,
            "run_name": names.get(row.run_id),
            "label": row.label,
            "slots": row.slots,
            "since": row.since,
            "expires": row.expires,
            "left": row.left,
        }

    return {
        "name": limit.name,
        "slots": limit.slots,
        "per_second": limit.per_second,
        "held": limit.held,
        "waiting": limit.waiting,
        "holders": [lease(row) for row in leases if row.held],
        "waiters": [lease(row) for row in leases if not row.held],
    }


def shown_group(group: FailureGroup) -> dict[str, Any]:
    """Return failures that are alike. `cause` is the task run whose failure kept the first of them from running."""
    error = group.error
    return {
        "type": short_type(error.type_name) or group.state.title,
        "state": group.state.title,
        "message": error.message,
        "traceback": error.traceback or None,
        "count": group.count,
        "root": group.root is None,
        "cause": root_json(group.root),
        "first": _place(group.first),
        "last": _place(group.last),
    }


def _place(place: Place | None) -> dict[str, Any] | None:
    return (
        None
        if place is None
        else {"node": place.node_id, "index": place.index, "name": place.name, "at": place.at}
    )
