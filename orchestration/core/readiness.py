"""When items may run: dependencies per item, fan-in, widths learned at run time, triggers and skips.

Every edge is counted down as upstream items end; an item whose count reaches zero is judged once. Items
with nothing but completed upstreams (almost all) are judged in bulk; only the others are looked at singly.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

from runners.messages import Detail

from .journal import WidthLearned
from .ledger import Ledger, compact
from .records import Dependency, Edge, Node, Reach
from .states import TERMINAL, Cause, State
from .triggers import FAILURE, Tally, all_successful


class Readiness:
    """Connects nodes and finds out which items may run."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.newly_ready: list[tuple[Node, Sequence[int]]] = []

    # --- connecting -----------------------------------------------------------------------------

    def connect(self, node: Node) -> None:
        """Link a new node to its upstream nodes and open it if its width is known."""
        for dependency in node.spec.dependencies:
            up = self.ledger.nodes[dependency.node_id]
            edge = Edge(dependency, up, node)
            node.ins.append(edge)
            up.outs.append(edge)
            node.depth = max(node.depth, up.depth + 1)
            if not edge.per_item:
                self._count(edge)
        if node.spec.width is not None:
            self._open(node, node.spec.width)
        else:
            self._try_open(node)

    def spread(self) -> None:
        """Tell downstream of all items that have ended, until nothing follows any more."""
        ended = self.ledger.ended
        while ended:
            up, indices = ended.popleft()
            for edge in up.outs:
                self._tell(edge, indices)

    def _count(self, edge: Edge) -> None:
        """Set up an edge that concerns all items of its node: it blocks until its members have ended."""
        up, dependency = edge.up, edge.dependency
        if dependency.reach is Reach.ALL:
            blocked = up.unfinished > 0
        else:
            edge.members = frozenset(dependency.indices or ())
            done = [i for i in edge.members if up.opened and up.states[i] in TERMINAL]
            edge.remaining = len(edge.members) - len(done)
            blocked = edge.remaining > 0
        if blocked:
            edge.down.blockers += 1
        self._taint_all(edge)

    def _taint_all(self, edge: Edge) -> None:
        """Note whether an upstream of all items ended in another way than Completed, as far as known."""
        up, done = edge.up, State.COMPLETED
        if edge.dependency.reach is Reach.ALL:
            clean = up.counts[done] == up.width
        else:
            clean = all(up.opened and up.states[i] == done for i in edge.members)
        if not clean and self._over(edge):
            edge.down.tainted_all = True

    def _over(self, edge: Edge) -> bool:
        if edge.dependency.reach is Reach.ALL:
            return edge.up.unfinished == 0
        return edge.remaining == 0

    def close_unopened(self, node: Node) -> None:
        """Give a node whose width will never be known one item, which stands for the map."""
        self._learn(node, 1, judge=False)

    # --- opening --------------------------------------------------------------------------------

    def _try_open(self, node: Node) -> None:
        """Open a node whose width follows from its upstream, if that is known by now."""
        for edge in node.ins:
            dependency, up = edge.dependency, edge.up
            if dependency.reach is Reach.ALIGNED and dependency.indices is None and up.opened:
                self._learn(node, up.width)
                return
            if dependency.reach is Reach.ELEMENTS and edge.remaining == 0:
                self._open_over_list(node, edge)
                return

    def _open_over_list(self, node: Node, edge: Edge) -> None:
        up, index = edge.up, next(iter(edge.members))
        if up.states[index] == State.COMPLETED and index in up.lengths:
            self._learn(node, up.lengths[index])
            return
        # There is nothing to map over: one item stands for the map and tells why.
        if node.blockers:
            return  # the others may still say otherwise: judged when they have ended
        self._learn(node, 1, judge=False)
        if up.states[index] == State.COMPLETED:
            self._unusable(node, up, index)
        else:
            self._judge_singly(node, (0,), hold_means_unusable=(up, index))

    def _learn(self, node: Node, width: int, *, judge: bool = True) -> None:
        self.ledger.emit(WidthLearned(node.node_id, width))
        self._open(node, width, judge=judge)

    def _open(self, node: Node, width: int, *, judge: bool = True) -> None:
        node.open(width)
        self.ledger.dirty.add(node.node_id)
        recovered = self._recover(node)
        per_item = [edge for edge in node.ins if edge.per_item]
        if per_item:
            node.waits = array("I", bytes(4 * width))
            for edge in per_item:
                self._count_items(edge, node.waits)
        for edge in node.outs:  # whoever maps over this node
            if not edge.down.opened:
                self._try_open(edge.down)
        if width == 0:
            self.ledger.ended.append((node, range(0)))
        elif judge and not node.blockers:
            waits = node.waits
            if waits is None and not recovered:
                self._judge(node, range(width))
            else:
                free = [
                    i
                    for i in range(width)
                    if (waits is None or waits[i] == 0) and node.states[i] == State.PENDING
                ]
                self._judge(node, compact(free))

    def _recover(self, node: Node) -> bool:
        """Take over what an earlier process of this run has stored."""
        found = node.spec.recovered
        if found is None:
            return False
        for index, attempts in found.attempts.items():
            if index < node.width:
                node.attempts[index] = attempts
        done = sorted(i for i in found.results if i < node.width)
        for index in done:
            node.stored[index] = found.results[index]
        self.ledger.move(node, compact(done), Cause.RECOVERED, "its result was stored by an earlier process")
        return bool(done)

    def _count_items(self, edge: Edge, waits: array[int]) -> None:
        """Set up a per-item edge: each item waits for those of its upstream items that have not ended."""
        up, down = edge.up, edge.down
        reverse: dict[int, list[int]] = {}
        identity = edge.dependency.reach is Reach.ALIGNED and edge.dependency.indices is None
        untold = {i for node, indices in self.ledger.ended if node is up for i in indices}
        for item, uppers in _upstream_of_items(edge.dependency, down.width):
            for index in uppers:
                if not identity:
                    reverse.setdefault(index, []).append(item)
                state = up.states[index] if up.opened else State.PENDING
                if state not in TERMINAL or index in untold:  # this edge will hear of it
                    waits[item] += 1
                elif state != State.COMPLETED:
                    down.tainted.add(item)
        edge.reverse = None if identity else reverse

    # --- counting down --------------------------------------------------------------------------

    def _tell(self, edge: Edge, indices: Sequence[int]) -> None:
        """Upstream items of an edge have ended."""
        if edge.per_item:
            if edge.down.opened:
                self._tell_items(edge, indices)
            return
        down = edge.down
        if edge.dependency.reach is Reach.ALL:
            if edge.up.unfinished or edge.remaining < 0:
                return
            edge.remaining = -1  # told once, even if an empty range follows
        else:
            hits = (
                sum(1 for i in edge.members if i in indices)
                if isinstance(indices, range)
                else len(edge.members.intersection(indices))
            )
            if not hits:
                return
            edge.remaining -= hits
            if edge.remaining:
                return
        self._taint_all(edge)
        down.blockers -= 1
        if not down.opened:
            self._try_open(down)
        elif not down.blockers:
            waits = down.waits
            pending = (i for i in range(down.width) if down.states[i] == State.PENDING)
            free = [i for i in pending if waits is None or waits[i] == 0]
            self._judge(down, compact(free))

    def _tell_items(self, edge: Edge, indices: Sequence[int]) -> None:
        up, down, waits = edge.up, edge.down, edge.down.waits
        assert waits is not None
        completed, free = State.COMPLETED, []
        for index in indices:
            clean = up.states[index] == completed
            for item in (index,) if edge.reverse is None else edge.reverse.get(index, ()):
                waits[item] -= 1
                if not clean:
                    down.tainted.add(item)
                if waits[item] == 0 and down.states[item] == State.PENDING:
                    free.append(item)
        if free and not down.blockers:
            self._judge(down, compact(sorted(free)))

    # --- judging --------------------------------------------------------------------------------

    def _judge(self, node: Node, indices: Sequence[int]) -> None:
        """All upstream of these items has ended: decide what becomes of them."""
        if not len(indices):
            return
        plain = node.policy.trigger is all_successful or not node.ins
        if plain and not node.tainted_all:
            if not node.tainted:
                self._may_run(node, indices)
                return
            clean = [i for i in indices if i not in node.tainted]
            self._may_run(node, compact(clean))
            indices = [i for i in indices if i in node.tainted]
        self._judge_singly(node, indices)

    def _judge_singly(
        self, node: Node, indices: Sequence[int], hold_means_unusable: tuple[Node, int] | None = None
    ) -> None:
        shared = [edge for edge in node.ins if not edge.per_item]
        base, base_root = self._tally(shared, None)
        own = [edge for edge in node.ins if edge.per_item]
        run: list[int] = []
        for index in indices:
            tally, root = base, base_root
            if own:
                tally, root = self._tally(own, index, base, base_root)
            if tally.skipped and node.policy.skip_on_upstream_skip:
                self.ledger.move(node, (index,), Cause.UPSTREAM_SKIPPED, "an upstream task run was skipped")
            elif not self._holds(node, tally):
                self._never_runs(node, index, root)
            elif hold_means_unusable is not None:
                self._unusable(node, *hold_means_unusable)
            else:
                run.append(index)
        self._may_run(node, compact(run))

    def _tally(
        self,
        edges: Iterable[Edge],
        item: int | None,
        base: Tally | None = None,
        root: tuple[Node, int] | None = None,
    ) -> tuple[Tally, tuple[Node, int] | None]:
        """Count upstream states over edges; also return the first upstream item that failed."""
        tally = Tally(base.counts if base is not None else None)
        for edge in edges:
            up = edge.up
            if edge.dependency.reach is Reach.ALL:
                members: Iterable[int] = range(up.width)
            elif item is None:
                members = edge.members
            else:
                members = _upstream_of(edge.dependency, item)
            for index in members:
                state = up.state(index)
                if state in FAILURE:
                    if edge.dependency.tolerant:
                        state = State.COMPLETED
                    elif root is None:
                        root = (up, index)
                tally.add(state)
        return tally, root

    def _holds(self, node: Node, tally: Tally) -> bool:
        if tally.total == 0:
            return True
        return bool(node.policy.trigger.holds(tally))

    def _never_runs(self, node: Node, index: int, root: tuple[Node, int] | None) -> None:
        reason = f"its trigger {node.policy.trigger.name} does not hold"
        if root is not None:
            up, up_index = root
            origin = up.roots.get(up_index, (up.node_id, up_index))
            node.roots[index] = origin
            first = self.ledger.nodes[origin[0]]
            state = first.names.get(origin[1]) or first.state(origin[1]).title
            reason = f"{label(first, origin[1])} ended {state}"
        self.ledger.move(node, (index,), Cause.UPSTREAM_FAILED, reason)

    def _unusable(self, node: Node, up: Node, index: int) -> None:
        reason = (
            f"map() was given the result of {label(up, index)}, which is no list or tuple. "
            "Return a list from it, or use submit()."
        )
        node.details[0] = Detail(type_name="orchestration.errors.MappingError", message=reason)
        self.ledger.move(node, (0,), Cause.UPSTREAM_UNUSABLE, reason)

    def _may_run(self, node: Node, indices: Sequence[int]) -> None:
        if len(indices):
            self.ledger.move(node, indices, Cause.UPSTREAM_DONE)
            self.newly_ready.append((node, indices))


def label(node: Node, index: int) -> str:
    """Name an item for people."""
    return node.run_names.get(index) or (
        node.spec.task_name if node.spec.kind != "map" else f"{node.spec.task_name}[{index}]"
    )


def _upstream_of(dependency: Dependency, item: int) -> Sequence[int]:
    """Return the upstream items of one item along a per-item dependency."""
    if dependency.reach is Reach.PICKED:
        return (dependency.picks or {}).get(item, ())
    return (item,) if dependency.indices is None else (dependency.indices[item],)


def _upstream_of_items(dependency: Dependency, width: int) -> Iterator[tuple[int, Sequence[int]]]:
    if dependency.reach is Reach.PICKED:
        yield from (dependency.picks or {}).items()
    else:
        for item in range(width):
            yield item, _upstream_of(dependency, item)
