"""What must hold between any two events. Tests call `check` after each; it is too slow for production."""

from __future__ import annotations

from .coordinator import Coordinator
from .records import MAIN, Node, Reach
from .states import AT_ENGINE, TERMINAL, State


class InvariantBroken(AssertionError):
    """The coordinator's state contradicts itself."""


def check(core: Coordinator) -> None:
    """Raise InvariantBroken, with the story of the item concerned, if anything does not hold."""
    for node in core.nodes.values():
        _check_counts(node)
        _check_waits(core, node)
        _check_ready(core, node)
    _check_flights(core)
    _check_progress(core)


def _check_counts(node: Node) -> None:
    if not node.opened:
        _demand(not node.states, f"{node.spec.path} has items before its width is known")
        return
    for state in State:
        found = node.states.count(bytes([state]))
        _demand(
            found == node.counts[state],
            f"{node.spec.path} counts {node.counts[state]} {state.title}, has {found}",
        )


def _check_waits(core: Coordinator, node: Node) -> None:
    """Counters of unfinished upstreams equal what the upstreams' states say."""
    blockers = 0
    for edge in node.ins:
        up = edge.up
        if edge.dependency.reach is Reach.ALL:
            blockers += up.unfinished > 0
        elif edge.dependency.reach in (Reach.SOME, Reach.ELEMENTS):
            blockers += any(not up.opened or up.states[i] not in TERMINAL for i in edge.members)
    _demand(blockers == node.blockers, f"{node.spec.path} says {node.blockers} blockers, has {blockers}")
    if node.waits is None or not node.opened:
        return
    for index in range(node.width):
        waits = 0
        for edge in node.ins:
            if edge.dependency.reach is Reach.ALIGNED:
                aligned = edge.dependency.indices
                uppers = [index if aligned is None else aligned[index]]
            elif edge.dependency.reach is Reach.PICKED:
                uppers = list((edge.dependency.picks or {}).get(index, ()))
            else:
                continue
            waits += sum(edge.up.states[u] not in TERMINAL for u in uppers)
        _demand(waits == node.waits[index], _about(core, node, index, f"waits for {waits}"))
        if waits == 0 and not node.blockers:
            _demand(
                node.states[index] != State.PENDING, _about(core, node, index, "could run but is Pending")
            )


def _check_ready(core: Coordinator, node: Node) -> None:
    """Every Ready item is in its node's queue or in a flight that asks for leases, exactly once."""
    queued = list(node.ready)
    forming = [
        i
        for f in core.flights.values()
        if f.node is node and not f.over and not f.submitted and not f.waits_for_limit
        for i in f.indices
    ]
    places = queued + forming
    _demand(len(places) == len(set(places)), f"{node.spec.path} has an item in two places: {places}")
    ready = {i for i in range(node.width) if node.states[i] == State.READY}
    _demand(set(places) == ready, f"{node.spec.path}: Ready are {sorted(ready)}, queued {sorted(places)}")


def _check_flights(core: Coordinator) -> None:
    at_engine = asking = 0
    owners: dict[tuple[int, int], int] = {}
    for flight in core.flights.values():
        if flight.over:
            continue
        node = flight.node
        if flight.submitted:
            at_engine += flight.runner == MAIN and not flight.lent
        else:
            asking += not flight.waits_for_limit
        for position, index in enumerate(flight.indices):
            if position in flight.settled:
                continue
            owner = owners.setdefault((node.node_id, index), flight.batch_id)
            _demand(owner == flight.batch_id, _about(core, node, index, "is in two batches"))
            state = node.state(index)
            expected = (
                AT_ENGINE
                if flight.submitted
                else {State.AWAITING_LIMIT if flight.waits_for_limit else State.READY}
            )
            _demand(
                state in expected,
                _about(core, node, index, f"is in batch {flight.batch_id} as {state.title}"),
            )
    _demand(at_engine == core.at_engine, f"at_engine is {core.at_engine}, should be {at_engine}")
    _demand(asking == core.asking, f"asking is {core.asking}, should be {asking}")
    for node in core.nodes.values():
        for index in range(node.width):
            if node.states[index] in AT_ENGINE:
                _demand((node.node_id, index) in owners, _about(core, node, index, "is in no batch"))


def _check_progress(core: Coordinator) -> None:
    """Nothing ready is left lying while there is room."""
    if core.paused or core.over or core.at_engine + core.asking >= core.slots:
        return
    for node in core.nodes.values():
        if not core.limits & node.spec.tags:
            _demand(not len(node.ready), f"{node.spec.path} has ready items and there are free slots")


def _about(core: Coordinator, node: Node, index: int, what: str) -> str:
    return "\n  ".join([f"{node.spec.path}[{index}] {what}", *core.story(node.node_id, index)])


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise InvariantBroken(message)
