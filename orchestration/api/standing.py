"""How task runs stand that somebody has stopped waiting for, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..core.readiness import label
from ..core.states import TERMINAL

if TYPE_CHECKING:
    from .futures import TaskRunFuture
    from .sessions import LocalSession

SHOWN = 3  # task runs that an error names


def standing(session: LocalSession, node_id: int, indices: Sequence[int] | None, within: float) -> str:
    """Return what the error of a wait that ran out says, such as `fetch[5] has not ended within 2 s: it is Running`.

    Args:
        indices: None for all items of the node.
        within: seconds that were waited.
    """
    late = f"not ended within {within:g} s"
    node = session.driver.core.nodes.get(node_id)
    name = session.tasks[node_id].name
    if indices is not None and len(indices) == 1:
        (index,) = indices
        state = session.state(node_id, index)
        if node is not None:
            name = label(node, index)
        why = f" ({state.message})" if state.message else ""
        return f"{name} has {late}: it is {state.name}{why}"
    if node is None or not node.opened:
        return f"{name} has {late}: it is Pending, and how many task runs it has is not known yet"
    members = range(node.width) if indices is None else indices
    states = Counter(node.state(index) for index in members)
    kinds = {state.title: count for state, count in sorted(states.items()) if state not in TERMINAL}
    told = ", ".join(f"{count:,} {title}" for title, count in kinds.items())
    return f"{sum(kinds.values()):,} of {len(members):,} task runs of {name} have {late}: {told}"


def all_standing(waiting: Iterable[TaskRunFuture], total: int, within: float) -> str:
    """Return the same of futures of several nodes, those that are left of `total`, and how the first of them stand."""
    left = list(waiting)
    told = "; ".join(f._session.standing(f.node_id, (f.index,), within) for f in left[:SHOWN])
    return f"{len(left):,} of {total:,} task runs have not ended within {within:g} s: {told}" + (
        "; ..." if len(left) > SHOWN else ""
    )
