"""Tasks that the code of a task run has called: whose slot they use, and that none of them outlives its caller.

A called task runs in the thread that calls it, in the flow's process or on a worker. Nobody but that thread takes
its batches: once the caller's batch is over, however that came, they would wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .dispatching import Dispatcher
from .ledger import Ledger, positions_in
from .readiness import Readiness
from .records import INLINE, Flight, Node
from .settling import Settling
from .states import TERMINAL, Cause, State

CALLER_ENDED = "the task run that called it has ended before it"

_LIVE = frozenset(State) - TERMINAL

End = Callable[
    [int, Callable[[Flight], None]], None
]  # of the flight with this id, which the function settles


class Calls:
    """The called tasks of a run, by the item whose code has called them."""

    def __init__(
        self, ledger: Ledger, readiness: Readiness, settling: Settling, dispatcher: Dispatcher, end: End
    ) -> None:
        self.ledger = ledger
        self.readiness = readiness
        self.settling = settling
        self.dispatcher = dispatcher
        self.end = end
        self._by_caller: dict[int, dict[int, list[Node]]] = {}  # node_id -> index -> nodes

    def note(self, node: Node) -> bool:
        """A node was added. False: it was called by what is over already, as on a worker that has died meanwhile."""
        if node.spec.runner != INLINE or node.spec.parent is None:
            return True
        if self._caller(node) is None:
            return False
        node_id, index = node.spec.parent
        self._by_caller.setdefault(node_id, {}).setdefault(index, []).append(node)
        return True

    def carrier(self, flight: Flight) -> Flight | None:
        """Return the flight whose slot the code of a flight uses: of a called task, that of who has called it."""
        found: Flight | None = flight
        while found is not None and found.runner == INLINE:
            found = self._caller(found.node)
        return found

    def end_with(self, flight: Flight) -> None:
        """A flight is over: so is what its items have called, and what that has called in turn."""
        if not self._by_caller:
            return
        called = [node for part in flight.parts for node in self._called_by(part.node, part.indices)]
        for node in called:  # it grows
            called += self._called_by(node, range(node.width))
        for node in called:
            if node.unfinished:
                self.give_up(node)

    def give_up(self, node: Node) -> None:
        """End what a node has left to do: Crashed."""
        for flight in list(node.flights.values()):
            if flight.submitted:
                self.end(flight.batch_id, self._lose)
            else:
                self.dispatcher.recall(flight, [])
        if not node.opened:
            self.readiness.close_unopened(node)
        node.ready.clear()
        self.ledger.move(node, positions_in(node.states, _LIVE), Cause.INTERRUPTED, CALLER_ENDED)

    def _lose(self, flight: Flight) -> None:
        self.settling.end_without_table(
            flight, Cause.INTERRUPTED, CALLER_ENDED, "orchestration.errors.CrashedRunError"
        )

    def _called_by(self, node: Node, indices: Iterable[int]) -> Iterator[Node]:
        """Yield what items have called, and forget it."""
        callers = self._by_caller.get(node.node_id)
        if callers is None:
            return
        for index in indices:
            yield from callers.pop(index, ())
        if not callers:
            del self._by_caller[node.node_id]

    def _caller(self, node: Node) -> Flight | None:
        """Return the live flight of the item that has called a node."""
        if node.spec.parent is None:
            return None
        node_id, index = node.spec.parent
        caller = self.ledger.nodes.get(node_id)
        flights = caller.flights.values() if caller is not None else ()
        return next((flight for flight in flights if flight.submitted and index in flight.indices), None)
