"""Rebuilding a run from its journal alone, the slow and obvious way: one Python object per item.

Stores have their own, faster reading of the journal; this one is the judge of what the entries say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from runners.messages import Outcome, Stored

from ..core.coordinator import Coordinator
from ..core.journal import AttemptsEnded, Entry, Moved, NodeAdded, StartRepeated, WidthLearned
from ..core.specs import Recovered
from ..core.states import AT_ENGINE, TERMINAL, State

# Moves that the journal leaves to what follows from them.
_UNTOLD = {(State.PENDING, State.READY), (State.AWAITING_RETRY, State.READY)}


class JournalContradiction(AssertionError):
    """The journal's entries cannot all be true, or do not say what the coordinator knows."""


@dataclass
class Item:
    """One task run, as its entries tell.

    Attributes:
        skipped: whether it has asked to be skipped, in this life of the run or before.
        ended: attempts that have ended: their number, outcome and state after it.
        terminal: how often it has reached a terminal state; more than once is a contradiction.
    """

    state: State = State.PENDING
    spent: int = 0
    started: bool = False
    lost: bool = False  # it was started, in this life of the run or before, and then lost for good
    skipped: bool = False
    stored: tuple[Stored, int] | None = None
    length: int | None = None
    ended: list[tuple[int, int, State]] = field(default_factory=list)
    repeats: int = 0
    terminal: int = 0

    @property
    def attempts(self) -> int:
        """The number of its current or last attempt."""
        return self.spent + (self.state in AT_ENGINE)

    @property
    def owes_result(self) -> bool:
        """Whether its code has run, or may have, and there is no result to show for it."""
        return self.lost or self.started or (self.state is State.COMPLETED and self.stored is None)

    def move(self, state: State) -> None:
        if self.state in TERMINAL:
            raise JournalContradiction(f"it was {self.state.title} and became {state.title}")
        self.lost = self.lost or (self.started and state is State.CRASHED)
        self.started = state is State.RUNNING
        self.state = state
        self.terminal += state in TERMINAL


class Replayed:
    """The state of a run's nodes after some entries of its journal.

    Args:
        before: by node, what was handed to the coordinator of this life of the run as `NodeSpec.recovered`.
    """

    def __init__(self, entries: Iterable[Entry] = (), before: Mapping[int, Recovered] | None = None) -> None:
        self.added: dict[int, NodeAdded] = {}
        self.items: dict[int, list[Item]] = {}
        self.highest_batch = -1
        self._before = dict(before or {})
        for entry in entries:
            self.apply(entry)

    def take_over(self, node_id: int, recovered: Recovered) -> None:
        """Say what is handed to the coordinator with a node that will be submitted."""
        self._before[node_id] = recovered

    def apply(self, entry: Entry) -> None:
        """Take one more entry into account."""
        match entry:
            case NodeAdded():
                self.added[entry.node_id] = entry
                if entry.width is not None:
                    self._open(entry.node_id, entry.width)
            case WidthLearned(node_id, width):
                self._open(node_id, width)
            case Moved():
                for index in entry.indices:
                    self.items[entry.node_id][index].move(entry.state)
            case AttemptsEnded():
                self._ended(entry)
            case StartRepeated():
                for index in entry.indices:
                    self.items[entry.node_id][index].repeats += 1

    def _open(self, node_id: int, width: int) -> None:
        items = self.items[node_id] = [Item() for _ in range(width)]
        recovered = self._before.get(node_id)
        if recovered is not None and recovered.width in (None, width):
            for index, attempts in recovered.attempts.items():
                if index < width:
                    items[index].spent = attempts
            for index in recovered.skipped:
                if index < width:
                    items[index].skipped = True
            for index in recovered.started:
                if index < width:
                    items[index].lost = index not in recovered.results
            for index, stored in recovered.results.items():
                if index < width:
                    items[index].stored = stored
                    items[index].length = recovered.lengths.get(index)

    def _ended(self, entry: AttemptsEnded) -> None:
        self.highest_batch = max(self.highest_batch, entry.batch_id)
        for k, index in enumerate(entry.indices):
            item = self.items[entry.node_id][index]
            if item.state is not State.COMPLETED if entry.remade else item.state not in AT_ENGINE:
                raise JournalContradiction(f"an attempt ended of an item that is {item.state.title}")
            if entry.outcomes[k] == Outcome.UNSTARTED or entry.attempts[k] != item.spent + 1:
                raise JournalContradiction(f"attempt {entry.attempts[k]} ended after {item.spent}")
            if not entry.remade:
                item.move(State(entry.states[k]))
            item.spent = entry.attempts[k]
            item.skipped = item.state is State.SKIPPED
            item.ended.append((entry.attempts[k], entry.outcomes[k], item.state))
            if item.state is State.COMPLETED and entry.stored is not None:
                item.stored = (entry.stored, entry.positions[k])
                item.length = entry.lengths.get(k)

    def recovered(self, node_id: int) -> Recovered:
        """Return what a later process may take over of a node."""
        items = self.items.get(node_id)
        if items is None:  # this life did not come so far
            return self._before.get(node_id, Recovered())
        return Recovered(
            attempts={i: item.attempts for i, item in enumerate(items) if item.attempts},
            results={
                i: item.stored
                for i, item in enumerate(items)
                if item.state is State.COMPLETED and item.stored is not None
            },
            started=frozenset(i for i, item in enumerate(items) if item.owes_result),
            skipped=frozenset(i for i, item in enumerate(items) if item.skipped),
            lengths={i: item.length for i, item in enumerate(items) if item.length is not None},
            width=len(items),
        )

    def check(self, core: Coordinator) -> None:
        """Raise JournalContradiction if the coordinator knows something else than the journal says."""
        if set(self.added) != set(core.nodes):
            raise JournalContradiction("the journal has other nodes than the coordinator")
        for node_id, node in core.nodes.items():
            items = self.items.get(node_id, [])
            if len(items) != node.width:
                raise JournalContradiction(f"{node.spec.path}: {len(items)} items, not {node.width}")
            for index, item in enumerate(items):
                actual = node.state(index)
                if item.state is not actual and (item.state, actual) not in _UNTOLD:
                    story = "\n  ".join(core.story(node_id, index))
                    raise JournalContradiction(
                        f"{node.spec.path}[{index}] is {actual.title}, journalled {item.state.title}\n  {story}"
                    )
                if item.attempts != node.attempts[index]:
                    story = "\n  ".join(core.story(node_id, index))
                    raise JournalContradiction(
                        f"{node.spec.path}[{index}] had {node.attempts[index]} attempts, "
                        f"journalled {item.attempts}\n  {story}"
                    )
