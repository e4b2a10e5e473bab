"""The state itself, and the one way to change it: `Ledger.move`, which knows the transition table."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence

from .commands import Command
from .journal import Counted, Moved
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
        Cause.LOST_FOR_GOOD,
    }
)
# Derived from what is journalled: written down by what follows.
_NOT_TOLD = frozenset({Cause.UPSTREAM_DONE, Cause.TIMER})


class Ledger:
    """Nodes, flights, and what a turn has brought about."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.flights: dict[int, Flight] = {}  # all of the run, the ended ones too: results are named by batch
        self.now = 0.0
        self.out: list[Command] = []
        self.ended: deque[tuple[Node, Sequence[int]]] = deque()  # terminal, downstream not yet told
        self.dirty: set[int] = set()
        self.story = Story()

    def emit(self, command: Command) -> None:
        self.out.append(command)

    def move(
        self, node: Node, indices: Sequence[int], cause: Cause, reason: str = "", name: str = ""
    ) -> None:
        """Move items along the table.

        Raises:
            IllegalTransition: one of them is in a state in which this cannot happen.
        """
        n = len(indices)
        if n == 0:
            return
        target = _TARGET[cause]
        self._shift(node, indices, cause, target)
        self.story.add(self.now, node.node_id, indices, cause, reason)
        self.dirty.add(node.node_id)
        if reason and target in TERMINAL:
            for index in indices:
                node.reasons[index] = reason
        if name:
            for index in indices:
                node.names[index] = name
        if cause not in _TOLD_BY_ATTEMPTS and cause not in _NOT_TOLD:
            self.emit(Moved(node.node_id, indices, target, self.now, reason, name))
        if target in TERMINAL:
            self.ended.append((node, indices))

    def counted(self) -> list[Counted]:
        """Return the counts of nodes that have changed since the last call."""
        entries = [Counted(i, tuple(self.nodes[i].counts)) for i in sorted(self.dirty)]
        self.dirty.clear()
        return entries

    def _shift(self, node: Node, indices: Sequence[int], cause: Cause, target: State) -> None:
        states, counts, allowed = node.states, node.counts, _ALLOWED[cause]
        n = len(indices)
        if isinstance(indices, range) and indices.step == 1:
            old = states[indices.start : indices.stop]
            if old.strip(allowed):
                self._refuse(node, indices, cause, allowed)
            for source in allowed:
                counts[source] -= old.count(source)
            states[indices.start : indices.stop] = bytes([target]) * n
        else:
            if any(states[i] not in allowed for i in indices):
                self._refuse(node, indices, cause, allowed)
            for i in indices:
                counts[states[i]] -= 1
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


def compact(indices: list[int]) -> Sequence[int]:
    """Return ascending indices as a range where they are contiguous, else as an array."""
    if indices and indices[-1] - indices[0] + 1 == len(indices):
        return range(indices[0], indices[-1] + 1)
    return array("i", indices)
