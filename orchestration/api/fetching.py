"""Results of task runs in the flow's process: from the engine, from storage, from tasks that ran inline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runners.errors import ResultLostError, RunnerNotStartedError
from runners.messages import Input
from runners.storage import MISSING, read_stored

from ..core.records import Node
from ..core.states import State as TaskState
from ..driver.outcomes import exception_of
from ..errors import MillraceError, UserError

if TYPE_CHECKING:
    from ..stores.base import RecoveredNode
    from .sessions import LocalSession

Outcome = tuple[Any, BaseException | None]


class Fetching:
    """Brings results where somebody asked for them. One round trip per batch, none per item."""

    def __init__(self, session: LocalSession) -> None:
        self._session = session
        self._driver = session.driver

    def outcomes(self, node_id: int, indices: Sequence[int], errors_only: bool) -> list[Outcome]:
        """Return (value, exception) of items that have ended."""
        if not len(indices):
            return []  # nobody has waited, so the driver may not know the node yet
        node = self._driver.core.nodes.get(node_id)
        if node is None:
            raise MillraceError(f"node {node_id} of run {self._session.run_id} is not known yet")
        outcomes: list[Outcome] = [(None, None)] * len(indices)
        batches: dict[int, list[int]] = {}
        files: dict[Any, list[int]] = {}
        for k, index in enumerate(indices):
            state = node.states[index] if index < node.width else TaskState.PENDING
            if state == TaskState.COMPLETED and not errors_only:
                place = node.location(index)
                if place is not None:
                    batches.setdefault(place[0], []).append(k)
                elif index in node.stored:
                    files.setdefault(node.stored[index][0], []).append(k)
                else:
                    outcomes[k] = self._session.inline.outcome(node_id, index)
            elif state != TaskState.COMPLETED:
                outcomes[k] = None, exception_of(node, index, self._driver.core.nodes)
        for batch_id, ks in batches.items():
            self._from_batch(node, batch_id, indices, ks, outcomes)
        for ks in files.values():
            self._from_storage(node, indices, ks, outcomes)
        return outcomes

    def _from_batch(
        self, node: Node, batch_id: int, indices: Sequence[int], ks: list[int], outcomes: list[Outcome]
    ) -> None:
        positions = [node.positions[indices[k]] for k in ks]
        kept = self._session.inline.kept(batch_id)
        try:
            if kept is not None:
                values = [kept[0][p] for p in positions]
            else:
                values = self._driver.runner.fetch(batch_id, node.stage_in(batch_id), positions)
        except (ResultLostError, RunnerNotStartedError):
            if indices[ks[0]] in node.stored:
                self._from_storage(node, indices, ks, outcomes)
                return
            if self._session.closed:
                raise UserError(
                    f"the flow run {self._session.run_id} has ended, and with it the results that were not asked "
                    "for. Return the future from the flow, or call result() inside it."
                ) from None
            raise
        for k, value in zip(ks, values, strict=True):
            outcomes[k] = value, None

    def _from_storage(
        self, node: Node, indices: Sequence[int], ks: list[int], outcomes: list[Outcome]
    ) -> None:
        stored = node.stored[indices[ks[0]]][0]
        values = read_stored(stored, [node.stored[indices[k]][1] for k in ks])
        for k, value in zip(ks, values, strict=True):
            outcomes[k] = value, None

    def input(self, source: Input) -> Sequence[Any] | None:
        """Return the results that an input of an inline batch names, for positions up to the highest."""
        if source.batch_id is None:
            return None
        kept = self._session.inline.kept(source.batch_id)
        if kept is not None:
            return kept[source.stage]
        values = self._driver.runner.fetch(source.batch_id, source.stage, source.positions)
        found: list[Any] = [MISSING] * (max(source.positions) + 1)
        for position, value in zip(source.positions, values, strict=True):
            found[position] = value
        return found


def lengths_of(found: RecoveredNode) -> dict[int, int]:
    """Return the lengths of stored results that a map may be over.

    Those of single task runs only: finding out means reading them.
    """
    lengths = {}
    for index, (stored, position) in found.results.items() if found.width == 1 else ():
        value = read_stored(stored, [position])[0]
        if isinstance(value, list | tuple):
            lengths[index] = len(value)
    return lengths
