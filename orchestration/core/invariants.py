"""What must hold between any two events. Tests call `check` after each; it is too slow for production."""

from __future__ import annotations

from .coordinator import Coordinator
from .records import MAIN, Edge, Node, Reach
from .states import AT_ENGINE, TERMINAL, State

_OPEN = frozenset(State) - TERMINAL


class InvariantBroken(AssertionError):
    """The coordinator's state contradicts itself."""


def check(core: Coordinator) -> None:
    """Raise InvariantBroken, with the story of the item concerned, if anything does not hold."""
    _demand(not core.ledger.ended, "some ends have not been told")
    _demand(not core.readiness.verdicts.newly_ready and not core.settling.ready, "ready items are not queued")
    for node in core.nodes.values():
        _check_counts(node)
        _check_blockers(node)
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


def _check_blockers(node: Node) -> None:
    """The number of edges that hold back all items equals what the upstreams' states say."""
    blockers = 0
    for edge in node.ins:
        up = edge.up
        if edge.per_item:
            blocks = not up.opened and not edge.dead
        elif edge.dependency.reach is Reach.ALL:
            blocks = up.unfinished > 0
        else:
            blocks = any(not up.opened or up.states[i] in _OPEN for i in edge.members)
        _demand(blocks == edge.blocks, f"{node.spec.path}: an edge from {up.spec.path} should say {blocks}")
        blockers += blocks
    _demand(blockers == node.blockers, f"{node.spec.path} says {node.blockers} blockers, has {blockers}")


def _check_waits(core: Coordinator, node: Node) -> None:
    """Counters of unfinished upstreams per item equal what the upstreams' states say."""
    if not node.opened:
        return
    edges = [edge for edge in node.ins if edge.per_item and not edge.dead and edge.up.opened]
    for index in range(node.width):
        waits = sum(_unfinished(edge, index) for edge in edges)
        noted = node.waits[index] if node.waits is not None else 0
        _demand(waits == noted, _about(core, node, index, f"waits for {waits}, not {noted}"))
        if waits == 0 and not node.blockers:
            _demand(
                node.states[index] != State.PENDING or core.remaking.is_waiting(node, index),
                _about(core, node, index, "could run but is Pending"),
            )
        elif node.states[index] not in TERMINAL and not _rides(node, index):
            _demand(node.states[index] == State.PENDING, _about(core, node, index, "runs too early"))


def _rides(node: Node, index: int) -> bool:
    """Whether an item is in a batch together with what it waits for."""
    return any(
        rider.node is node and index in flight.indices
        for flight in node.flights.values()
        for rider in flight.riders
    )


def _unfinished(edge: Edge, item: int) -> int:
    return sum(edge.up.states[upper] in _OPEN for upper in edge.uppers(item))


def _check_ready(core: Coordinator, node: Node) -> None:
    """Every Ready item is in its node's queue or in a flight that asks for leases, exactly once."""
    queued = list(node.ready)
    _demand(
        len(queued) == len(node.ready), f"{node.spec.path}: its queue has {queued}, says {len(node.ready)}"
    )
    forming = [
        i
        for flight in node.flights.values()
        if not flight.submitted and not flight.waits_for_limit and not flight.remake
        for i in flight.indices
    ]
    places = queued + forming
    _demand(len(places) == len(set(places)), f"{node.spec.path} has an item in two places: {places}")
    ready = {i for i in range(node.width) if node.states[i] == State.READY}
    _demand(set(places) == ready, f"{node.spec.path}: Ready are {sorted(ready)}, queued {sorted(places)}")


def _check_flights(core: Coordinator) -> None:
    """Every item at the engine, or waiting for leases, is in exactly one live flight; slots are counted right."""
    at_engine = asking = 0
    owners: dict[tuple[int, int], int] = {}
    live = {batch_id for batch_id, flight in core.flights.items() if not flight.over}
    _demand(live == set(core.ledger.live), "live flights are not those that have not ended")
    for flight in core.ledger.live.values():
        if flight.submitted:
            at_engine += flight.runner == MAIN and not flight.lent
        else:
            asking += not flight.waits_for_limit
        forming = {State.AWAITING_LIMIT} if flight.waits_for_limit else {State.READY}
        expected = AT_ENGINE if flight.submitted else forming
        expected = {State.COMPLETED} if flight.remake else expected
        for part in flight.parts:
            node = part.node
            _demand(
                flight.batch_id in node.flights, f"{node.spec.path} does not know batch {flight.batch_id}"
            )
            for position in part.open_positions():
                index = flight.indices[position]
                owner = owners.setdefault((node.node_id, index), flight.batch_id)
                _demand(owner == flight.batch_id, _about(core, node, index, "is in two batches"))
                state = node.state(index)
                _demand(
                    state in expected,
                    _about(core, node, index, f"is in batch {flight.batch_id} as {state.title}"),
                )
    _demand(at_engine == core.at_engine, f"at_engine is {core.at_engine}, should be {at_engine}")
    _demand(asking == core.asking, f"asking is {core.asking}, should be {asking}")
    in_flight = AT_ENGINE | {State.AWAITING_LIMIT}
    for node in core.nodes.values():
        _demand(
            sum(node.counts[s] for s in in_flight)
            == sum(node.state(i) in in_flight for n, i in owners if n == node.node_id),
            f"{node.spec.path} has items at the engine that are in no batch",
        )


def _check_progress(core: Coordinator) -> None:
    """Nothing ready is left lying while there is room."""
    dispatcher = core.dispatcher
    wanted: dict[tuple[str, ...], int] = {}
    for flight in core.ledger.live.values():
        if not flight.submitted:
            wanted[flight.names] = wanted.get(flight.names, 0) + 1
    _demand(wanted == dispatcher.asks(), f"asks are {dispatcher.asks()}, should be {wanted}")
    _check_gates(core)
    if core.paused or core.over or core.at_engine + core.asking >= core.slots:
        return
    _demand(not core.remaking.due, "lost results are due to be made again and there are free slots")
    for node in core.nodes.values():
        if len(node.ready):
            names = dispatcher.limits_of(node)
            blocked = bool(names) and not dispatcher.may_ask(names)
            blocked = blocked or bool(dispatcher.gates.closed(dispatcher.gates_of(node)))
            _demand(blocked, f"{node.spec.path} has ready items and there are free slots")


def _check_gates(core: Coordinator) -> None:
    """Who is inside of gates are live batches, and no more than the gates let in, but for lost results."""
    inside: dict[str, int] = {}
    for flight in core.ledger.live.values():
        for name in flight.gates:
            inside[name] = inside.get(name, 0) + 1
    dispatcher = core.dispatcher
    _demand(inside == dispatcher.gates.inside(), f"inside of gates are {inside}")
    for flight in core.ledger.live.values():
        for name, most in dispatcher.gates_of(flight.node):
            at_once = sum(name in other.gates and not other.remake for other in core.ledger.live.values())
            _demand(at_once <= most, f"{at_once} batches are inside of {name}, which lets in {most}")


def _about(core: Coordinator, node: Node, index: int, what: str) -> str:
    return "\n  ".join([f"{node.spec.path}[{index}] {what}", *core.story(node.node_id, index)])


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise InvariantBroken(message)
