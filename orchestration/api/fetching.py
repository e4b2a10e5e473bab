"""Results of task runs in the flow's process: from the engine, from storage, from tasks that ran inline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from runners.base import Wanted
from runners.errors import ResultLostError, RunnerNotStartedError
from runners.messages import Input
from runners.storage import MISSING, read_stored

from ..core.records import Node
from ..core.states import State as TaskState
from ..driver.outcomes import exception_of
from ..errors import MillraceError, UserError
from .outcome_lists import Outcomes

if TYPE_CHECKING:
    from ..stores.base import RecoveredNode
    from .sessions import LocalSession


class Fetching:
    """Brings results where somebody asked for them. One round trip per batch, none per item."""

    def __init__(self, session: LocalSession) -> None:
        self._session = session
        self._driver = session.driver

    def outcomes(self, node_id: int, indices: Sequence[int], errors_only: bool) -> Outcomes:
        """Return (value, exception) of items that have ended."""
        if not len(indices):
            return Outcomes([])  # nobody has waited, so the driver may not know the node yet
        node = self._driver.core.nodes.get(node_id)
        if node is None:
            raise MillraceError(f"node {node_id} of run {self._session.run_id} is not known yet")
        values: list[Any] = [None] * len(indices)
        errors: dict[int, BaseException] = {}
        elsewhere: Iterable[int] = range(len(indices))
        if not errors_only and isinstance(indices, range) and _all_completed(node, indices):
            elsewhere = self._fill_runs(node, indices, values)
        files: dict[Any, list[int]] = {}
        batches: dict[int, list[int]] = {}
        for k in elsewhere:
            index = indices[k]
            state = node.states[index] if index < node.width else TaskState.PENDING
            if state != TaskState.COMPLETED:
                error = exception_of(node, index, self._driver.core.nodes)
                if error is not None:
                    errors[k] = error
            elif not errors_only:
                place = node.location(index)
                if place is not None:
                    batches.setdefault(place[0], []).append(k)
                elif index in node.stored:
                    files.setdefault(node.stored[index][0], []).append(k)
                else:
                    errors[k] = self._session.inline.problem(node_id, index)
        found = self._from_batches(node, [(b, [indices[k] for k in ks]) for b, ks in batches.items()])
        found += [_from_storage(node, [indices[k] for k in ks]) for ks in files.values()]
        for ks, brought in zip([*batches.values(), *files.values()], found, strict=True):
            for k, value in zip(ks, brought, strict=True):
                values[k] = value
        return Outcomes(values, dict(sorted(errors.items())))

    def _fill_runs(self, node: Node, items: range, values: list[Any]) -> list[int]:
        """Fill in what batches hold of contiguous items that have all completed; return the places of the rest."""
        elsewhere: list[int] = []
        wanted: list[tuple[int, range]] = []
        for batch_id, run in node.batch_runs(items):
            if batch_id < 0:
                elsewhere += range(run.start - items.start, run.stop - items.start)
            else:
                wanted.append((batch_id, run))
        for (_, run), brought in zip(wanted, self._from_batches(node, wanted), strict=True):
            values[run.start - items.start : run.stop - items.start] = brought
        return elsewhere

    def _from_batches(self, node: Node, wanted: Sequence[tuple[int, Sequence[int]]]) -> list[Sequence[Any]]:
        """Return results of batches, given their ids and the indices of the items."""
        found: dict[int, Sequence[Any]] = {}
        remote: dict[int, Wanted] = {}  # by place in `wanted`
        for k, (batch_id, indices) in enumerate(wanted):
            positions, kept = node.positions_of(indices), self._session.inline.kept(batch_id)
            if kept is not None:
                found[k] = [kept[0][p] for p in positions]
            else:
                remote[k] = batch_id, node.stage_in(batch_id), positions
        try:
            brought = self._driver.runner.fetch_many(list(remote.values())) if remote else []
        except RunnerNotStartedError as error:
            brought = [ResultLostError(str(error))] * len(remote)
        for k, values in zip(remote, brought, strict=True):
            if isinstance(values, ResultLostError):
                found[k] = self._instead(node, wanted[k][1], values)
            else:
                found[k] = values
        return [found[k] for k in range(len(wanted))]

    def _instead(self, node: Node, indices: Sequence[int], lost: ResultLostError) -> Sequence[Any]:
        """Return results that the engine has lost from where else they are, or raise."""
        if indices[0] in node.stored:
            return _from_storage(node, indices)
        if self._session.closed:
            raise UserError(
                f"the flow run {self._session.run_id} has ended, and with it the results that were not asked "
                "for. Return the future from the flow, or call result() inside it."
            )
        raise lost

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


def _all_completed(node: Node, items: range) -> bool:
    """Whether these are contiguous items that have all completed."""
    if items.step != 1 or items.stop > node.width:
        return False
    return node.states.count(TaskState.COMPLETED, items.start, items.stop) == len(items)


def _from_storage(node: Node, indices: Sequence[int]) -> Sequence[Any]:
    """Return results that are all in one file."""
    stored = node.stored[indices[0]][0]
    return read_stored(stored, [node.stored[index][1] for index in indices])


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
