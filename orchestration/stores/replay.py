"""Reading a node's journal: the same for every store.

A store keeps what the coordinator appended, columns as columns; what people ask for (the state of one item,
its attempts, a page of task runs) is computed here from a `JournalView`, a consistent look at one run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import NamedTuple, Protocol

from runners.messages import Outcome

from ..core.journal import LOST, AttemptsEnded, Counted, Entry, Moved, StartRepeated
from ..core.states import TERMINAL, State
from .base import AttemptRow, HistoryRow, NodeRow, TaskRunRow
from .timeline import Ended

_NAMED_OUTCOMES = {Outcome.CACHED: "Cached", Outcome.TIMED_OUT: "TimedOut"}

ItemEntry = Moved | AttemptsEnded | StartRepeated
MAX_INDEX = 2**62
FIRST_WINDOW = (
    10_000  # items whose states are looked at for a page; then four times as many, where it is not full
)


class JournalView(Protocol):
    """A consistent look at the journal of one run."""

    def nodes(self, node_id: int | None = None) -> list[NodeRow]:
        """Return the nodes by ascending node_id, or the one with this id if there is such."""

    def transitions(
        self, node_id: int, first: int = 0, last: int = MAX_INDEX, after: int = 0
    ) -> Iterable[tuple[int, Sequence[int], bytes | int]]:
        """Return (seq, who moved, where to) in order: one state for all or a byte for each.

        At least those that touch an index in first..last, of entries above the seq `after`.
        """

    def entries(self, node_id: int, wanted: Sequence[int]) -> Iterable[tuple[int, ItemEntry]]:
        """Return (seq, entry) in order; at least those that touch one of the wanted indices, which ascend."""

    def ended(self, after: int) -> Iterable[Ended]:
        """Return what entries above the seq `after` say of attempts, by node and in order, of nodes not replaced."""

    def everything(self) -> Iterable[tuple[int, ItemEntry]]:
        """Return (node_id, entry) by ascending node_id, of each node in order; errors may be left out."""


def states_of(view: JournalView, node: NodeRow) -> bytearray:
    """Return the state of each item of a node."""
    return continued(view, node, ItemStates())[0]


class ItemStates(NamedTuple):
    """The state of each item of a node, and the `seq` up to which the journal has been read for it."""

    states: bytes = b""
    seq: int = 0


def node_states(view: JournalView, node_id: int, before: ItemStates) -> ItemStates:
    """Return what has become of the items of a node since `before`."""
    for node in view.nodes(node_id):
        states, seq = continued(view, node, before)
        return ItemStates(bytes(states), seq)
    return before


def continued(view: JournalView, node: NodeRow, before: ItemStates) -> tuple[bytearray, int]:
    """Return the states of a node's items with what the journal has said since `before`, and its new `seq`."""
    states, seq = bytearray(before.states), before.seq
    states.extend(bytes(max(0, (node.width or 0) - len(states))))
    for at, indices, state in view.transitions(node.node_id, after=before.seq):
        seq = at
        if not indices:
            continue
        top = max(indices[0], indices[-1]) if isinstance(indices, range) else max(indices)
        if top >= len(states):
            states.extend(bytes(top + 1 - len(states)))
        if isinstance(indices, range):
            new = state if isinstance(state, bytes) else bytes([state]) * len(indices)
            states[indices.start : indices.stop] = new
        elif isinstance(state, bytes):
            for index, one in zip(indices, state, strict=True):
                states[index] = one
        else:
            for index in indices:
                states[index] = state
    return states, seq


def item_states(view: JournalView, node_id: int) -> bytes:
    """Return the state of each item of the node with this id; nothing if there is none."""
    return bytes(node_states(view, node_id, ItemStates()).states)


def task_runs(
    view: JournalView,
    node_id: int | None,
    states: frozenset[State] | None,
    after: tuple[int, int] | None,
    limit: int,
) -> list[TaskRunRow]:
    """Return a page of task runs. Without `node_id`: of nodes that no later process has replaced."""
    found: list[TaskRunRow] = []
    node_before, index_before = after or (-1, -1)
    for node in view.nodes(node_id):
        if len(found) >= limit:
            break
        if node_id is None and node.replaced_by is not None:
            continue
        if node.node_id < node_before or (states is not None and _has_none(node, states)):
            continue
        first = index_before + 1 if node.node_id == node_before else 0
        found += _rows(view, node, _chosen(view, node, states, first, limit - len(found)))
    return found


def _chosen(
    view: JournalView, node: NodeRow, states: frozenset[State] | None, first: int, room: int
) -> Sequence[int]:
    """Return the first indices from `first` on that are in one of the states, at most `room`."""
    if node.width is None:
        matching = _matching(states_of(view, node), states)
        return matching[bisect_left(matching, first) :][:room]
    if states is None:
        return range(first, min(first + room, node.width))
    chosen: list[int] = []
    size = FIRST_WINDOW
    while first < node.width and len(chosen) < room:
        past = first + size
        # the last window has no end: a journal may know of more items than the node had when it was added
        states_there = _window(view, node, first, past if past < node.width else MAX_INDEX)
        chosen += [first + k for k in _matching(states_there, states)]
        first, size = past, 4 * size
    return chosen[:room]


def _window(view: JournalView, node: NodeRow, first: int, past: int) -> bytearray:
    """Return the states of the items from `first` up to `past`, exclusive."""
    states = bytearray(min(past, node.width or 0) - first)
    for _, indices, state in view.transitions(node.node_id, first, past - 1):
        if isinstance(indices, range):
            start, stop = max(indices.start, first), min(indices.stop, past)
            if start < stop:
                some = (
                    state[start - indices.start : stop - indices.start] if isinstance(state, bytes) else state
                )
                new = some if isinstance(some, bytes) else bytes([some]) * (stop - start)
                _grow(states, stop - first)
                states[start - first : stop - first] = new
        else:
            for k, index in enumerate(indices):
                if first <= index < past:
                    _grow(states, index + 1 - first)
                    states[index - first] = state[k] if isinstance(state, bytes) else state
    return states


def _grow(states: bytearray, length: int) -> None:
    if length > len(states):
        states.extend(bytes(length - len(states)))


def _has_none(node: NodeRow, states: frozenset[State]) -> bool:
    """Tell from a finished node's counts; those of a live one may be ahead of what is derived from moves."""
    finished = node.width is not None and sum(node.counts[s] for s in TERMINAL) == node.width
    return finished and not any(node.counts[s] for s in states)


def _matching(now: bytearray, states: frozenset[State] | None) -> Sequence[int]:
    if states is None:
        return range(len(now))
    mask = now.translate(bytes(value in states for value in range(256)))
    return list(compress(range(len(mask)), mask))


def _rows(view: JournalView, node: NodeRow, chosen: Sequence[int]) -> list[TaskRunRow]:
    if not chosen:
        return []
    items = {index: _Item() for index in chosen}
    for _, entry in view.entries(node.node_id, chosen):
        if isinstance(entry, StartRepeated):
            continue
        if isinstance(entry.indices, range) and len(entry.indices) > len(items):
            touched = ((entry.indices.index(i), item) for i, item in items.items() if i in entry.indices)
        else:
            touched = ((k, items[i]) for k, i in enumerate(entry.indices) if i in items)
        for k, item in touched:
            item.apply(entry, k)
    return [item.row(node, index) for index, item in items.items()]


class _Item:
    """The last that is known of one item."""

    __slots__ = ("ended", "k", "last", "name", "root", "spent", "started")

    def __init__(self) -> None:
        self.last: Moved | AttemptsEnded | None = None  # what brought it to its state
        self.ended: AttemptsEnded | None = None  # its last attempt that has ended
        self.k = 0  # its entry there
        self.spent = 0
        self.started: float | None = None  # of the attempt that runs
        self.root: tuple[int, int] | None = None
        self.name = ""

    def apply(self, entry: Moved | AttemptsEnded, k: int) -> None:
        self.last = entry
        if isinstance(entry, Moved):
            self.started = entry.at if entry.state is State.RUNNING else None
            self.root = None if entry.roots is None else entry.roots.of(k)
            return
        self.started = self.root = None
        self.name = entry.names.get(k, self.name)
        self.ended, self.k = entry, k
        if entry.outcomes[k] != Outcome.UNSTARTED:
            self.spent = max(self.spent, entry.attempts[k])

    def row(self, node: NodeRow, index: int) -> TaskRunRow:
        last, ended, k = self.last, self.ended, self.k
        if isinstance(last, AttemptsEnded):
            state = State(last.states[k])
            state_name = (
                _NAMED_OUTCOMES.get(Outcome(last.outcomes[k]), "") if last.outcomes[k] != LOST else ""
            )
            state_name = state_name if state in TERMINAL else ""
        else:
            state, state_name = (last.state, last.name) if last else (State.PENDING, "")
        running = self.started is not None
        worker = last.worker if last is not None and running else "" if ended is None else ended.worker
        return TaskRunRow(
            node_id=node.node_id,
            index=index,
            task_name=node.task_name,
            state=state,
            state_name=state_name or state.title,
            attempts=self.spent + running,
            started=self.started if running or not ended else ended.started[k] or None,
            seconds=None if running or not ended or not ended.started[k] else ended.durations[k],
            worker=worker,
            name=self.name,
            reason=last.reason if last else "",
            detail=ended.details.get(k) if ended and not running else None,
            root=self.root,
        )


def attempts(view: JournalView, node_id: int, index: int) -> list[AttemptRow]:
    """Return what an item has tried. Coming back unstarted is no attempt: `history` tells it."""
    found = []
    for _, entry in view.entries(node_id, (index,)):
        if not isinstance(entry, AttemptsEnded) or index not in entry.indices:
            continue
        k = entry.indices.index(index)
        if entry.outcomes[k] == Outcome.UNSTARTED:
            continue
        started = entry.started[k] or None
        found.append(
            AttemptRow(
                attempt=entry.attempts[k],
                outcome=entry.outcomes[k],
                state=State(entry.states[k]),
                started=started,
                seconds=entry.durations[k] if started else None,
                worker=entry.worker,
                execution_id=entry.execution_id,
                batch_id=entry.batch_id,
                reason=entry.reason,
                detail=entry.details.get(k),
                stored=entry.stored,
                position=entry.positions[k],
                ended=started + entry.durations[k] if started else entry.at,
            )
        )
    return found


def history(view: JournalView, node_id: int, index: int) -> list[HistoryRow]:
    """Return an item's transitions but for the ends of its attempts, which these tell themselves.

    Where a start was heard of with the end only, as of short ones, it stands before the end by its own time.
    """
    found: list[HistoryRow] = []
    for seq, entry in view.entries(node_id, (index,)):
        if index not in entry.indices:
            continue
        if isinstance(entry, AttemptsEnded):
            k = entry.indices.index(index)
            if entry.outcomes[k] != Outcome.UNSTARTED:
                if entry.started[k] and not (found and found[-1].state is State.RUNNING):
                    found.append(HistoryRow(seq, node_id, [index], State.RUNNING, entry.started[k], ""))
                continue
            state, reason = State(entry.states[k]), entry.reason or "came back unstarted"
        elif isinstance(entry, StartRepeated):
            state = State.RUNNING
            reason = f"started a second time on {entry.worker} as {entry.execution_id}"
        else:
            state, reason = entry.state, entry.reason
        found.append(HistoryRow(seq, node_id, entry.indices, state, entry.at, reason))
    return found


def interrupted(view: JournalView, now: float, reason: str) -> list[Entry]:
    """Return the entries that end every task run of a run whose process is gone."""
    entries: list[Entry] = []
    live = [state for state in State if state not in TERMINAL]
    for node in view.nodes():
        if node.replaced_by is not None or (node.width is not None and _has_none(node, frozenset(live))):
            continue
        states = states_of(view, node)
        indices = _matching(states, frozenset(live))
        if not indices:
            continue
        if indices[-1] - indices[0] == len(indices) - 1:
            indices = range(indices[0], indices[-1] + 1)
        entries.append(Moved(node.node_id, indices, State.CRASHED, now, reason))
        for index in indices:
            states[index] = State.CRASHED
        entries.append(Counted(node.node_id, counts_of(states)))
    return entries


def counts_of(states: bytes | bytearray) -> tuple[int, ...]:
    """Return how many items are in which state."""
    return tuple(states.count(bytes([state])) for state in State)
