"""Whose results nobody will ask for any more: the engine may forget them while the run goes on.

A node's results are needed as long as user code has a future of it, or a node that takes them has not ended. The
results of a fused batch go when those of all its nodes may.
"""

from __future__ import annotations

from .commands import ReleaseBatches
from .ledger import Ledger
from .records import MAIN, Edge, Node


class Releasing:
    """Counts who may still need a node's results."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def connected(self, edge: Edge) -> None:
        """A node has been added that takes results of another one."""
        edge.up.takers += 1

    def dropped(self, node: Node) -> None:
        """User code has no future of a node any more."""
        node.dropped = True
        self._release(node)

    def told(self, node: Node) -> None:
        """Some items of a node have ended; with the last of them it needs its upstream no longer."""
        if node.closed or node.unfinished:
            return
        node.closed = True
        for edge in node.ins:
            edge.up.takers -= 1
            self._release(edge.up)
        self._release(node)

    def _release(self, node: Node) -> None:
        if node.takers or not (node.dropped and node.closed) or node.released:
            return
        node.released = True
        gone: list[int] = []
        for batch_id in sorted(set(node.batches)):
            if batch_id < 0:
                continue
            flight = self.ledger.flights[batch_id]
            flight.keepers -= 1
            if not flight.keepers and flight.runner == MAIN:
                gone.append(batch_id)
        if gone:
            self.ledger.emit(ReleaseBatches(tuple(gone)))
