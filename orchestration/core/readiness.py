"""When items may run: dependencies per item, fan-in, widths learned at run time.

Every edge is counted down as upstream items end; an item whose count reaches zero is judged once, by
`verdicts`. One rule keeps the counts right: edges are counted only while all ends have been told
(`spread` opens nodes when its queue of ends is empty), so no end is counted twice or missed.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import add

from .journal import WidthLearned
from .ledger import Ledger, compact, positions_in
from .records import Edge, Node, Reach, Recovered
from .releasing import Releasing
from .states import TERMINAL, Cause, State
from .verdicts import Verdicts, label

__all__ = ["Readiness", "label"]

_UNFINISHED = frozenset(State) - TERMINAL
_PENDING = frozenset({State.PENDING})
_WAITS = bytes(value in _UNFINISHED for value in range(256))
_TAINTS = bytes(value in TERMINAL and value != State.COMPLETED for value in range(256))
_NOT_COMPLETED = TERMINAL - {State.COMPLETED}


class Readiness:
    """Connects nodes and finds out which items may run."""

    def __init__(self, ledger: Ledger, releasing: Releasing) -> None:
        self.ledger = ledger
        self.releasing = releasing
        self.verdicts = Verdicts(ledger)
        self.on_end: Callable[[Node, Sequence[int]], None]  # hears of items that have ended
        self._opened: deque[Edge] = deque()  # edges by which their nodes may now be opened or counted

    # --- connecting -----------------------------------------------------------------------------

    def connect(self, node: Node) -> None:
        """Link a new node to its upstream nodes and open it if its width is known."""
        for dependency in node.spec.dependencies:
            up = self.ledger.nodes[dependency.node_id]
            edge = Edge(dependency, up, node)
            node.ins.append(edge)
            up.outs.append(edge)
            self.releasing.connected(edge)
            node.depth = max(node.depth, up.depth + (up.spec.kind == "map"))
            if edge.per_item:
                edge.blocks = not up.opened
            else:
                self._count_members(edge)
            node.blockers += edge.blocks
        if node.spec.width is not None:
            self._open(node, node.spec.width)
        else:
            self._try_open(node)

    def spread(self) -> None:
        """Tell downstream of all items that have ended, until nothing follows any more."""
        ended, opened = self.ledger.ended, self._opened
        while ended or opened:
            if ended:
                up, indices = ended.popleft()
                for edge in up.outs:
                    self._tell(edge, indices)
                self.releasing.told(up)
                self.on_end(up, indices)
            else:
                self._upstream_opened(opened.popleft())

    def close_unopened(self, node: Node) -> None:
        """Give a node whose width will never be known one item, which stands for the map."""
        self._stand_in(node, judge=False)

    def _count_members(self, edge: Edge) -> None:
        """Set up an edge that concerns all items of its node: it blocks until its members have ended."""
        up, dependency = edge.up, edge.dependency
        if dependency.reach is Reach.ALL:
            edge.blocks = up.unfinished > 0
        else:
            edge.members = range(1) if up.stand_in else _members(dependency.indices or ())
            edge.remaining = len(edge.members)
            if up.opened:
                edge.remaining -= sum(up.states[i] in TERMINAL for i in edge.members)
            edge.blocks = edge.remaining > 0
        if not edge.blocks:
            self._fulfilled(edge)

    def _fulfilled(self, edge: Edge) -> None:
        """All upstream items of an edge that concerns all items have ended: note how, and how many there are."""
        up, down = edge.up, edge.down
        if edge.dependency.reach is Reach.ALL:
            clean = up.counts[State.COMPLETED] == up.width
        else:
            clean = all(up.states[i] == State.COMPLETED for i in edge.members)
        if not clean:
            down.tainted_all = True
        if edge.dependency.reach is Reach.ELEMENTS and down.opened:
            length = up.known.lengths.get(edge.element) if clean else None
            if length != down.width and not down.unusable:
                down.unusable = self.verdicts.why_unusable(edge, down.width)

    # --- opening --------------------------------------------------------------------------------

    def _try_open(self, node: Node) -> None:
        """Open a node whose width follows from its upstream, once all that it is mapped over is known."""
        widths: list[int] = []
        bad: Edge | None = None
        for edge in node.ins:
            up = edge.up
            if edge.identity:
                if not up.opened:
                    return
                widths.append(up.width)
            elif edge.dependency.reach is Reach.ELEMENTS:
                if edge.remaining:
                    return
                length = up.known.lengths.get(edge.element)
                if up.states[edge.element] == State.COMPLETED and length is not None:
                    widths.append(length)
                else:
                    bad = edge
        if any(edge.identity and edge.up.stand_in for edge in node.ins):
            self._stand_in(node)
        elif bad is None and widths and all(width == widths[0] for width in widths):
            self._learn(node, widths[0])
        elif (bad is not None or widths) and not node.blockers:
            # There is nothing to map over. Whether that is a mistake is judged when all upstream has ended.
            if bad is not None:
                node.unusable = self.verdicts.why_unusable(bad, None)
            else:
                node.unusable = f"map() was given iterables of unequal lengths: {sorted(set(widths))}"
            self._stand_in(node)

    def _stand_in(self, node: Node, *, judge: bool = True) -> None:
        """Give a node one item that says why there is no map. It never runs."""
        node.stand_in = True
        if not node.unusable:
            above = next((edge.up.spec.task_name for edge in node.ins if edge.up.stand_in), "its upstream")
            node.unusable = f"map() has nothing to map over, because {above} has no items"
        for edge in node.ins:
            if edge.per_item and not (edge.identity and edge.up.stand_in):
                edge.dead = True
                node.blockers -= edge.blocks
                edge.blocks = False
        self._learn(node, 1, judge=judge)

    def _learn(self, node: Node, width: int, *, judge: bool = True) -> None:
        self.ledger.emit(WidthLearned(node.node_id, width))
        self._open(node, width, judge=judge)

    def _open(self, node: Node, width: int, *, judge: bool = True) -> None:
        node.open(width)
        self.ledger.dirty.add(node.node_id)
        self._recover(node)
        for edge in node.ins:
            if edge.per_item and not edge.dead:
                if edge.up.opened:
                    self._count_items(edge)
            elif edge.dependency.reach is Reach.ELEMENTS and not edge.blocks:
                self._fulfilled(edge)
        for edge in node.outs:
            if node.stand_in and edge.dependency.reach in (Reach.SOME, Reach.ELEMENTS):
                edge.members, edge.remaining = range(1), 1
        self._opened.extend(node.outs)
        if width == 0:
            self.ledger.ended.append((node, range(0)))
        elif judge:
            self._judge_free(node)

    def _upstream_opened(self, edge: Edge) -> None:
        down = edge.down
        if edge.per_item and edge.blocks:
            edge.blocks = False
            down.blockers -= 1
            if down.opened:
                if not edge.counted:
                    self._count_items(edge)
                self._judge_free(down)
        if not down.opened:
            self._try_open(down)

    def _recover(self, node: Node) -> None:
        """Take over what an earlier process of this run has left."""
        found = node.spec.recovered
        if found is None:
            return
        if found.width is not None and found.width != node.width:
            if found.started and not node.policy.rerun_on_loss:
                self.ledger.move(node, range(node.width), Cause.LOST_FOR_GOOD, _mixed_up(found, node.width))
            return
        for index, attempts in found.attempts.items():
            if index < node.width:
                node.attempts[index] = attempts
        done = compact(sorted(i for i in found.results if i < node.width))
        if len(done):
            node.facts.recovered = found.results
            for index in done:
                if index in found.lengths:
                    node.facts.lengths.put(index, found.lengths[index], node.width)
            self.ledger.move(node, done, Cause.RECOVERED, "its result was stored by an earlier process")
        if found.skipped:
            skipped = compact(sorted(i for i in found.skipped if i < node.width and i not in found.results))
            self.ledger.move(
                node, skipped, Cause.SKIPPED_BEFORE, "it asked to be skipped in an earlier process"
            )
        if found.started and not node.policy.rerun_on_loss:
            kept = found.results.keys() | found.skipped
            lost = sorted(i for i in found.started if i < node.width and i not in kept)
            why = "an earlier process of this run started it and left no result of use, and it must not run twice"
            self.ledger.move(node, compact(lost), Cause.LOST_FOR_GOOD, why)

    # --- counting -------------------------------------------------------------------------------

    def _count_items(self, edge: Edge) -> None:
        """Set up a per-item edge: each item waits for those of its upstream items that have not ended."""
        up, down = edge.up, edge.down
        if edge.identity and up.width != down.width and not up.stand_in:
            edge.dead = True
            down.unusable = (
                f"map() was given iterables of unequal lengths: {up.spec.task_name} has {up.width} items, "
                f"{down.spec.task_name} {down.width}"
            )
            return
        edge.counted = True
        first = down.waits is None
        if down.waits is None:
            down.waits = array("I", bytes(4 * down.width))
        if edge.identity and not up.stand_in:
            flags = up.states.translate(_WAITS)
            if 1 in flags:
                down.waits = array("I", list(flags) if first else map(add, down.waits, flags))
            self._taint(down, 0, up.states)
            return
        reverse: dict[int, list[int]] = {}
        edge.reverse = reverse
        for item, uppers in _items_of(edge, down.width):
            for index in uppers:
                if up.states[index] in _UNFINISHED:
                    reverse.setdefault(index, []).append(item)
                    down.waits[item] += 1
                elif up.states[index] != State.COMPLETED:
                    self._taint_one(down, item)

    def _taint(self, down: Node, start: int, upstream: bytes | bytearray) -> None:
        """Note which items from `start` on have an upstream item that did not simply complete."""
        taints = upstream.translate(_TAINTS)
        if 1 not in taints:
            return
        if down.tainted is None:
            down.tainted = bytearray(down.width)
        old = down.tainted[start : start + len(taints)]
        down.tainted[start : start + len(taints)] = bytes(map(max, old, taints)) if any(old) else taints

    def _taint_one(self, down: Node, item: int) -> None:
        if down.tainted is None:
            down.tainted = bytearray(down.width)
        down.tainted[item] = 1

    # --- counting down --------------------------------------------------------------------------

    def _tell(self, edge: Edge, indices: Sequence[int]) -> None:
        """Upstream items of an edge have ended."""
        if edge.per_item:
            if edge.counted and not edge.dead:
                self._tell_items(edge, indices)
            return
        if not edge.blocks:
            return
        if edge.dependency.reach is Reach.ALL:
            if edge.up.unfinished:
                return
        else:
            edge.remaining -= _common(edge.members, indices)
            if edge.remaining:
                return
        edge.blocks = False
        edge.down.blockers -= 1
        self._fulfilled(edge)
        if edge.down.opened:
            self._judge_free(edge.down)
        else:
            self._opened.append(edge)

    def _tell_items(self, edge: Edge, indices: Sequence[int]) -> None:
        up, down = edge.up, edge.down
        waits = down.waits
        assert waits is not None
        if edge.reverse is None and isinstance(indices, range) and len(indices) > 1:
            part = waits[indices.start : indices.stop]
            if part.count(part[0]) == len(part):  # almost always
                waits[indices.start : indices.stop] = array("I", [part[0] - 1]) * len(part)
                self._taint(down, indices.start, up.states[indices.start : indices.stop])
                if part[0] == 1 and not down.blockers:
                    self._judge_pending(down, indices)
                return
        free: list[int] = []
        for index in indices:
            clean = up.states[index] == State.COMPLETED
            for item in (index,) if edge.reverse is None else edge.reverse.get(index, ()):
                waits[item] -= 1
                if not clean:
                    self._taint_one(down, item)
                if waits[item] == 0 and down.states[item] == State.PENDING:
                    free.append(item)
        if free and not down.blockers:
            self.verdicts.judge(down, compact(sorted(set(free))))

    def _judge_free(self, node: Node) -> None:
        """Judge all items that wait for nothing, after what held back all of them has ended."""
        if node.blockers:
            return
        pending = positions_in(node.states, _PENDING)
        waits = node.waits
        if waits is not None and any(waits):
            if 0 not in waits:
                return
            pending = compact([i for i in pending if not waits[i]])
        self.verdicts.judge(node, pending)

    def _judge_pending(self, node: Node, indices: range) -> None:
        part = positions_in(node.states[indices.start : indices.stop], _PENDING)
        if isinstance(part, range):
            self.verdicts.judge(node, range(indices.start + part.start, indices.start + part.stop))
        else:
            self.verdicts.judge(node, array("i", [indices.start + i for i in part]))


def _mixed_up(found: Recovered, width: int) -> str:
    """Say why no item of a map may start: each may be one that an earlier process has started."""
    return (
        f"an earlier process of this run started {len(found.started)} of the {found.width} items that this map had; "
        f"it has {width} now, so which of them these are cannot be told, and none must run twice "
        "(rerun_on_loss=False). Resume with the items of then, or start a new run with what is still to be done"
    )


def _members(indices: Sequence[int]) -> range | frozenset[int]:
    """Return items as a set that takes no room where they are contiguous."""
    if isinstance(indices, range) and indices.step == 1:
        return indices
    members = frozenset(indices)
    if members and max(members) - min(members) + 1 == len(members):
        return range(min(members), max(members) + 1)
    return members


def _common(members: range | frozenset[int], indices: Sequence[int]) -> int:
    """Return how many of the members are among the indices, by looking at the smaller of the two."""
    if isinstance(indices, range) and indices.step == 1:
        if isinstance(members, range):
            return max(0, min(members.stop, indices.stop) - max(members.start, indices.start))
        if len(members) < len(indices):
            return sum(member in indices for member in members)
    return sum(index in members for index in indices)


def _items_of(edge: Edge, width: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield each item of a per-item edge with its upstream items."""
    if edge.dependency.reach is Reach.PICKED:
        items: Sequence[int] = sorted(i for i in edge.dependency.picks or () if i < width)
    else:
        items = range(width)
    for item in items:
        yield item, edge.uppers(item)
