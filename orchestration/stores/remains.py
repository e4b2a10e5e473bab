"""What earlier processes of a run left of its nodes, for its resume: the same for every store.

All of it is read before the flow's code begins, and it may be 100,000 single task runs. So what is read stays as
it came, and what it says of a node is made out when the flow submits that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from runners.messages import Outcome, Stored

from ..core.states import State
from .base import RecoveredNode

Row = tuple[
    Any, ...
]  # of a node and one of its entries, which may be missing: path and fingerprint of the node first


class NodeHead(NamedTuple):
    """A node, as far as a resume reads it. `once`: its items must not run twice."""

    node_id: int
    path: str
    fingerprint: str
    width: int | None
    once: bool


class Trace(NamedTuple):
    """An entry, as far as a resume reads it: a move to `state`, or attempts that have ended (`AttemptsEnded`)."""

    indices: Sequence[int]
    state: State | None
    states: bytes = b""
    outcomes: bytes = b""
    attempts: Sequence[int] = ()
    positions: Sequence[int] = ()
    stored: Stored | None = None


class RemainsView(Protocol):
    """A consistent look at the journal of one run."""

    def remains(self) -> Iterable[Row]:
        """Return a row for each entry that a resume needs, by ascending node_id, of each node in order.

        A node without such entries has one row. Moves to other states than Ready, Running, Completed and Skipped
        may be left out; the first two are needed only of nodes that must not run twice.
        """

    @staticmethod
    def read_remains(row: Row) -> tuple[NodeHead, Trace | None]:
        """Return what a row says; when the view is no longer there, too."""


class Remains(Mapping[str, RecoveredNode]):
    """What is known of a run's nodes, by path; of two nodes with one path the newer, and what it has of the older.

    A process that was itself a resume recorded reused results as moves only, and may have died before it came
    to all of them: what its predecessors stored stays valid as long as the fingerprint is the same and the
    item has not been tried since.
    """

    def __init__(self, view: RemainsView) -> None:
        self._read = view.read_remains
        self._first: dict[str, Row] = {}  # of each path; nearly all have no other
        self._more: dict[str, list[Row]] = {}
        for row in view.remains():
            if self._first.setdefault(row[0], row) is not row:
                self._more.setdefault(row[0], []).append(row)

    def fingerprints(self) -> Iterator[str]:
        """Return the fingerprint of a node of each path; it costs less than to look at them."""
        return (row[1] for row in self._first.values())

    def __getitem__(self, path: str) -> RecoveredNode:
        first = self._first[path]
        if path in self._more:
            return _of_rows(map(self._read, (first, *self._more[path])))
        node, trace = self._read(first)
        if trace is None:
            return _left(node, (), None)
        if trace.states == _COMPLETED and trace.stored is not None and node.width == 1 and not node.once:
            result = {0: (trace.stored, trace.positions[0])}
            return RecoveredNode(path, node.fingerprint, 1, {}, result)  # what nearly all of many are
        return _left(node, (trace,), None)

    def __contains__(self, path: object) -> bool:
        return path in self._first

    def __iter__(self) -> Iterator[str]:
        return iter(self._first)

    def __len__(self) -> int:
        return len(self._first)


def persisted(nodes: Mapping[str, RecoveredNode]) -> bool:
    """Whether results of any of them were to be stored."""
    if isinstance(nodes, Remains):
        return any(nodes.fingerprints())
    return any(node.fingerprint for node in nodes.values())


_COMPLETED = bytes([State.COMPLETED])


def _of_rows(rows: Iterable[tuple[NodeHead, Trace | None]]) -> RecoveredNode:
    """Return what is left of the nodes of one path, by ascending node_id."""
    old: RecoveredNode | None = None
    for node, entries in groupby(rows, itemgetter(0)):
        old = _left(node, (trace for _, trace in entries if trace is not None), old)
    assert old is not None
    return old


def _left(node: NodeHead, traces: Iterable[Trace], old: RecoveredNode | None) -> RecoveredNode:
    """Return what a node left, given what was left under its path before it."""
    same = old is not None and old.fingerprint == node.fingerprint
    results = dict(old.results) if old and same else {}
    spent = dict(old.attempts) if old and same else {}
    skipped = set(old.skipped) if old and same else set()
    started = set(old.started) if old else set()
    # whether this process knew its items: those of a map that it could not tell only ever Crashed
    told = False
    for trace in traces:
        if node.once:
            _note_starts(trace, started)
        elif trace.state in (State.READY, State.RUNNING):
            continue
        told = told or trace.state != State.CRASHED
        if trace.state is not None:
            if old is not None and trace.state == State.COMPLETED:  # taken over, perhaps into a wider map
                results.update({i: old.results[i] for i in trace.indices if i in old.results})
            elif old is not None and trace.state == State.SKIPPED:
                skipped.update(old.skipped.intersection(trace.indices))
            continue
        stored = trace.stored
        for k, (index, state) in enumerate(zip(trace.indices, trace.states, strict=True)):
            results.pop(index, None)
            skipped.discard(index)
            if state == State.SKIPPED:
                skipped.add(index)
            if state == State.COMPLETED:
                spent.pop(index, None)
                if stored is not None:
                    results[index] = (stored, trace.positions[k])
            elif trace.outcomes[k] != Outcome.UNSTARTED:
                spent[index] = max(spent.get(index, 0), trace.attempts[k])
    width = node.width
    if old is not None and old.started and not told and width != old.width:
        return old  # of which the indices in `started` are
    if old is not None and same and width is None:
        width = old.width
    return RecoveredNode(
        node.path, node.fingerprint, width, spent, results, _frozen(started), _frozen(skipped)
    )


_NOBODY: frozenset[int] = frozenset()


def _frozen(indices: set[int]) -> frozenset[int]:
    """Return a set that does not change; there is one of nothing."""
    return frozenset(indices) if indices else _NOBODY


def _note_starts(trace: Trace, started: set[int]) -> None:
    """Follow which items have started and not come to an end after which they may start again."""
    if trace.state == State.RUNNING:
        started.update(trace.indices)
    elif trace.state == State.READY:  # given back: it had not started after all
        started.difference_update(trace.indices)
    elif trace.state is None:
        for index, state in zip(trace.indices, trace.states, strict=True):
            if state in (State.COMPLETED, State.SKIPPED, State.CRASHED):
                started.add(index)
            else:  # failed, cancelled: its policy, or a person who resumes, lets it run again
                started.discard(index)
