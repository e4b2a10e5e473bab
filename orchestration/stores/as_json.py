"""Records as JSON values. The keys are stable: scripts rely on them; new ones may be added."""

from __future__ import annotations

import time
from typing import Any

from runners.messages import Detail, Outcome

from ..core.journal import LOST
from ..core.states import RUN_TERMINAL, State
from .audit import AuditRow
from .base import AttemptRow, HistoryRow, LeaseRow, Limit, LogRow, NodeRow, RunRow, TaskRunRow
from .timing import NodeTiming, RunTiming


def run_json(row: RunRow) -> dict[str, Any]:
    """Keys: id, name, flow, state, state_name, message, created, started, ended, seconds, heartbeat, runner,
    engine_url, entrypoint, version, tags, parameters, parent_id, host, pid, processes, counts, retries,
    retry_seconds, error. Times are seconds since the epoch.
    """
    return {
        "id": row.run_id,
        "name": row.name,
        "flow": row.flow_name,
        "state": row.state.title,
        "state_name": row.state_name or row.state.title,
        "message": row.message,
        "created": row.created,
        "started": row.started,
        "ended": row.ended,
        "seconds": seconds_of(row, time.time()),
        "heartbeat": row.heartbeat,
        "runner": row.runner,
        "engine_url": row.engine_url or None,
        "entrypoint": row.entrypoint,
        "version": row.version,
        "tags": sorted(row.tags),
        "parameters": dict(row.parameters),
        "parent_id": row.parent_run_id,
        "host": row.host,
        "pid": row.pid,
        "processes": row.epoch,
        "counts": counts_json(row.counts),
        "retries": row.retries,
        "retry_seconds": row.retry_seconds,
        "error": detail_json(row.detail),
    }


def node_json(node: NodeRow) -> dict[str, Any]:
    """Keys: node, path, task, kind, width, tags, upstream, policy, counts, created, started, ended."""
    return {
        "node": node.node_id,
        "path": node.path,
        "task": node.task_name,
        "kind": node.kind,
        "width": node.width,
        "tags": sorted(node.tags),
        "upstream": list(node.upstream),
        "policy": dict(node.policy),
        "counts": counts_json(node.counts),
        "created": node.created,
        "started": node.started,
        "ended": node.ended,
    }


def task_run_json(row: TaskRunRow) -> dict[str, Any]:
    """Keys: node, index, task, name, state, state_name, attempts, started, seconds, worker, reason, root, error.

    root: node and index of the task run whose failure kept it from running.
    """
    return {
        "node": row.node_id,
        "index": row.index,
        "task": row.task_name,
        "name": row.name,
        "state": row.state.title,
        "state_name": row.state_name,
        "attempts": row.attempts,
        "started": row.started,
        "seconds": row.seconds,
        "worker": row.worker,
        "reason": row.reason,
        "root": root_json(row.root),
        "error": detail_json(row.detail),
    }


def root_json(root: tuple[int, int] | None) -> dict[str, int] | None:
    """Keys: node, index."""
    return None if root is None else {"node": root[0], "index": root[1]}


def attempt_json(row: AttemptRow) -> dict[str, Any]:
    """Keys: attempt, outcome, state, started, seconds, worker, execution_id, reason, error."""
    return {
        "attempt": row.attempt,
        "outcome": outcome_title(row.outcome),
        "state": row.state.title,
        "started": row.started,
        "seconds": row.seconds,
        "worker": row.worker,
        "execution_id": row.execution_id,
        "reason": row.reason,
        "error": detail_json(row.detail),
    }


def history_json(row: HistoryRow) -> dict[str, Any]:
    """Keys: at, state, reason."""
    return {"at": row.at, "state": row.state.title, "reason": row.reason}


def log_json(row: LogRow) -> dict[str, Any]:
    """Keys: seq, at, level, logger, task, node, index, attempt, message. node -1: the flow itself."""
    return {
        "seq": row.seq,
        "at": row.at,
        "level": row.level,
        "logger": row.logger,
        "task": row.task_name,
        "node": row.node_id,
        "index": row.index,
        "attempt": row.attempt,
        "message": row.message,
    }


def limit_json(limit: Limit) -> dict[str, Any]:
    """Keys: name, slots, per_second, held, waiting."""
    return {
        "name": limit.name,
        "slots": limit.slots,
        "per_second": limit.per_second,
        "held": limit.held,
        "waiting": limit.waiting,
    }


def lease_json(lease: LeaseRow, run: RunRow | None) -> dict[str, Any]:
    """Keys: held, left, label, run_id, run, host, pid, slots, since, expires. Times are by the store's clock."""
    return {
        "held": lease.held,
        "left": lease.left,
        "label": lease.label,
        "run_id": lease.run_id,
        "run": run.name if run else None,
        "host": run.host if run else None,
        "pid": run.pid if run else None,
        "slots": lease.slots,
        "since": lease.since,
        "expires": lease.expires,
    }


def audit_json(row: AuditRow) -> dict[str, Any]:
    """Keys: seq, at, who, token, client, action, target, outcome."""
    return {
        "seq": row.seq,
        "at": row.at,
        "who": row.who or None,
        "token": row.token_id or None,
        "client": row.client,
        "action": row.action,
        "target": row.target,
        "outcome": row.outcome,
    }


def counts_json(counts: tuple[int, ...]) -> dict[str, int]:
    """Return the states that occur, by name."""
    return {state.title: counts[state] for state in State if counts[state]}


def detail_json(detail: Detail | None) -> dict[str, str] | None:
    """Keys: type, message, traceback."""
    if detail is None:
        return None
    return {"type": detail.type_name, "message": detail.message, "traceback": detail.traceback}


def outcome_title(outcome: int) -> str:
    return "LOST" if outcome == LOST else Outcome(outcome).name


def seconds_of(row: RunRow, now: float) -> float | None:
    """Return how long a run has taken, or takes by now."""
    if row.started is None:
        return None
    return max(0.0, (row.ended if row.ended is not None and row.state in RUN_TERMINAL else now) - row.started)


def timing_json(told: RunTiming, run: RunRow) -> dict[str, Any]:
    """Keys: slots, wall_seconds, coordinator_seconds, code_seconds, worker_seconds, engine_seconds, idle_seconds,
    nodes (those of `_node_json`).
    """
    return {
        "slots": told.slots,
        "wall_seconds": told.wall_seconds,
        "coordinator_seconds": run.coordinator_seconds,
        "code_seconds": told.code_seconds,
        "worker_seconds": told.worker_seconds,
        "engine_seconds": told.engine_seconds,
        "idle_seconds": told.idle_seconds,
        "nodes": [_node_json(node) for node in told.nodes],
    }


def _node_json(row: NodeTiming) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in row.__slots__ if name not in ("node", "nodes", "items")}
    return {"node": row.node.node_id, "path": row.node.path, "task": row.node.task_name, **fields}
