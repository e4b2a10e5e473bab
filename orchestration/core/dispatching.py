"""Which batch goes to the engine next, and which limits it needs first.

Nodes with ready items stand in a heap, best first. A batch is formed when there is room for it; if it
needs leases it asks for them first and counts as `asking` until the first answer, so that a limit that is
taken does not keep slots empty. Of batches that need the same limits at most one per slot asks at a time;
nodes beyond that are parked, and each answer lets one of them ask.
"""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Iterable, Sequence

from . import fusing, pooling
from .batching import DEADLINE_SECONDS, most_items
from .commands import AskLeases, Fused, SubmitBatch, WithdrawLeases
from .events import LeasesAnswered
from .gates import Gate, Gates
from .ledger import Ledger, compact
from .records import INLINE, MAIN, Edge, Flight, Node, Rider
from .remaking import Remaking
from .retry import COMPANY
from .states import Cause, State
from .turns import Turn, Turns
from .verdicts import label

Names = tuple[str, ...]
Train = tuple[Node, Sequence[Edge]]  # a node, and the edges to those that may be fused with it


class Dispatcher:
    """Forms batches as long as there is room for them."""

    def __init__(self, ledger: Ledger, remaking: Remaking, prefetch: int, first_batch_id: int) -> None:
        self.ledger = ledger
        self.remaking = remaking
        self.prefetch = prefetch
        self.slots = 0
        self.at_engine = 0  # batches at the main runner that hold a slot
        self.asking = 0  # flights that were formed and wait for the first answer about their leases
        self.limits: frozenset[str] = frozenset()
        self.gates = Gates(ledger.nodes)
        self.paused = False
        self._next_batch = first_batch_id
        self.turns = Turns()
        self._queue: list[tuple[Turn, Node]] = []  # nodes with ready items, best first
        self._inline: list[Node] = []
        self._asks: dict[Names, int] = {}  # by limits: flights that ask or wait for these
        self._parked: dict[Names, deque[Node]] = {}  # nodes that may ask when one of these is answered

    # --- the queue ------------------------------------------------------------------------------

    def enqueue(self, node: Node, indices: Sequence[int]) -> None:
        """Put ready items into their node's queue."""
        if self.paused:
            self.ledger.move(node, indices, Cause.PAUSED, "the run is paused")
            return
        spent = node.known.spent
        if spent:
            alone = [i for i in indices if i in spent and spent[i].suspicious]
            few = [i for i in indices if i in spent and spent[i].wary]
            node.ready.add_apart(sorted(alone))
            node.ready.add_apart(sorted(few), COMPANY)
            others = {*alone, *few}
            node.ready.add([i for i in indices if i not in others])
        else:
            node.ready.add(indices)
        self._queue_node(node)

    def _queue_node(self, node: Node) -> bool:
        if node.queued or node.parked or not len(node.ready):
            return node.queued
        if node.spec.runner == INLINE:  # its thread waits for it: no slot needed
            self._inline.append(node)
        else:
            heapq.heappush(self._queue, (self.turns.of(node), node))
        node.queued = True
        return True

    def dispatch(self) -> None:
        """Form batches as long as there is room for them."""
        if self.paused:
            return
        for node in self._inline:
            node.queued = False
            while len(node.ready) and not self._waits_at_gate(node):
                self._form(node, self._limits_of(node))
        self._inline.clear()
        while self.may_remake:
            self._form_again()
        if len(self._queue) > 1 and self.turns.reckon(len(self._queue)):
            self._queue = [(self.turns.of(node), node) for _, node in self._queue]
            heapq.heapify(self._queue)
        while self._queue:
            node = self._queue[0][-1]
            if not len(node.ready):
                self._leave_queue(node)
                continue
            if not self._room_for(node):
                return
            if self._waits_at_gate(node):
                self._leave_queue(node)
                continue
            names = self._limits_of(node)
            if not names or self.may_ask(names):
                self._form(node, names)
            else:
                self._leave_queue(node)
                node.parked = True
                self._parked.setdefault(names, deque()).append(node)

    def _leave_queue(self, node: Node) -> None:
        """Remove the best node from the queue. One that has nothing left gives its turn to another."""
        heapq.heappop(self._queue)
        node.queued = False
        if not len(node.ready):
            self._wake(self._limits_of(node))
            gates = self.gates_of(node)
            if not self.gates.closed(gates):
                self._open(name for name, _ in gates)

    @property
    def may_remake(self) -> bool:
        """Whether a batch may go that makes lost results again: others wait for it, so it goes before them."""
        return bool(self.remaking.due) and not self.paused and self.at_engine + self.asking < self.slots

    def _room_for(self, node: Node) -> bool:
        return self.at_engine + self.asking < self.slots * self._batches_per_slot(node)

    def _batches_per_slot(self, node: Node) -> int:
        """Return how many batches a slot may have, this node's next one among them."""
        ready, more = len(node.ready), node.counts[State.PENDING]
        short = node.sizer.short_if_single if node.width == 1 else node.sizer.short
        if not short or (more and node.sizer.is_crumb(ready)):
            return 1
        if more or ready > node.sizer.size or node.ready.apart or pooling.may_pool(node):
            return self.prefetch
        return max(
            self.prefetch, node.sizer.batches_ahead(ready)
        )  # all that the node has: it cannot be larger

    # --- batches --------------------------------------------------------------------------------

    def _form(self, node: Node, names: Names) -> None:
        """Take items from a node's queue and send them off, unless what they read is gone."""
        edges = fusing.chain(node, self._terms_of)
        indices = self.remaking.hold(node, node.ready.take(self._size(node, edges)))
        if len(indices):
            self._launch(node, indices, names, edges, pooled=self._pool(node, edges))

    def _form_again(self) -> None:
        """Send off items whose results are to be made again."""
        node, indices = self.remaking.take(
            lambda node, n: node.policy.batch or node.sizer.choose(n, n, self.slots)
        )
        if len(indices):
            self._launch(node, indices, self._limits_of(node), (), remake=True)

    def _pool(self, first: Node, edges: Sequence[Edge]) -> list[Train]:
        """Take further single task runs out of the queue to share a batch, and find what may be fused with them."""
        found: list[Train] = []
        if not pooling.may_pool(first) or self._terms_of(first):
            return found
        free = self.slots - self.at_engine - self.asking
        pool = pooling.Pool(
            first, fusing.seconds(first, edges), len(self._queue), free if free > 0 else self.slots
        )
        while self._queue:
            node = self._queue[0][-1]
            if len(node.ready):
                if not pool.takes(node) or self._terms_of(node):
                    break
                if len(self.remaking.hold(node, node.ready.take(1))):
                    edges = fusing.chain(node, self._terms_of)
                    pool.add(fusing.seconds(node, edges))
                    found.append((node, edges))
            self._leave_queue(node)
        return found

    def _launch(
        self,
        node: Node,
        indices: Sequence[int],
        names: Names,
        edges: Sequence[Edge],
        *,
        pooled: Sequence[Train] = (),
        remake: bool = False,
    ) -> None:
        """Send items off as a batch, or ask for its leases first."""
        attempts = _next_attempts(node, indices)
        gates = tuple(name for name, _ in self.gates_of(node))
        flight = Flight(
            self._next_batch, node, indices, attempts, node.spec.runner, names, gates=gates, remake=remake
        )
        self._next_batch += 1
        self.ledger.flights[flight.batch_id] = flight
        self.ledger.live[flight.batch_id] = flight
        node.flights[flight.batch_id] = flight
        self.gates.enter(gates)
        if names:
            self._asks[names] = self._asks.get(names, 0) + 1
            self.asking += 1
            self.ledger.emit(AskLeases(flight.batch_id, names, label(node, indices[0])))
        else:
            self._submit(flight, edges, pooled)

    def _size(self, node: Node, edges: Sequence[Edge]) -> int:
        usual, apart = self._usual_size(node, edges), node.ready.apart
        return min(usual, apart) if apart else usual

    def _usual_size(self, node: Node, edges: Sequence[Edge]) -> int:
        if node.policy.batch is not None:
            return node.policy.batch
        ready = len(node.ready)
        if node.spec.runner == INLINE:
            return ready
        remaining = ready + node.counts[State.PENDING]
        slots = min((most for _, most in self.gates_of(node)), default=self.slots)
        slots = min(slots, self.slots)
        if not edges:
            return node.sizer.choose(ready, remaining, slots)
        each = fusing.seconds(node, edges)
        size = node.sizer.choose(ready, remaining, slots, each)
        return min(size, most_items(each, fusing.size_of(node, edges)))

    def _submit(self, flight: Flight, edges: Sequence[Edge], pooled: Sequence[Train] = ()) -> None:
        node, indices = flight.node, flight.indices
        if not flight.remake:
            _set_attempts(node, indices, flight.attempts)
            self.ledger.move(node, indices, Cause.DISPATCHED)
            riders: list[Rider] = []
            self._let_ride(flight, node, edges, riders)
            for other, others_edges in pooled:
                self._seat(flight, other, Cause.DISPATCHED, riders)
                self._let_ride(flight, other, others_edges, riders)
            flight.riders = tuple(riders)
        flight.submitted = True
        flight.submitted_at = self.ledger.now
        if flight.runner == MAIN:
            self.at_engine += 1
        self.ledger.emit(
            SubmitBatch(
                flight.batch_id,
                node.node_id,
                indices,
                flight.attempts,
                flight.runner,
                _deadline(flight),
                not node.policy.rerun_on_loss,
                tuple(Fused(rider.node.node_id, rider.attempts, rider.follows) for rider in flight.riders),
            )
        )

    def _let_ride(self, flight: Flight, node: Node, edges: Sequence[Edge], riders: list[Rider]) -> None:
        """Fuse nodes with one that is in a flight: their items go with it though their upstream has yet to run."""
        for follower in fusing.riders(node, flight.indices, edges):
            if self.remaking.lacks(follower, flight.indices):
                break
            self._seat(flight, follower, Cause.RODE_ALONG, riders)

    def _seat(self, flight: Flight, node: Node, cause: Cause, riders: list[Rider]) -> None:
        """Give a node's items a stage of a flight's batch, after those that have one."""
        indices = flight.indices
        follows = cause is Cause.RODE_ALONG
        rider = Rider(flight, len(riders) + 1, node, _next_attempts(node, indices), follows)
        _set_attempts(node, indices, rider.attempts)
        self.ledger.move(node, indices, cause)
        node.flights[flight.batch_id] = flight
        riders.append(rider)

    def land(self, flight: Flight) -> None:
        """A flight has ended: free its slot."""
        flight.over = True
        del self.ledger.live[flight.batch_id]
        for part in flight.parts:
            del part.node.flights[flight.batch_id]
            self.turns.left(part.node)
        if flight.runner == MAIN and flight.submitted and not flight.lent:
            self.at_engine -= 1
        flight.lent = 0
        self.gates.leave(flight.gates)
        self._open(flight.gates)

    def lend(self, flight: Flight, change: int) -> None:
        """Code in a batch begins (1) or ends (-1) to wait for other task runs."""
        if flight.runner != MAIN or not flight.submitted:
            return
        was = flight.lent
        flight.lent = max(0, was + change)
        if bool(was) != bool(flight.lent):
            self.at_engine += 1 if was else -1

    # --- gates ----------------------------------------------------------------------------------

    def gates_of(self, node: Node) -> tuple[Gate, ...]:
        """Return the gates that a batch of this node goes through."""
        return self.gates.of(node, self.limits)

    def _waits_at_gate(self, node: Node) -> bool:
        """Let a node that may not run one more batch now wait for its turn; tell whether it does."""
        closed = self.gates.closed(self.gates_of(node))
        if closed:
            self.gates.wait(closed, node)
        return bool(closed)

    def _open(self, names: Iterable[str]) -> None:
        """Give the turn at gates to the next node that has something to run."""
        for name in names:
            while (node := self.gates.next(name)) is not None:
                if self._queue_node(node):
                    break

    def _terms_of(self, node: Node) -> Names:
        """Return what nodes have in common that may share a batch: limits and gates."""
        return (*self._limits_of(node), *(name for name, _ in self.gates_of(node)))

    # --- limits ---------------------------------------------------------------------------------

    def may_ask(self, names: Names) -> bool:
        """Whether one more batch may ask for these limits."""
        return self._asks.get(names, 0) < max(1, self.slots)

    def asks(self) -> dict[Names, int]:
        """Return how many flights ask or wait, by limits."""
        return {names: n for names, n in self._asks.items() if n}

    def know_limits(self, names: frozenset[str]) -> None:
        self.limits = names
        self._wake_all()

    def set_slots(self, slots: int) -> None:
        self.slots = self.turns.slots = slots
        self._wake_all()

    def limits_of(self, node: Node) -> Names:
        """Return the limits that a batch of this node needs. What its ancestors hold, it shares."""
        return self._limits_of(node)

    def _limits_of(self, node: Node) -> Names:
        tags = node.spec.tags
        names = self.limits & tags if tags else None
        if not names:
            return ()
        parent = node.spec.parent
        while parent is not None and names:
            above = self.ledger.nodes[parent[0]]
            names -= above.spec.tags
            parent = above.spec.parent
        return tuple(sorted(names))

    def answered(self, flight: Flight, event: LeasesAnswered) -> None:
        """The store has answered a flight's request for leases."""
        if not event.granted:
            if not flight.waits_for_limit:
                flight.waits_for_limit = True
                self.asking -= 1
                blocked = "; ".join(held_up(name, who) for name, who in event.blocked_by.items())
                if not flight.remake:
                    self.ledger.move(flight.node, flight.indices, Cause.LIMIT_REACHED, blocked)
        else:  # a pause has recalled what had not been granted
            self._asks_no_longer(flight)
            self._submit(flight, () if flight.remake else fusing.chain(flight.node, self._terms_of))

    def recall(self, flight: Flight, back: Sequence[int]) -> None:
        """Give up a flight that has not been submitted. Items in `back` become ready again."""
        node = flight.node
        self.land(flight)
        self._asks_no_longer(flight)
        flight.shrink()
        self.ledger.emit(WithdrawLeases((flight.batch_id,)))
        if flight.remake:
            self.remaking.again(node, back)
            return
        waiting = compact(sorted(i for i in back if node.states[i] == State.AWAITING_LIMIT))
        self.ledger.move(node, waiting, Cause.LIMIT_FREED)
        if len(back):
            self.enqueue(node, back)

    def _asks_no_longer(self, flight: Flight) -> None:
        if not flight.waits_for_limit:
            self.asking -= 1
        self._asks[flight.names] -= 1
        self._wake(flight.names)
        self._queue_node(flight.node)

    def _wake(self, names: Names) -> None:
        """Let a parked node ask for these limits, if one more may."""
        parked = self._parked.get(names)
        while parked and self.may_ask(names):
            node = parked.popleft()
            node.parked = False
            if self._queue_node(node):
                return

    def _wake_all(self) -> None:
        for parked in self._parked.values():
            for node in parked:
                node.parked = False
                self._queue_node(node)
        self._parked.clear()

    # --- pause ----------------------------------------------------------------------------------

    def pause(self, reason: str) -> None:
        """Hold back what has not been submitted."""
        self.paused = True
        for node in self.ledger.nodes.values():
            if len(node.ready):
                self.ledger.move(node, compact(sorted(node.ready)), Cause.PAUSED, reason)
                node.ready.clear()
        for flight in list(self.ledger.live.values()):
            if not flight.submitted:
                self.recall(flight, flight.indices)


def _deadline(flight: Flight) -> float | None:
    """Return after how many seconds what has not started goes back: then others may run it."""
    if any(not rider.follows for rider in flight.riders):
        return pooling.DEADLINE_SECONDS
    return DEADLINE_SECONDS if len(flight.indices) > 1 or flight.riders else None


def _next_attempts(node: Node, indices: Sequence[int]) -> array[int]:
    """Return the number of the attempt that each item makes next."""
    if isinstance(indices, range):
        spent = node.attempts[indices.start : indices.stop]
        if spent.count(spent[0]) == len(spent):
            return array("I", [spent[0] + 1]) * len(spent)
        return array("I", [n + 1 for n in spent])
    return array("I", [node.attempts[i] + 1 for i in indices])


def _set_attempts(node: Node, indices: Sequence[int], attempts: array[int]) -> None:
    if isinstance(indices, range):
        node.attempts[indices.start : indices.stop] = attempts
    else:
        for index, attempt in zip(indices, attempts, strict=True):
            node.attempts[index] = attempt


def held_up(name: str, holders: Sequence[str]) -> str:
    """Say what somebody waits for who was refused."""
    if not holders:
        return f"waits for limit {name}"
    more = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
    return f"waits for limit {name}, held by {holders[0]}{more}"
