"""The values of simulated task runs, found where the coordinator says that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ..core.coordinator import Coordinator
from ..core.records import Node
from ..core.specs import Dependency, Reach
from ..core.states import TERMINAL, State
from .script import End, Step, Value, digest, input_of


class Results:
    """Computes and finds values.

    Args:
        held: what the engine holds: batch and stage -> position -> value.
        files: what is in result storage: address -> position -> value.
        made: by node and index, what each item returned last.
    """

    def __init__(
        self,
        core: Coordinator,
        steps: Mapping[int, Step],
        held: Mapping[tuple[int, int], Mapping[int, Value]],
        files: Mapping[str, Mapping[int, Value]],
        made: Mapping[tuple[int, int], Value] = MappingProxyType({}),
    ) -> None:
        self.core = core
        self.steps = steps
        self.held = held
        self.files = files
        self.made = made

    def value(self, node_id: int, index: int, given: Value | None = None) -> Value:
        """Compute what an item returns, from what its upstreams returned.

        Args:
            given: where it was fused: the value of its one upstream that has not ended.
        """

        def find(up: Node, i: int) -> Value | None:
            return given if given is not None and up.states[i] not in TERMINAL else self.find(up, i)

        inputs = [
            input_of(
                edge.dependency,
                index,
                [find(edge.up, i) for i in _uppers(edge.dependency, edge.up, index)],
            )
            for edge in self.core.nodes[node_id].ins
        ]
        return digest(self.steps[node_id].spec.path, index, inputs)

    def find(self, node: Node, index: int) -> Value | None:
        """Return an item's value; None if it has none."""
        if node.states[index] != State.COMPLETED:
            return None
        stored = node.stored.get(index)
        if stored is not None:
            return self.files[stored[0].url][stored[1]]
        place = node.location(index)
        held = None if place is None else self.held.get((place[0], node.stage_in(place[0])))
        if place is None or held is None:  # released, or lost since the reader was given it
            return self.made[node.node_id, index]
        return held[place[1]]

    def ends(self) -> dict[int, list[End]]:
        """Return how each item of each node has ended."""
        return {
            node_id: [End(node.state(i), self.find(node, i)) for i in range(node.width)]
            for node_id, node in self.core.nodes.items()
        }


def _uppers(dependency: Dependency, up: Node, index: int) -> Sequence[int]:
    match dependency.reach:
        case Reach.ALL:
            return range(up.width)
        case Reach.SOME:
            return sorted(set(dependency.indices or ()))
        case Reach.ELEMENTS:
            return dependency.indices or ()
        case Reach.PICKED:
            return (dependency.picks or {}).get(index, ())
    return (index if dependency.indices is None else dependency.indices[index],)
