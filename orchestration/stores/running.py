"""What runs at this moment."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.states import State
from .base import NodeRow, Store, TaskRunRow

_RUNNING = frozenset({State.RUNNING})


def running_now(store: Store, run_id: str, nodes: Iterable[NodeRow], limit: int) -> list[TaskRunRow]:
    """Return task runs whose code has started and not ended, those that began first in front.

    Args:
        nodes: those of the run; only the items of nodes that have some at work are looked at.
        limit: how many are looked for.
    """
    found: list[TaskRunRow] = []
    for node in nodes:
        if len(found) >= limit:
            break
        if node.replaced_by is None and node.counts[State.RUNNING]:
            room = limit - len(found)
            found += store.task_runs(run_id, node_id=node.node_id, states=_RUNNING, limit=room)
    return sorted(found, key=lambda item: item.started or 0.0)
