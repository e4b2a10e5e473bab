"""Whose results nobody will ask for any more: the engine may forget them while the run goes on.

A node's results are needed as long as user code has a future of it, or a node that takes them has not ended. The
results of a fused batch go when those of all its nodes may.

A result that is lost may be made again, and for that the results that went into it, and so on upwards. So a node is
retired, and what its items are called with is forgotten, only when no node below it can need that any more. Until
then results that could not be made again (`rerun_on_loss=False`) are not released.
"""

from __future__ import annotations

from .commands import ForgetNodes, ReleaseBatches
from .ledger import Ledger
from .records import MAIN, Edge, Node


class Releasing:
    """Counts who may still need a node's results: takers that have not ended, heirs that are not retired."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def connected(self, edge: Edge) -> None:
        """A node has been added that takes results of another one."""
        edge.up.takers += 1
        edge.up.heirs += 1

    def dropped(self, node: Node) -> None:
        """User code has no future of a node any more."""
        node.dropped = True
        self._release(node)
        self._retire(node)

    def told(self, node: Node) -> None:
        """Some items of a node have ended; with the last of them it needs its upstream no longer."""
        if node.closed or node.unfinished:
            return
        node.closed = True
        for edge in node.ins:
            edge.up.takers -= 1
            self._release(edge.up)
        self._release(node)
        self._retire(node)

    def again(self, node: Node) -> None:
        """Results of a node that had been released have been made again, and served their purpose."""
        node.released = False
        self._release(node)

    def _release(self, node: Node) -> None:
        needed = node.takers if node.policy.rerun_on_loss else node.heirs
        if needed or not (node.dropped and node.closed) or node.released:
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
        node.forget_places()
        if gone:
            self.ledger.emit(ReleaseBatches(tuple(gone)))

    def _retire(self, node: Node) -> None:
        """Retire a node if nothing can need it again, and then whatever was kept for its sake."""
        retired: list[int] = []
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if node.heirs or not (node.dropped and node.closed) or node.retired:
                continue
            node.retired = True
            retired.append(node.node_id)
            for edge in node.ins:
                edge.up.heirs -= 1
                self._release(edge.up)
                waiting.append(edge.up)
        if retired:
            self.ledger.emit(ForgetNodes(tuple(retired)))
