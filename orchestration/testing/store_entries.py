"""Journal entries for tests of stores."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace

from runners.messages import Detail, Outcome, Stored

from ..core.journal import (
    AttemptsEnded,
    NodeAdded,
    RunMoved,
)
from ..core.states import RunState, State
from ..stores.base import RunRow, Store

NOW = 1_700_000_000.0
BOOM = Detail("ValueError", "boom \udc80\x00", "Traceback ...", b"pickle", retriable=False)


def new_run(store: Store, run_id: str = "0123456789abcdef", **fields: object) -> str:
    """Record a run that has just started, and one map node 0 of 10 items."""
    values: dict[str, object] = {"created": NOW, "heartbeat": NOW, **fields}
    run = replace(RunRow(run_id, f"name-{run_id}", "flow"), **values)  # type: ignore[arg-type]
    store.create_run(run)
    store.append(run_id, 1, [RunMoved(RunState.RUNNING, NOW), node(0, 10)])
    return run_id


def node(node_id: int, width: int | None, path: str = "", fingerprint: str = "v1") -> NodeAdded:
    return NodeAdded(node_id, path or f"task#{node_id}", "task", "map", width, NOW, fingerprint=fingerprint)


def ended(
    node_id: int,
    indices: Sequence[int],
    state: State = State.COMPLETED,
    outcome: int = Outcome.COMPLETED,
    *,
    attempt: int = 1,
    batch_id: int = 0,
    details: Mapping[int, Detail] | None = None,
    stored: Stored | None = None,
    started: float = NOW,
    names: Mapping[int, str] | None = None,
    reason: str = "",
) -> AttemptsEnded:
    """All of a batch ended alike."""
    n = len(indices)
    return AttemptsEnded(
        node_id,
        batch_id,
        f"execution-{batch_id}",
        "worker-1",
        NOW + 1,
        indices,
        [attempt] * n,
        bytes([outcome]) * n,
        bytes([state]) * n,
        array("d", [started] * n),
        array("d", [0.25] * n),
        range(n),
        details or {},
        names or {},
        stored,
        reason,
    )


def counts(**by_state: int) -> tuple[int, ...]:
    return tuple(by_state.get(state.name.lower(), 0) for state in State)
