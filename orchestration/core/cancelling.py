"""Cancelling items, nodes and the run, and ending a run at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runners.messages import NOT_STOPPED

from .commands import CancelBatches
from .ledger import compact, positions_in
from .overdue import ENDING_SECONDS
from .records import Flight, Node
from .stages import entry_of
from .states import AT_ENGINE, TERMINAL, WAITING, Cause, State

if TYPE_CHECKING:
    from .coordinator import Coordinator
    from .events import CancelRequested

GRACE_SECONDS = 5.0  # for the engine to confirm; then the code counts as abandoned
_LIVE = frozenset(State) - TERMINAL


def cancel(core: Coordinator, event: CancelRequested) -> None:
    """Cancel what an event names."""
    if event.node_id is None:
        core.cancelled = core.cancelled or event.reason
        for node in list(core.nodes.values()):
            cancel_node(core, node, event.reason)
        core.remaking.stop(event.reason)
    elif event.node_id in core.nodes:
        cancel_node(core, core.nodes[event.node_id], event.reason, event.indices)


def cancel_node(core: Coordinator, node: Node, reason: str, indices: frozenset[int] | None = None) -> None:
    """Cancel a node's items: at once where they wait, by way of the runner where they are at the engine."""
    if not node.opened:
        core.readiness.close_unopened(node)
        indices = None
    if indices is None:
        waiting, running = positions_in(node.states, WAITING), positions_in(node.states, AT_ENGINE)
    else:
        members = sorted(i for i in indices if 0 <= i < node.width)
        waiting = compact([i for i in members if node.states[i] in WAITING])
        running = compact([i for i in members if node.states[i] in AT_ENGINE])
    _take_back(core, node, waiting)
    core.ledger.move(node, waiting, Cause.CANCELLED, reason)
    if len(running):
        wanted = node.facts.cancel_wanted
        for index in running:
            wanted.setdefault(index, reason)
        _stop_flights(core, node, reason)


def _take_back(core: Coordinator, node: Node, leaving: Sequence[int]) -> None:
    """Take items out of flights that wait for leases, and out of the queue."""
    if not len(leaving):
        return
    forming = [flight for flight in node.flights.values() if not flight.submitted]
    if forming:
        gone = leaving if isinstance(leaving, range) else frozenset(leaving)
        for flight in forming:
            rest = [i for i in flight.indices if i not in gone]
            if len(rest) < len(flight.indices):
                core.dispatcher.recall(flight, [])
                _requeue(core, node, rest)
    node.ready.discard([i for i in leaving if node.states[i] == State.READY and not _in(forming, i)])


def _requeue(core: Coordinator, node: Node, rest: Sequence[int]) -> None:
    waiting = compact(sorted(i for i in rest if node.states[i] == State.AWAITING_LIMIT))
    core.ledger.move(node, waiting, Cause.LIMIT_FREED)
    if len(rest):
        core.dispatcher.enqueue(node, rest)


def _in(flights: Sequence[Flight], index: int) -> bool:
    return any(index in flight.indices for flight in flights)


def _stop_flights(core: Coordinator, node: Node, reason: str) -> None:
    """Stop the flights of which every remaining item is to be cancelled.

    A flight with other items in it goes on: interrupting it would run their code twice. Its cancelled
    items end as cancelled if they come back unstarted, else as they end.
    """
    stopped: list[Flight] = []
    for flight in node.flights.values():
        if not flight.submitted or flight.cancelling:
            continue
        if _all_wanted(flight):
            flight.cancelling = True
            stopped.append(flight)
    _stop(core, stopped, reason)


def look_again(core: Coordinator, flight: Flight) -> None:
    """A flight has come further: stop it if items that were not to be cancelled had kept it alive until now."""
    if flight.cancelling or flight.over or flight.remake:
        return
    wanted = next((w for node in flight.nodes if (w := node.known.cancel_wanted)), None)
    if wanted and _all_wanted(flight):
        flight.cancelling = True
        _stop(core, [flight], next(iter(wanted.values())))


def _stop(core: Coordinator, stopped: list[Flight], reason: str) -> None:
    if stopped:
        core.ledger.emit(CancelBatches(tuple(f.batch_id for f in stopped)))
        core.at(core.ledger.now + GRACE_SECONDS, lambda: _abandon(core, stopped, reason))


def _all_wanted(flight: Flight) -> bool:
    """Whether all that a flight has yet to do is to be cancelled, or depends on what is."""
    parts = flight.parts
    if len(parts) == 1:
        wanted = flight.node.known.cancel_wanted
        left = [
            p for p in flight.open_positions() if p >= flight.entry
        ]  # those before have ended, as was heard
        return bool(left) and all(flight.indices[p] in wanted for p in left)
    open_ = [frozenset(part.open_positions()) for part in parts]
    any_left = False
    for position in range(flight.entry // len(parts), len(flight.indices)):
        index, doomed = flight.indices[position], False
        for part in parts:
            ended = entry_of(part, position) < flight.entry
            if ended or position not in open_[part.stage]:
                continue
            doomed = (doomed and part.follows) or index in part.node.known.cancel_wanted
            if not doomed:
                return False
            any_left = True
    return any_left


def _abandon(core: Coordinator, flights: list[Flight], reason: str) -> None:
    """The engine has not confirmed in time: where it can, it ends the workers. Else the code is abandoned."""
    left = [flight for flight in flights if not flight.over]
    if left:
        core.ledger.emit(CancelBatches(tuple(flight.batch_id for flight in left), force=True))
    if core.overdues.ends_workers:
        core.at(core.ledger.now + ENDING_SECONDS, lambda: _give_up(core, left, reason))
    else:
        _give_up(core, left, reason)


def _give_up(core: Coordinator, flights: list[Flight], reason: str) -> None:
    """The items are Cancelled, their code may still run: the flight keeps its slot and leases until its end is told."""
    message = f"{reason}; it {NOT_STOPPED}"
    for flight in flights:
        if not flight.over:
            core.settling.abandon(flight, message)


def interrupt(core: Coordinator, reason: str, type_name: str) -> None:
    """End the run now: what waits or runs is Crashed. Nothing starts any more."""
    if core.over:
        return
    core.over = True
    core.cancelled = core.cancelled or reason
    core.remaking.stop(reason)
    stopped: list[int] = []
    for flight in list(core.ledger.live.values()):
        if flight.submitted:
            core.settling.end_without_table(flight, Cause.INTERRUPTED, reason, type_name)
            flight.cancelling = True
            stopped.append(flight.batch_id)
        else:
            core.dispatcher.recall(flight, [])
    if stopped:
        core.ledger.emit(CancelBatches(tuple(stopped)))
    for node in list(core.nodes.values()):
        if not node.opened:
            core.readiness.close_unopened(node)
        node.ready.clear()
        core.ledger.move(node, positions_in(node.states, _LIVE), Cause.INTERRUPTED, reason)
