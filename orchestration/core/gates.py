"""At most so many batches at once, as the run itself can decide: nothing has to be asked of the store.

There are two kinds of gates. A task with `max_concurrency` has one for each number that its nodes have: all batches of
these pass through it. And a task run that holds a limit lends its lease to those that it starts, one at a time.
A batch runs its items one after another, so it takes one place, from its forming to its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from .records import Node

Gate = tuple[str, int]  # its name, and how many may be inside


class Gates:
    """Who is inside of which gate, and who waits before it.

    Args:
        nodes: all nodes of the run, by id.
    """

    def __init__(self, nodes: Mapping[int, Node]) -> None:
        self._nodes = nodes
        self._inside: dict[str, int] = {}
        self._waiting: dict[str, deque[Node]] = {}

    def of(self, node: Node, limits: frozenset[str]) -> tuple[Gate, ...]:
        """Return the gates that batches of a node go through, where these tags are limited."""
        if node.policy.max_concurrency is None and not (node.spec.parent and limits & node.spec.tags):
            return ()
        return tuple(self._find(node, limits))

    def _find(self, node: Node, limits: frozenset[str]) -> Iterator[Gate]:
        spec, most = node.spec, node.policy.max_concurrency
        if most is not None and not any(up.spec.task_name == spec.task_name for up, _ in self._above(node)):
            yield f"task {spec.task_name}, {most} at once", most
        for name in sorted(limits & spec.tags):
            for up, index in self._above(node):
                if name in up.spec.tags:
                    yield f"limit {name} of {up.spec.path}[{index}]", 1
                    break

    def _above(self, node: Node) -> Iterator[tuple[Node, int]]:
        """Yield the items whose code has started this node, nearest first."""
        parent = node.spec.parent
        while parent is not None:
            up = self._nodes[parent[0]]
            yield up, parent[1]
            parent = up.spec.parent

    def closed(self, gates: tuple[Gate, ...]) -> str:
        """Return the first of these gates that lets nobody in now; "" if all are open."""
        return next((name for name, most in gates if self._inside.get(name, 0) >= most), "")

    def inside(self) -> dict[str, int]:
        """Return how many are inside of each gate."""
        return {name: n for name, n in self._inside.items() if n}

    def enter(self, names: tuple[str, ...]) -> None:
        for name in names:
            self._inside[name] = self._inside.get(name, 0) + 1

    def leave(self, names: tuple[str, ...]) -> None:
        for name in names:
            self._inside[name] -= 1

    def wait(self, name: str, node: Node) -> None:
        """Let a node wait until it is its turn at a gate."""
        node.parked = True
        self._waiting.setdefault(name, deque()).append(node)

    def next(self, name: str) -> Node | None:
        """Take the node that has waited longest at a gate."""
        waiting = self._waiting.get(name)
        if not waiting:
            return None
        node = waiting.popleft()
        node.parked = False
        return node
