"""Results of task runs in the flow's process: from the engine, from storage, from tasks that ran inline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runners.base import Wanted
from runners.errors import ResultFileLostError, ResultLostError, RunnerNotStartedError
from runners.messages import Input, ResultsLost, Stored
from runners.storage import MISSING, read_stored

from ..core.events import FilesLost, ResultsWanted
from ..core.readiness import label
from ..core.records import Node, Recovered
from ..core.states import State as TaskState
from ..driver.outcomes import exception_of
from ..errors import MillraceError, UserError
from .outcome_lists import Outcome, Outcomes

if TYPE_CHECKING:
    from .sessions import LocalSession

log = logging.getLogger("millrace")


@dataclass(slots=True)
class _Asked:
    """Items whose results are asked for, and what has been found, by places among the indices."""

    node: Node
    indices: Sequence[int]
    values: list[Any]
    errors: dict[int, BaseException] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)  # completed, and the result is lost

    def put(self, places: Sequence[int], brought: Sequence[Any] | None) -> None:
        """Fill in results; None if they are lost."""
        if brought is None:
            self.gone += places
        elif isinstance(places, range):
            self.values[places.start : places.stop] = brought
        else:
            for k, value in zip(places, brought, strict=True):
                self.values[k] = value


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
        if len(indices) == 1 and not errors_only and (found := self._at_engine(node, indices[0])) is not None:
            return Outcomes(found)
        asked = _Asked(node, indices, [None] * len(indices))
        elsewhere: Iterable[int] = range(len(indices))
        if not errors_only and isinstance(indices, range) and _all_completed(node, indices):
            elsewhere = self._fill_runs(asked, indices)
        self._fill(asked, elsewhere, errors_only=errors_only)
        while asked.gone:
            again, asked.gone = asked.gone, []
            self._have_made_again(node, [indices[k] for k in again])
            self._fill(asked, again, errors_only=False)
        return Outcomes(asked.values, dict(sorted(asked.errors.items())))

    def _at_engine(self, node: Node, index: int) -> list[Any] | None:
        """Return the result of an item that has completed, where the engine has it; None: it takes more to say."""
        completed = index < node.width and node.states[index] == TaskState.COMPLETED
        place = node.location(index) if completed else None
        if place is None or self._session.inline.kept(place[0]) is not None:
            return None
        try:
            (brought,) = self._driver.runner.fetch_many([(place[0], node.stage_in(place[0]), (place[1],))])
        except RunnerNotStartedError:
            return None
        return None if isinstance(brought, ResultLostError) else brought

    def singles(self, items: Sequence[tuple[int, int]]) -> list[Outcome]:
        """Return (value, exception) of items that have ended, each a node and an index, in one round trip."""
        wanted: dict[int, Wanted] = {}  # by place in `items`
        for k, (node_id, index) in enumerate(items):
            node = self._driver.core.nodes[node_id]
            place = node.location(index) if node.state(index) is TaskState.COMPLETED else None
            if place is not None and self._session.inline.kept(place[0]) is None:
                wanted[k] = place[0], node.stage_in(place[0]), (place[1],)
        try:
            brought = self._driver.runner.fetch_many(list(wanted.values())) if wanted else []
        except RunnerNotStartedError:
            brought = []
        found: dict[int, Outcome] = {}
        for k, values in zip(wanted, brought, strict=False):
            if not isinstance(values, ResultLostError):
                found[k] = values[0], None
        rest = {k: item for k, item in enumerate(items) if k not in found}
        found |= {k: self.outcomes(node_id, (index,), False)[0] for k, (node_id, index) in rest.items()}
        return [found[k] for k in range(len(items))]

    def _fill(self, asked: _Asked, places: Iterable[int], *, errors_only: bool) -> None:
        """Fill in values and errors of items, given by their places in what was asked."""
        node, indices, errors = asked.node, asked.indices, asked.errors
        files: dict[Stored, list[int]] = {}
        within: dict[int, int] = {}  # by place: the position in its file
        batches: dict[int, list[int]] = {}
        for k in places:
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
                elif (stored := node.stored.get(index)) is not None:
                    files.setdefault(stored[0], []).append(k)
                    within[k] = stored[1]
                elif index in node.known.hopeless:
                    errors[k] = _hopeless(node, index)
                elif node.gone(index) or node.location(index) is not None:  # or was, a moment ago
                    asked.gone.append(k)
                else:
                    errors[k] = self._session.inline.problem(node.node_id, index)
        found = self._from_batches(node, [(b, [indices[k] for k in ks]) for b, ks in batches.items()])
        found += [self._from_file(node, file, [within[k] for k in ks]) for file, ks in files.items()]
        for ks, brought in zip([*batches.values(), *files.values()], found, strict=True):
            asked.put(ks, brought)

    def _fill_runs(self, asked: _Asked, items: range) -> list[int]:
        """Fill in what batches hold of contiguous items that have all completed; return the places of the rest."""
        elsewhere: list[int] = []
        wanted: list[tuple[int, range]] = []
        for batch_id, run in asked.node.batch_runs(items):
            if batch_id < 0:
                elsewhere += range(run.start - items.start, run.stop - items.start)
            else:
                wanted.append((batch_id, run))
        for (_, run), brought in zip(wanted, self._from_batches(asked.node, wanted), strict=True):
            asked.put(range(run.start - items.start, run.stop - items.start), brought)
        return elsewhere

    def _from_batches(
        self, node: Node, wanted: Sequence[tuple[int, Sequence[int]]]
    ) -> list[Sequence[Any] | None]:
        """Return results of batches, given their ids and the indices of the items; None where they are lost."""
        found: dict[int, Sequence[Any] | None] = {}
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
                found[k] = self._instead(node, *wanted[k], values)
            else:
                found[k] = values
        return [found[k] for k in range(len(wanted))]

    def _instead(
        self, node: Node, batch_id: int, indices: Sequence[int], lost: ResultLostError
    ) -> Sequence[Any] | None:
        """Return results that the engine has lost from storage, or None: then the coordinator knows of it."""
        stored = [place for place in map(node.stored.get, indices) if place is not None]
        whole = len(stored) == len(indices)
        if not self._session.closed:
            self._driver.post(ResultsLost((batch_id,), str(lost)))
        elif not whole:
            raise self._too_late()
        return self._from_file(node, stored[0][0], [position for _, position in stored]) if whole else None

    def _from_file(self, node: Node, file: Stored, positions: Sequence[int]) -> Sequence[Any] | None:
        """Return results from storage, or None if their file is lost: then the coordinator knows of it."""
        try:
            return read_stored(file, positions)
        except ResultFileLostError as error:
            if self._session.closed:
                raise
            self._driver.post(FilesLost(node.node_id, frozenset({file.url}), error.reason))
            return None

    def _have_made_again(self, node: Node, indices: Sequence[int]) -> None:
        """Have results that are gone made again, and wait until they are there or cannot be."""
        if self._session.closed:
            raise self._too_late()
        board, heard = self._driver.board, threading.Event()

        def hear() -> None:  # what was posted before has been handled by now
            heard.set()
            board.poke()

        def there() -> bool:
            known = node.known.hopeless
            if not heard.is_set() or any(node.gone(i) and i not in known for i in indices):
                return False
            return board.written()

        self._driver.post(ResultsWanted(node.node_id, indices))
        self._driver.do(hear)
        self._session.lent(lambda: board.wait(there))

    def _too_late(self) -> UserError:
        return UserError(
            f"the flow run {self._session.run_id} has ended, and with it the results that were not asked "
            "for. Return the future from the flow, or call result() inside it."
        )

    def input(self, source: Input) -> Sequence[Any] | None:
        """Return the results that an input of an inline batch names, for positions up to the highest."""
        if source.batch_id is None:
            return None
        kept = self._session.inline.kept(source.batch_id)
        if kept is not None:
            return kept[source.stage]
        try:
            values = self._driver.runner.fetch(source.batch_id, source.stage, source.positions)
        except ResultLostError:
            return None  # its batch's table will tell
        found: list[Any] = [MISSING] * (max(source.positions) + 1)
        for position, value in zip(source.positions, values, strict=True):
            found[position] = value
        return found


def _all_completed(node: Node, items: range) -> bool:
    """Whether these are contiguous items that have all completed."""
    if items.step != 1 or items.stop > node.width:
        return False
    return node.states.count(TaskState.COMPLETED, items.start, items.stop) == len(items)


def _hopeless(node: Node, index: int) -> ResultLostError:
    lost, why = node.known.losses.get(index) or "released", node.known.hopeless[index]
    return ResultLostError(
        f"the result of {label(node, index)} was lost ({lost}) and cannot be made again: {why}"
    )


def stored_values(recovered: Recovered) -> dict[int, Any]:
    """Return what is recovered of a node, read from storage."""
    return {index: read_stored(file, [at])[0] for index, (file, at) in recovered.results.items()}
