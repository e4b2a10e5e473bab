"""The state itself, and the one way to change it: `Ledger.move`, which knows the transition table."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence

from .commands import Command
from .journal import Counted, Moved, Roots
from .records import Flight, Node
from .states import TABLE, TERMINAL, Cause, State
from .story import Story

_TARGET = {cause: target for cause, (_, target) in TABLE.items()}
_ALLOWED = {cause: bytes(sorted(sources)) for cause, (sources, _) in TABLE.items()}

# The ends of attempts are journalled as columns by settling.py, these moves with them.
_TOLD_BY_ATTEMPTS = frozenset(
    {
        Cause.COMPLETED,
        Cause.SKIPPED,
        Cause.FAILED,
        Cause.WILL_RETRY,
        Cause.LOST,
        Cause.LOST_ON_THE_WAY,
    }
)
# Derived from what is journalled: written down by what follows.
_NOT_TOLD = frozenset({Cause.UPSTREAM_DONE, Cause.TIMER})
_SILENT = _TOLD_BY_ATTEMPTS | _NOT_TOLD


class Ledger:
    """Nodes, flights, and what a turn has brought about."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.flights: dict[int, Flight] = {}  # all of the run, the ended ones too: results are named by batch
        self.live: dict[int, Flight] = {}  # those that have not ended
        self.now = 0.0
        self.out: list[Command] = []
        self.ended: deque[tuple[Node, Sequence[int]]] = deque()  # terminal, downstream not yet told
        self.dirty: set[int] = set()
        self.story = Story()

    def emit(self, command: Command) -> None:
        self.out.append(command)

    def move(
        self,
        node: Node,
        indices: Sequence[int],
        cause: Cause,
        reason: str = "",
        *,
        worker: str = "",
        roots: Roots | None = None,
        told: bool = False,
    ) -> None:
        """Move items along the table.

        Args:
            worker: that runs them, where they have started.
            roots: whose failure it was, where they will never run.
            told: another journal entry says it.

        Raises:
            IllegalTransition: one of them is in a state in which this cannot happen. Nothing was moved.
        """
        if not len(indices):
            return
        target = _TARGET[cause]
        self._shift(node, indices, cause, target)
        self.story.add(self.now, node.node_id, indices, cause, reason)
        self.dirty.add(node.node_id)
        if not told and cause not in _SILENT:
            self.emit(Moved(node.node_id, indices, target, self.now, reason, "", worker, roots))
        if target in TERMINAL:
            if reason:
                node.facts.reasons.put(indices, reason, node.width)
            self.ended.append((node, indices))

    def counted(self) -> list[Counted]:
        """Return the counts of nodes that have changed since the last call."""
        entries = [Counted(i, tuple(self.nodes[i].counts), self.nodes[i].waited) for i in sorted(self.dirty)]
        self.dirty.clear()
        return entries

    def _shift(self, node: Node, indices: Sequence[int], cause: Cause, target: State) -> None:
        states, counts, allowed = node.states, node.counts, _ALLOWED[cause]
        n = len(indices)
        node.wait_until(self.now)
        if n == 1:
            index = indices[0]
            source = states[index]
            if source not in allowed:
                self._refuse(node, indices, cause, allowed)
            counts[source] -= 1
            states[index] = target
        elif isinstance(indices, range) and indices.step == 1:
            old = states[indices.start : indices.stop]
            if old.strip(allowed):
                self._refuse(node, indices, cause, allowed)
            for source in allowed:
                counts[source] -= old.count(source)
            states[indices.start : indices.stop] = bytes([target]) * n
        else:
            old = bytearray([states[i] for i in indices])
            if old.translate(None, allowed):
                self._refuse(node, indices, cause, allowed)
            for source in allowed:
                counts[source] -= old.count(source)
            for i in indices:
                states[i] = target
        counts[target] += n

    def _refuse(self, node: Node, indices: Sequence[int], cause: Cause, allowed: bytes) -> None:
        index = next(i for i in indices if node.states[i] not in allowed)
        raise IllegalTransition(
            f"{cause.name} happened to {node.spec.path}[{index}], which is {node.state(index).title}",
            self.story.of(node.node_id, index),
        )


class IllegalTransition(Exception):
    """The coordinator was about to break its own table: a defect. Carries the task run's story."""

    def __init__(self, message: str, story: Sequence[str]) -> None:
        super().__init__("\n  ".join([message, *story]))


def compact(indices: Sequence[int]) -> Sequence[int]:
    """Return ascending indices as a range where they are contiguous, else as an array."""
    if isinstance(indices, range):
        return indices
    if len(indices) and indices[-1] - indices[0] + 1 == len(indices):
        return range(indices[0], indices[-1] + 1)
    return array("i", indices)


def positions_in(states: bytearray, wanted: frozenset[State]) -> Sequence[int]:
    """Return which items are in one of the wanted states, compact."""
    mask = states.translate(_mask(wanted))
    n = mask.count(1)
    if n == len(mask):
        return range(n)
    if n == 0:
        return range(0)
    first = mask.find(1)
    last = mask.rfind(1)
    if last - first + 1 == n:
        return range(first, last + 1)
    return array("i", [i for i in range(first, last + 1) if mask[i]])


_masks: dict[frozenset[State], bytes] = {}


def _mask(wanted: frozenset[State]) -> bytes:
    found = _masks.get(wanted)
    if found is None:
        found = _masks[wanted] = bytes(value in wanted for value in range(256))
    return found
