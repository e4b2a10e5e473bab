"""Whose turn it is among nodes that have something ready.

First comes what the user has given priority; then task runs that read much, for then it can go; then what lies below
more maps, so that what has been begun of them is finished. Among the others the longest way goes first: the seconds
from the start of an item to the end of the graph, as far as it has been submitted, reckoned with what items of each
task take. It decides when the last of them ends, for what is begun late ends late. Of equal ways goes first what more
nodes wait for, and then, as in a loop of submits of one task, what was submitted first.
"""

from __future__ import annotations

from . import pooling
from .records import Node

STEP_SECONDS = 0.01  # from the end of one task run to the start of the next, by way of the flow
UNKNOWN_SECONDS = 0.1  # of an item of a task that has not been measured

Turn = tuple[int, bool, int, float, int, int]


class Turns:
    """Knows how far it is from each node to the end.

    Adding a node makes all ways longer that lead to it. To walk up from each would take a chain of n nodes n * n steps,
    so all ways are reckoned at once, whenever as much has come or gone as there is: that is a few steps per node,
    whatever their number.
    """

    def __init__(self) -> None:
        self.slots = 0
        self._links: list[Node] = []  # those that others wait for, and that have not ended
        self._edges = 0  # below those
        self._changes = 0  # nodes and edges that came or went since the ways were reckoned
        self._seconds: dict[str, float] = {}  # by task; the same for all until the ways are reckoned anew

    def added(self, node: Node) -> None:
        """A node was linked to those that it waits for."""
        self._edges += len(node.ins)
        self._changes += 1 + len(node.ins)
        for edge in node.ins:
            if edge.up.outs[0] is edge:
                self._links.append(edge.up)

    def left(self, node: Node) -> None:
        """A batch with items of a node has ended: with the only one, those that wait for it wait no longer."""
        if node.width == 1:
            self._changes += 1 + len(node.outs)

    def reckon(self, waiting: int) -> bool:
        """Reckon all ways anew, if enough has changed; tell whether turns have changed, too.

        Args:
            waiting: how many nodes wait for their turn.
        """
        if self.slots < 2 or self._changes < self._edges + waiting:
            return False
        self._seconds.clear()
        self._links = sorted((node for node in self._links if not node.closed), key=lambda node: node.node_id)
        self._edges, self._changes = sum([len(node.outs) for node in self._links]), 0
        for node in reversed(self._links):  # what it waits for was submitted before it
            node.below = max([self._way(edge.down) for edge in node.outs])
        return True

    def of(self, node: Node) -> Turn:
        """Return what decides whose turn it is; the least is first. Where one slot takes all, no order is quicker."""
        lets_go = node.spec.kind != "map" and pooling.reads_much(node)
        way, readers = (self._way(node), len(node.outs)) if self.slots > 1 else (0.0, 0)
        return -node.policy.priority, not lets_go, -node.depth, -way, -readers, node.node_id

    def _way(self, node: Node) -> float:
        name = node.spec.task_name
        seconds = self._seconds.get(name)
        if seconds is None:
            mean = node.sizer.mean
            seconds = self._seconds[name] = STEP_SECONDS + (UNKNOWN_SECONDS if mean is None else mean)
        return seconds + node.below
