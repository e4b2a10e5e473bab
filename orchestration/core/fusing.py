"""Which nodes ride along in a batch: a map over a map runs item by item, depth first, where that costs nothing.

Fused are nodes whose items are known to be short, because only there an engine's submission costs more than the
item, and because what runs in one batch ends, is cancelled and is lost together. Longer ones are fused along a chain
of single items without branches: there each would wait for a round trip, and no slot could begin it sooner. A batch
keeps to the limits, the place and the priority of its first node, so all of its nodes have the same ones. Items that
are under suspicion, have a timeout or must not run twice are not fused: nothing else may be hurt by how they end. What
builds upon results in storage waits until they are there.

An item that rides is Submitted though its upstream has not ended. If it comes back unstarted it waits for its
upstream again, as if it had never left, and is judged by the ordinary rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .batching import PREFETCH_SECONDS, SHORT_SECONDS
from .records import MAIN, Edge, Node, Reach
from .states import State
from .triggers import all_successful

MAX_STAGES = 16  # a longer chain goes in several batches, so that a lost one costs little

Names = tuple[str, ...]


def chain(node: Node, limits_of: Callable[[Node], Names]) -> list[Edge]:
    """Return the edges to the nodes that may ride in batches of a node, in order.

    Whether their items may is another question, see `riders`.
    """
    found: list[Edge] = []
    if not node.outs or node.policy.batch == 1 or not _leads(node):
        return found
    names = limits_of(node)
    last = node
    while len(found) < MAX_STAGES - 1 and not last.spec.persists:
        edge = next((edge for edge in last.outs if _follows(node, edge)), None)
        if edge is None or limits_of(edge.down) != names:
            break
        last = edge.down
        found.append(edge)
    return found


def _ready_to_ride(edge: Edge, indices: Sequence[int]) -> bool:
    """Whether all of these items wait for nothing but the same items upstream."""
    node = edge.down
    waits, tainted = node.waits, node.tainted
    due = 1 if edge.identity else 0  # a single item waits by way of `blockers`
    if isinstance(indices, range):
        part = slice(indices.start, indices.stop)
        n = len(indices)
        return (
            node.states[part].count(State.PENDING) == n
            and (waits[part].count(due) == n if waits is not None else not due)
            and (tainted is None or 1 not in tainted[part])
            and not _has_history(node, indices)
        )
    return all(
        node.states[i] == State.PENDING
        and (waits[i] if waits is not None else 0) == due
        and not (tainted is not None and tainted[i])
        for i in indices
    ) and not _has_history(node, indices)


def riders(node: Node, indices: Sequence[int], edges: Sequence[Edge]) -> Iterator[Node]:
    """Yield the nodes along `edges` that may ride with these items of a node, in order."""
    if edges and not _has_history(node, indices):
        for edge in edges:
            if not _ready_to_ride(edge, indices):
                return
            yield edge.down


def seconds(node: Node, edges: Sequence[Edge]) -> float:
    """Return how long one item takes in a node and those that ride with it."""
    return sum((edge.down.sizer.mean or 0.0 for edge in edges), node.sizer.mean or 0.0)


def size_of(node: Node, edges: Sequence[Edge]) -> float:
    """Return how many bytes one item moves in a node and those that ride with it."""
    return sum((edge.down.sizer.bytes_each for edge in edges), node.sizer.bytes_each)


def short(node: Node) -> bool:
    """Whether the items of a node's task are known to take so little that they gain from sharing batches."""
    mean = node.sizer.mean
    return mean is not None and mean < SHORT_SECONDS


def _leads(node: Node) -> bool:
    policy = node.policy
    return (
        (short(node) or _single(node))
        and node.spec.runner == MAIN
        and policy.rerun_on_loss
        and policy.timeout_seconds is None
    )


def _single(node: Node) -> bool:
    """Whether a node is one item, of a task whose round trips are worth hiding."""
    mean = node.sizer.mean
    return node.opened and node.width == 1 and mean is not None and mean < PREFETCH_SECONDS


def _follows(first: Node, edge: Edge) -> bool:
    """Whether an edge leads to a node that may share batches with `first`."""
    down = edge.down
    return (
        down.opened
        and _leads(down)
        and down.width == edge.up.width
        and _links(edge)
        and ((short(edge.up) and short(down)) or _unbranched(edge))
        and down.policy.trigger is all_successful
        and down.policy.priority == first.policy.priority
        and down.policy.batch in (None, first.policy.batch)
        and down.spec.placement == first.spec.placement
        and not (down.tainted_all or down.unusable or down.stand_in)
    )


def _unbranched(edge: Edge) -> bool:
    """Whether the two nodes of an edge have nobody else to wait for, or to wait for them."""
    return len(edge.up.outs) == 1 and len(edge.down.ins) == 1


def _links(edge: Edge) -> bool:
    """Whether item i waits for item i along this edge, and nothing else holds back the whole node."""
    if edge.identity:
        return edge.counted and not edge.dead and not edge.down.blockers
    return (
        edge.dependency.reach is Reach.SOME and edge.blocks and edge.up.width == 1 and edge.down.blockers == 1
    )


def _has_history(node: Node, indices: Sequence[int]) -> bool:
    """Whether one of these items has failed or been lost before."""
    spent = node.known.spent
    if not spent:
        return False
    if isinstance(indices, range) and len(spent) < len(indices):
        return any(index in indices for index in spent)
    return any(index in spent for index in indices)
