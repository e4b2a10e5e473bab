"""Cancelling items, nodes and the run, and ending a run at once."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from runners.messages import Detail, Outcome

from .commands import CancelBatches
from .journal import AttemptsEnded
from .ledger import compact
from .records import Flight, Node
from .states import AT_ENGINE, TERMINAL, WAITING, Cause, State

if TYPE_CHECKING:
    from .coordinator import Coordinator
    from .events import CancelRequested

GRACE_SECONDS = 5.0  # for the engine to confirm; then the code counts as abandoned


def cancel(core: Coordinator, event: CancelRequested) -> None:
    """Cancel what an event names."""
    if event.node_id is None:
        core.cancelled = core.cancelled or event.reason
        for node in list(core.nodes.values()):
            cancel_node(core, node, event.reason)
    elif event.node_id in core.nodes:
        cancel_node(core, core.nodes[event.node_id], event.reason, event.indices)


def cancel_node(core: Coordinator, node: Node, reason: str, indices: frozenset[int] | None = None) -> None:
    """Cancel a node's items: at once where they wait, by way of the runner where they are at the engine."""
    if not node.opened:
        core.readiness.close_unopened(node)
    members = range(node.width) if indices is None else sorted(i for i in indices if i < node.width)
    waiting = [i for i in members if node.states[i] in WAITING]
    running = {i for i in members if node.states[i] in AT_ENGINE}
    _recall(core, node, set(waiting))
    core.ledger.move(node, compact(waiting), Cause.CANCELLED, reason)
    node.cancel_wanted |= running
    if running:
        _stop_flights(core, node, reason)


def _recall(core: Coordinator, node: Node, leaving: set[int]) -> None:
    """Take items out of the queue and out of flights that wait for leases."""
    if len(node.ready):
        node.ready.discard(leaving)
    for flight in list(core.flights.values()):
        if flight.node is not node or flight.over or flight.submitted:
            continue
        if not leaving.isdisjoint(flight.indices):
            rest = [i for i in flight.indices if i not in leaving]
            core.recall(flight, rest)


def _stop_flights(core: Coordinator, node: Node, reason: str) -> None:
    """Stop the flights of which every remaining item is to be cancelled.

    A flight with other items in it goes on: interrupting it would run their code twice. Its cancelled
    items end as cancelled if they come back unstarted, else as they end.
    """
    stopped: list[Flight] = []
    for flight in core.flights.values():
        if flight.node is not node or flight.over or not flight.submitted or flight.cancelling:
            continue
        left = [i for i in flight.indices if node.states[i] in AT_ENGINE]
        if left and all(i in node.cancel_wanted for i in left):
            flight.cancelling = True
            stopped.append(flight)
    if stopped:
        core.ledger.emit(CancelBatches(tuple(f.batch_id for f in stopped)))
        core.at(core.ledger.now + GRACE_SECONDS, lambda: _abandon(core, stopped, reason))


def _abandon(core: Coordinator, flights: list[Flight], reason: str) -> None:
    """The engine has not confirmed in time: the items are Cancelled, their code may still run.

    The flight keeps its slot until the engine reports its end.
    """
    for flight in flights:
        if flight.over:
            continue
        node = flight.node
        left = [p for p, i in enumerate(flight.indices) if node.states[i] in AT_ENGINE]
        message = f"{reason}; its code could not be stopped and may still be running"
        end_at_engine(core, flight, left, Cause.CANCELLED, message, abandoned=True)


def end_at_engine(
    core: Coordinator, flight: Flight, positions: list[int], cause: Cause, message: str, *, abandoned: bool
) -> None:
    """End items whose table will not be waited for."""
    node, n = flight.node, len(positions)
    if not n:
        return
    detail = Detail("TaskCancelledError", message, abandoned=abandoned)
    flight.settled.update(positions)
    indices = [flight.indices[p] for p in positions]
    target = State.CANCELLED if cause is Cause.CANCELLED else State.CRASHED
    core.ledger.emit(
        AttemptsEnded(
            node.node_id,
            flight.batch_id,
            flight.execution_id,
            flight.worker,
            core.ledger.now,
            indices,
            [flight.attempts[p] for p in positions],
            bytes([Outcome.CANCELLED]) * n,
            bytes([target]) * n,
            array("d", bytes(8 * n)),
            array("d", bytes(8 * n)),
            positions,
            dict.fromkeys(range(n), detail),
        )
    )
    for index in indices:
        node.details[index] = detail
    core.ledger.move(node, compact(indices), cause, message)


def interrupt(core: Coordinator, reason: str) -> None:
    """End the run now: what waits or runs is Crashed. Nothing starts any more."""
    core.over = True
    core.cancelled = core.cancelled or reason
    for flight in list(core.flights.values()):
        if flight.over:
            continue
        node = flight.node
        if flight.submitted:
            left = [p for p, i in enumerate(flight.indices) if node.states[i] in AT_ENGINE]
            end_at_engine(core, flight, left, Cause.INTERRUPTED, reason, abandoned=True)
            core.ledger.emit(CancelBatches((flight.batch_id,)))
        else:
            core.recall(flight, [])
    for node in list(core.nodes.values()):
        if not node.opened:
            core.readiness.close_unopened(node)
        node.ready.clear()
        left_over = [i for i in range(node.width) if node.states[i] not in TERMINAL]
        core.ledger.move(node, compact(left_over), Cause.INTERRUPTED, reason)
