"""The coordinator: every event that may happen to a run, and what follows from it."""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

from runners.messages import (
    BatchFinished,
    BatchLost,
    BatchProgress,
    BatchRejected,
    BatchStarted,
    SlotsChanged,
)

from . import cancelling
from .batching import DEADLINE_SECONDS, Sizer
from .commands import AnswerPermit, AskLeases, Command, SubmitBatch, WithdrawLeases
from .events import (
    CancelRequested,
    CoreEvent,
    LeasesAnswered,
    LimitsKnown,
    NodeSubmitted,
    PauseRequested,
    PermitAsked,
    ResumeRequested,
    RunInterrupted,
    SlotLent,
    SlotReclaimed,
    Tick,
)
from .journal import Counted, LeasesReturned, NodeAdded, StartRepeated
from .ledger import Ledger, compact
from .readiness import Readiness, label
from .records import INLINE, MAIN, Flight, Node
from .settling import Settling
from .states import AT_ENGINE, Cause, State

Timer = tuple[float, int, Callable[[], None]]


class Coordinator:
    """The state of one flow run. Pure: the same events at the same times give the same commands.

    Args:
        run_id: names the holders of leases.
        uniform: random numbers in 0..1, for jitter.
        prefetch: batches per slot worth having at the engine while items are short.
        first_batch_id: above those that earlier processes of this run have used.
    """

    def __init__(
        self,
        run_id: str,
        uniform: Callable[[], float],
        *,
        prefetch: int = 1,
        first_batch_id: int = 0,
    ) -> None:
        self.run_id = run_id
        self.prefetch = prefetch
        self.ledger = Ledger()
        self.readiness = Readiness(self.ledger)
        self.settling = Settling(self.ledger, self._later, uniform)
        self.slots = 0
        self.at_engine = 0  # batches at the main runner that hold a slot
        self.limits: frozenset[str] = frozenset()
        self.paused = False
        self.cancelled = ""  # the reason, once the whole run is to be cancelled
        self.over = False
        self.asking = 0  # flights that were formed and wait for the first answer about their leases
        self._next_batch = first_batch_id
        self._queue: list[tuple[int, int, int, Node]] = []  # nodes with ready items, best first
        self._inline: list[Node] = []
        self._asks: dict[tuple[str, ...], int] = {}  # by limits: flights that ask or wait for these
        self._parked: dict[
            tuple[str, ...], deque[Node]
        ] = {}  # nodes that may ask when one of these is answered
        self._timers: list[Timer] = []
        self._timer_seq = 0
        self._sizers: dict[str, Sizer] = {}

    # --- the interface --------------------------------------------------------------------------

    @property
    def nodes(self) -> dict[int, Node]:
        return self.ledger.nodes

    @property
    def flights(self) -> dict[int, Flight]:
        return self.ledger.flights

    def handle(self, event: CoreEvent, now: float) -> list[Command]:
        """Take note of a fact and return what is to be done, in order: journal entries and actions."""
        self.ledger.now = now
        self.ledger.out = []
        self._take(event)
        self._settle_down()
        return self.ledger.out

    def counted(self) -> list[Counted]:
        """Return the counts of nodes that have changed since the last call."""
        return self.ledger.counted()

    def next_timer(self) -> float | None:
        """Return when a `Tick` is due, or None."""
        return self._timers[0][0] if self._timers else None

    def story(self, node_id: int, index: int) -> list[str]:
        """Return what has happened to an item, in words."""
        return self.ledger.story.of(node_id, index)

    # --- events ---------------------------------------------------------------------------------

    def _take(self, event: CoreEvent) -> None:
        match event:
            case NodeSubmitted():
                self._add_node(event)
            case BatchFinished(table):
                flight = self._live(table.batch_id)
                if flight is not None:
                    self._land(flight)
                    self.settling.finish(flight, table)
            case BatchProgress():
                self._progress(event)
            case BatchStarted():
                self._started(event)
            case BatchLost(batch_id, reason, suspect):
                flight = self._live(batch_id)
                if flight is not None:
                    self._land(flight)
                    self.settling.lose(flight, reason, suspect=suspect)
            case BatchRejected():
                flight = self._live(event.batch_id)
                if flight is not None:
                    self._land(flight)
                    self.settling.reject(flight, event)
            case SlotsChanged(slots):
                self.slots = slots
            case LeasesAnswered():
                self._leases(event)
            case LimitsKnown(names):
                self.limits = names
            case PermitAsked():
                self._permit(event)
            case SlotLent(batch_id):
                self._lend(batch_id, 1)
            case SlotReclaimed(batch_id):
                self._lend(batch_id, -1)
            case CancelRequested():
                cancelling.cancel(self, event)
            case PauseRequested(reason):
                self._pause(reason)
            case ResumeRequested():
                self._resume()
            case RunInterrupted(reason):
                cancelling.interrupt(self, reason)
            case Tick():
                self._fire()
            case _:
                assert_never(event)

    def _settle_down(self) -> None:
        """Follow up until nothing follows: downstream of what ended, then new batches."""
        while True:
            self.readiness.spread()
            if self.readiness.newly_ready or self.settling.ready:
                for node, indices in self.readiness.newly_ready:
                    self._enqueue(node, indices)
                self.readiness.newly_ready = []
                for node, indices, alone in self.settling.ready:
                    self._enqueue(node, indices, alone=alone)
                self.settling.ready = []
            self._dispatch()
            if not self.ledger.ended:
                return

    def _add_node(self, event: NodeSubmitted) -> None:
        spec = event.spec
        sizer = self._sizers.setdefault(spec.task_name, Sizer())
        node = self.ledger.nodes[spec.node_id] = Node(spec, sizer)
        self.ledger.emit(
            NodeAdded(
                spec.node_id,
                spec.path,
                spec.task_name,
                spec.kind,
                spec.width,
                self.ledger.now,
                spec.tags,
                tuple(sorted({d.node_id for d in spec.dependencies})),
                spec.fingerprint,
                spec.described,
                spec.parent,
            )
        )
        self.readiness.connect(node)
        if self.over or self.cancelled:
            cancelling.cancel_node(self, node, self.cancelled or "the run is over")

    # --- batches at the engine ------------------------------------------------------------------

    def _live(self, batch_id: int) -> Flight | None:
        """Return a flight that has not ended. Messages about others are old: they change nothing."""
        flight = self.ledger.flights.get(batch_id)
        return None if flight is None or flight.over else flight

    def _land(self, flight: Flight) -> None:
        """A flight has ended: free its slot and its leases."""
        flight.over = True
        if flight.runner == MAIN and flight.submitted and not flight.lent:
            self.at_engine -= 1
        flight.lent = 0
        if flight.names:
            self.ledger.emit(LeasesReturned((self.holder(flight),)))

    def holder(self, flight: Flight) -> str:
        return f"{self.run_id}/batch/{flight.batch_id}"

    def _started(self, event: BatchStarted) -> None:
        flight = self.ledger.flights.get(event.batch_id)
        if flight is None or not flight.submitted:
            return
        if not flight.execution_id:
            flight.execution_id, flight.worker = event.execution_id, event.worker
        elif flight.execution_id != event.execution_id:
            self.ledger.emit(
                StartRepeated(
                    flight.node.node_id,
                    flight.batch_id,
                    flight.indices,
                    event.execution_id,
                    event.worker,
                    self.ledger.now,
                )
            )
            return
        if not flight.over:
            self._seen(flight, 1)

    def _progress(self, event: BatchProgress) -> None:
        flight = self._live(event.batch_id)
        if flight is None or not flight.submitted:
            return
        if not flight.execution_id:
            flight.execution_id, flight.worker = event.execution_id, event.worker
        if flight.execution_id != event.execution_id:
            return
        self._seen(flight, event.entry + 1)
        self.settling.log(flight, event.logs)
        for position, detail in event.details.items():
            if detail.abandoned and position not in flight.settled:
                outcome = event.outcomes[position]
                self.settling.early(flight, position, outcome, detail, event.since)

    def _seen(self, flight: Flight, started: int) -> None:
        """Items at positions below `started` are known to have started."""
        started = min(started, len(flight.indices))
        if started <= flight.seen:
            return
        states = flight.node.states
        fresh = [i for i in flight.indices[flight.seen : started] if states[i] == State.SUBMITTED]
        flight.seen = started
        self.ledger.move(flight.node, compact(fresh), Cause.STARTED)

    def _permit(self, event: PermitAsked) -> None:
        """Let an item start only in the first execution of its batch, and write that down first."""
        flight = self._live(event.batch_id)
        good = flight is not None and flight.execution_id in ("", event.execution_id)
        if good and flight is not None:
            index = flight.indices[event.entry]
            good = not flight.cancelling and flight.node.states[index] in AT_ENGINE
            flight.execution_id = event.execution_id
            if good:
                self._seen(flight, event.entry + 1)
        self.ledger.emit(AnswerPermit(event.call_id, good))

    def _lend(self, batch_id: int, change: int) -> None:
        flight = self._live(batch_id)
        if flight is None or flight.runner != MAIN:
            return
        was = flight.lent
        flight.lent = max(0, was + change)
        if bool(was) != bool(flight.lent):
            self.at_engine += 1 if was else -1

    # --- queueing and dispatch ------------------------------------------------------------------

    def _enqueue(self, node: Node, indices: Sequence[int], *, alone: bool = False) -> None:
        """Put ready items into their node's queue."""
        if self.paused:
            self.ledger.move(node, indices, Cause.PAUSED, "the run is paused")
            return
        if alone:
            for index in indices:
                node.ready.add_alone(index)
        else:
            node.ready.add(indices)
        self._queue_node(node)

    def _queue_node(self, node: Node) -> None:
        if node.queued or not len(node.ready):
            return
        if node.spec.runner == INLINE:  # its thread waits for it: no slot needed
            self._inline.append(node)
        else:
            # deeper nodes first: what has been begun is finished, and its results can go
            heapq.heappush(self._queue, (-node.policy.priority, -node.depth, node.node_id, node))
        node.queued = True

    def _dispatch(self) -> None:
        """Form batches as long as there is room for them."""
        if self.paused or self.over:
            return
        for node in self._inline:
            node.queued = False
            while len(node.ready):
                self._form(node, self._limits_of(node))
        self._inline.clear()
        while self._queue and self._room_for(node := self._queue[0][3]):
            names = self._limits_of(node) if len(node.ready) else ()
            if len(node.ready) and self._asks.get(names, 0) < max(1, self.slots):
                self._form(node, names)
                continue
            heapq.heappop(self._queue)
            node.queued = False
            if len(node.ready):  # enough of these limits is being waited for
                self._parked.setdefault(names, deque()).append(node)

    def _room_for(self, node: Node) -> bool:
        window = self.slots * (self.prefetch if node.sizer.short else 1)
        return self.at_engine + self.asking < window

    def _form(self, node: Node, names: tuple[str, ...]) -> None:
        """Take items from a node's queue and send them off, or ask for their leases first."""
        if node.ready.alone:
            size = 1
        elif node.policy.batch is not None:
            size = node.policy.batch
        elif node.spec.runner == INLINE:
            size = len(node.ready)
        else:
            remaining = len(node.ready) + node.counts[State.PENDING]
            size = node.sizer.choose(len(node.ready), remaining, self.slots)
        indices = node.ready.take(size)
        attempts = array("H", [node.attempts[i] + 1 for i in indices])
        flight = Flight(self._next_batch, node, indices, attempts, node.spec.runner, names)
        self._next_batch += 1
        self.ledger.flights[flight.batch_id] = flight
        if names:
            self._asks[names] = self._asks.get(names, 0) + 1
            self.asking += 1
            self.ledger.emit(AskLeases(flight.batch_id, names, label(node, indices[0])))
        else:
            self._submit(flight)

    def _submit(self, flight: Flight) -> None:
        node, indices = flight.node, flight.indices
        if isinstance(indices, range):
            node.attempts[indices.start : indices.stop] = flight.attempts
        else:
            for index, attempt in zip(indices, flight.attempts, strict=True):
                node.attempts[index] = attempt
        self.ledger.move(node, indices, Cause.DISPATCHED)
        flight.submitted = True
        if flight.runner == MAIN:
            self.at_engine += 1
        self.ledger.emit(
            SubmitBatch(
                flight.batch_id,
                node.node_id,
                indices,
                flight.attempts,
                flight.runner,
                DEADLINE_SECONDS if len(indices) > 1 else None,
                not node.policy.rerun_on_loss,
            )
        )

    # --- limits ---------------------------------------------------------------------------------

    def _limits_of(self, node: Node) -> tuple[str, ...]:
        """Return the limits that a batch of this node needs. What its ancestors hold, it shares."""
        names = self.limits & node.spec.tags
        if not names:
            return ()
        parent = node.spec.parent
        while parent is not None and names:
            above = self.ledger.nodes[parent[0]]
            names -= above.spec.tags
            parent = above.spec.parent
        return tuple(sorted(names))

    def _leases(self, event: LeasesAnswered) -> None:
        flight = self._live(event.batch_id)
        if flight is None or flight.submitted:
            return
        node = flight.node
        if not event.granted:
            if not flight.waits_for_limit:
                flight.waits_for_limit = True
                self.asking -= 1
                blocked = "; ".join(_blocked(name, who) for name, who in event.blocked_by.items())
                self.ledger.move(node, flight.indices, Cause.LIMIT_REACHED, blocked)
            return
        if self.paused:
            self.recall(flight, flight.indices)
            return
        self._answered(flight)
        self._submit(flight)

    def recall(self, flight: Flight, back: Sequence[int]) -> None:
        """Give up a flight that has not been submitted. Items in `back` become ready again."""
        node = flight.node
        flight.over = True
        self._answered(flight)
        self.ledger.emit(WithdrawLeases((flight.batch_id,)))
        waiting = [i for i in back if node.states[i] == State.AWAITING_LIMIT]
        self.ledger.move(node, compact(waiting), Cause.LIMIT_FREED)
        if len(back):
            self._enqueue(node, back)

    def _answered(self, flight: Flight) -> None:
        """A flight waits for its leases no longer: another one may."""
        if not flight.waits_for_limit:
            self.asking -= 1
        self._asks[flight.names] -= 1
        parked = self._parked.get(flight.names)
        if parked:
            self._queue_node(parked.popleft())
        else:
            self._queue_node(flight.node)

    # --- pause ----------------------------------------------------------------------------------

    def _pause(self, reason: str) -> None:
        self.paused = True
        for node in self.ledger.nodes.values():
            waiting = compact(sorted(node.ready))
            node.ready.clear()
            self.ledger.move(node, waiting, Cause.PAUSED, reason)
        for flight in list(self.ledger.flights.values()):
            if not flight.submitted and not flight.over:
                self.recall(flight, flight.indices)

    def _resume(self) -> None:
        self.paused = False
        for node in self.ledger.nodes.values():
            if node.counts[State.PAUSED]:
                paused = compact([i for i in range(node.width) if node.states[i] == State.PAUSED])
                self.ledger.move(node, paused, Cause.RESUMED)
                self._enqueue(node, paused)

    # --- time -----------------------------------------------------------------------------------

    def _later(self, delay: float, node: Node, indices: Sequence[int]) -> None:
        """Let items run again after a delay."""
        if delay <= 0:
            self._retry(node, indices)
        else:
            self.at(self.ledger.now + delay, lambda: self._retry(node, indices))

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Run an action with the first tick at or after `when`."""
        self._timer_seq += 1
        heapq.heappush(self._timers, (when, self._timer_seq, action))

    def _fire(self) -> None:
        while self._timers and self._timers[0][0] <= self.ledger.now:
            heapq.heappop(self._timers)[2]()

    def _retry(self, node: Node, indices: Sequence[int]) -> None:
        due = [i for i in indices if node.states[i] == State.AWAITING_RETRY]
        self.ledger.move(node, compact(due), Cause.TIMER)
        self.settling.ready.append((node, due, True))


def _blocked(name: str, holders: Sequence[str]) -> str:
    if not holders:
        return f"waits for limit {name}"
    more = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
    return f"waits for limit {name}, held by {holders[0]}{more}"
