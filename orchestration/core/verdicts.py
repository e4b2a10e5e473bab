"""What becomes of items whose upstream has ended: triggers, skips, and whose failure it was.

Items with nothing but completed upstreams (almost all) are judged in bulk, and so are those of a node
that has no upstream per item; only the others are looked at singly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runners.messages import Detail

from .journal import Roots
from .ledger import Ledger, compact
from .records import Edge, Node, Reach
from .retry import in_words
from .states import Cause, State
from .triggers import FAILURE, Tally, all_successful

MANY = 32  # with more items judged at once, the journal names the upstream task, not each upstream task run

Root = tuple[Node, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an item. With UPSTREAM_DONE it may run."""

    cause: Cause
    reason: str = ""


_RUN = Verdict(Cause.UPSTREAM_DONE)
_SKIP = Verdict(Cause.UPSTREAM_SKIPPED, "an upstream task run was skipped")


class Verdicts:
    """Judges items, each once."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.newly_ready: list[tuple[Node, Sequence[int]]] = []

    def judge(self, node: Node, indices: Sequence[int]) -> None:
        """All upstream of these items has ended: decide what becomes of them."""
        if not len(indices):
            return
        if not node.tainted_all:
            clean, indices = _part(node, indices)
            if node.policy.trigger is all_successful or not node.ins:
                self._may_run(node, clean)
            elif len(clean):
                self._judge_clean(node, clean)
        if len(indices):
            if any(edge.per_item and not edge.dead for edge in node.ins):
                self._judge_singly(node, indices)
            else:
                tally, root = self._base(node)
                verdict = self._verdict(node, tally, root, many=False)
                roots = None
                if root is not None and verdict.cause is Cause.UPSTREAM_FAILED:
                    origin = _origin(root)
                    node.facts.roots.put(indices, origin, node.width)
                    roots = self._roots(origin[0], origin[1:])
                self._follow(node, indices, verdict, roots)

    def why_unusable(self, edge: Edge, width: int | None) -> str:
        """Say in words why the result at an ELEMENTS edge cannot be mapped over with this width."""
        up, index = edge.up, edge.element
        length = up.known.lengths.get(index)
        name = label(up, index)
        if up.states[index] != State.COMPLETED:
            return f"map() has nothing to map over: {name} ended {up.state(index).title}"
        if length is None:
            return (
                f"map() was given the result of {name}, which is no list, array or other sequence. "
                "Return a list from it, or use submit()."
            )
        return f"map() was given iterables of unequal lengths: {name} returned {length} items, others have {width}"

    # --- in bulk --------------------------------------------------------------------------------

    def _judge_clean(self, node: Node, indices: Sequence[int]) -> None:
        """All upstreams of these items completed, but the trigger may want something else."""
        own = [edge for edge in node.ins if edge.per_item and not edge.dead]
        if any(edge.dependency.reach is Reach.PICKED for edge in own):
            self._judge_singly(node, indices)
            return
        tally = Tally(self._base(node)[0].counts)
        tally.add(State.COMPLETED, len(own))
        self._follow(node, indices, self._verdict(node, tally, None, many=False))

    def _follow(
        self, node: Node, indices: Sequence[int], verdict: Verdict, roots: Roots | None = None
    ) -> None:
        if verdict.cause is Cause.UPSTREAM_DONE:
            self._may_run(node, indices)
            return
        self.ledger.move(node, indices, verdict.cause, verdict.reason, roots=roots)

    def _may_run(self, node: Node, indices: Sequence[int]) -> None:
        if not len(indices):
            return
        if node.unusable:
            detail = Detail(type_name="orchestration.errors.MappingError", message=node.unusable)
            node.facts.details.update(dict.fromkeys(indices, detail))
            self.ledger.move(node, indices, Cause.UPSTREAM_UNUSABLE, node.unusable)
            return
        self.ledger.move(node, indices, Cause.UPSTREAM_DONE)
        self.newly_ready.append((node, indices))

    # --- singly ---------------------------------------------------------------------------------

    def _judge_singly(self, node: Node, indices: Sequence[int]) -> None:
        own = [edge for edge in node.ins if edge.per_item and not edge.dead]
        base, base_root = self._base(node)
        many = len(indices) > MANY
        groups: dict[tuple[Verdict, int | None], tuple[list[int], list[int]]] = {}
        for index in indices:
            tally = Tally(base.counts)
            root = base_root
            for edge in own:
                root = _count(tally, edge, edge.uppers(index), root)
            verdict = self._verdict(node, tally, root, many=many)
            blamed = None
            if verdict.cause is Cause.UPSTREAM_FAILED and root is not None:
                blamed = node.facts.roots[index] = _origin(root)
            members, origins = groups.setdefault((verdict, None if blamed is None else blamed[0]), ([], []))
            members.append(index)
            origins += blamed[1:] if blamed else ()
        for (verdict, up), (members, origins) in groups.items():
            roots = None if up is None else self._roots(up, origins)
            self._follow(node, compact(members), verdict, roots)

    def _roots(self, node_id: int, indices: Sequence[int]) -> Roots:
        return Roots(node_id, self.ledger.nodes[node_id].spec.task_name, indices)

    def _base(self, node: Node) -> tuple[Tally, Root | None]:
        """Count the upstream states that concern all items, once; also return the first that failed."""
        if node.base is None:
            tally, root = Tally(), None
            for edge in node.ins:
                if edge.per_item:
                    continue
                if edge.dependency.reach is Reach.ALL:
                    root = _count_all(tally, edge, root)
                else:
                    root = _count(tally, edge, sorted(edge.members), root)
            node.base = (tally, root)
        return node.base

    def _verdict(self, node: Node, tally: Tally, root: Root | None, *, many: bool) -> Verdict:
        policy = node.policy
        if tally.skipped and policy.skip_on_upstream_skip:
            return _SKIP
        try:
            if tally.total == 0 or policy.trigger.holds(tally):
                return _RUN
        except Exception as error:  # a user's callable
            message = f"its trigger {policy.trigger.name} raised {in_words(error)}"
            return Verdict(Cause.UPSTREAM_FAILED, message)
        if root is None:
            return Verdict(Cause.UPSTREAM_FAILED, f"its trigger {policy.trigger.name} does not hold")
        return Verdict(Cause.UPSTREAM_FAILED, self._blame(root, many=many))

    def _blame(self, root: Root, *, many: bool) -> str:
        node_id, index = _origin(root)
        first = self.ledger.nodes[node_id]
        state = first.names.get(index) or first.state(index).title
        if many and first.width > 1:
            return f"the task run of {first.spec.task_name} that it depends on ended {state}"
        return f"{label(first, index)} ended {state}"


def label(node: Node, index: int) -> str:
    """Name an item for people."""
    return node.run_names.get(index) or (
        node.spec.task_name if node.spec.kind != "map" else f"{node.spec.task_name}[{index}]"
    )


def _part(node: Node, indices: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """Part items of which all own upstreams completed from the others."""
    tainted = node.tainted
    if tainted is None:
        return indices, range(0)
    if isinstance(indices, range):
        part = tainted[indices.start : indices.stop]
        if 1 not in part:
            return indices, range(0)
        if 0 not in part:
            return range(0), indices
    return (
        compact([i for i in indices if not tainted[i]]),
        compact([i for i in indices if tainted[i]]),
    )


def _count(tally: Tally, edge: Edge, members: Iterable[int], root: Root | None) -> Root | None:
    """Add upstream items to a tally; return the first that failed, `root` if that is earlier."""
    up = edge.up
    for index in members:
        state = up.state(index)
        if state in FAILURE:
            if edge.dependency.tolerant:
                state = State.COMPLETED
            elif root is None:
                root = (up, index)
        tally.add(state)
    return root


def _count_all(tally: Tally, edge: Edge, root: Root | None) -> Root | None:
    """Add all items of an upstream node, by its counts."""
    up, tolerant = edge.up, edge.dependency.tolerant
    for state in State:
        tally.add(State.COMPLETED if tolerant and state in FAILURE else state, up.counts[state])
    if root is None and not tolerant:
        found = [at for state in FAILURE if (at := up.states.find(bytes([state]))) >= 0]
        if found:
            return up, min(found)
    return root


def _origin(root: Root) -> tuple[int, int]:
    """Return the item that failed first: itself, or what kept it from running."""
    up, index = root
    return up.roots.get(index) or (up.node_id, index)
