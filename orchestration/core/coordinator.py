"""The coordinator: every event that may happen to a run, and what follows from it.

1. `handle` is the only way that run state changes; the same events at the same times give the same commands.
2. Each task run reaches one terminal state, by `Ledger.move` along the transition table, and keeps it.
3. Messages of batches that have ended change nothing: at most they are recorded as a repeated start.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

from runners.messages import (
    BatchFinished,
    BatchLost,
    BatchProgress,
    BatchRejected,
    BatchStarted,
    ResultsLost,
    SlotsChanged,
    Table,
)

from . import cancelling
from .batching import SHORT_SECONDS, Lesson, Sizer
from .calling import Calls
from .commands import Command, WithdrawLeases
from .dispatching import Dispatcher
from .events import (
    CancelRequested,
    CoreEvent,
    FilesLost,
    FusionRefused,
    FuturesDropped,
    LeasesAnswered,
    LengthsLearned,
    LimitsKnown,
    NodeSubmitted,
    PauseRequested,
    PermitAsked,
    ResultsWanted,
    ResumeRequested,
    RunInterrupted,
    SlotLent,
    SlotReclaimed,
    Tick,
)
from .fitting import MISFIT, progress_fits, table_fits
from .hearing import Hearing
from .journal import Counted, LeasesReturned, NodeAdded
from .ledger import Ledger, compact, positions_in
from .overdue import Overdues
from .readiness import Readiness
from .records import Flight, Node
from .releasing import Releasing
from .remade import Remade
from .remaking import Remaking
from .settling import Settling
from .specs import NodeSpec
from .states import Cause, State

Timer = tuple[float, int, Callable[[], None]]

_PAUSED = frozenset({State.PAUSED})


class Coordinator:
    """The state of one flow run. Pure: the same events at the same times give the same commands.

    Args:
        run_id: names the holders of leases.
        uniform: random numbers in 0..1, for jitter.
        prefetch: batches per slot worth having at the engine while items are short.
        first_batch_id: above those that earlier processes of this run have used.
        lessons: what earlier runs have taught of the time that tasks take, by task name.
        ends_workers: whether the runner ends a worker whose code does not stop, as a rule.
    """

    def __init__(
        self,
        run_id: str,
        uniform: Callable[[], float],
        *,
        prefetch: int = 1,
        first_batch_id: int = 0,
        lessons: Mapping[str, Lesson] | None = None,
        ends_workers: bool = False,
    ) -> None:
        self.run_id = run_id
        self.cancelled = ""  # the reason, once the whole run is to be cancelled
        self.over = False
        self.ledger = Ledger()
        self.releasing = Releasing(self.ledger)
        self.readiness = Readiness(self.ledger, self.releasing)
        self.settling = Settling(self.ledger, self._later, uniform)
        self.remaking = Remaking(self.ledger, self.releasing, self._may_run)
        self.settling.starve, self.settling.lacks = self.remaking.starve, self.remaking.lacks
        self.readiness.on_end = self.remaking.ended
        self.remade = Remade(self.settling, self.remaking, self.at, uniform)
        self.overdues = Overdues(self.ledger, self.settling, self.at)
        self.overdues.ends_workers = ends_workers
        self.hearing = Hearing(self.ledger, self.settling, self.overdues)
        self.dispatcher = Dispatcher(self.ledger, self.remaking, prefetch, first_batch_id)
        self.calls = Calls(self.ledger, self.readiness, self.settling, self.dispatcher, self._end)
        self._timers: list[Timer] = []
        self._timer_seq = 0
        self._lessons = lessons or {}
        self._sizers: dict[str, Sizer] = {}

    # --- the interface --------------------------------------------------------------------------

    def is_short(self, spec: NodeSpec) -> bool:
        """Whether items of this task are known to gain from sharing batches with what follows them."""
        sizer = self._sizers.get(spec.task_name)
        lesson = self._lessons.get(spec.task_name) if sizer is None else sizer.lesson
        return lesson is not None and lesson.seconds < SHORT_SECONDS

    def lessons(self) -> dict[str, Lesson]:
        """Return what this run has taught of the time that tasks take, by task name."""
        return {name: sizer.lesson for name, sizer in self._sizers.items() if sizer.lesson is not None}

    @property
    def nodes(self) -> dict[int, Node]:
        return self.ledger.nodes

    @property
    def flights(self) -> dict[int, Flight]:
        """All batches of the run, the ended ones too."""
        return self.ledger.flights

    @property
    def slots(self) -> int:
        return self.dispatcher.slots

    @property
    def at_engine(self) -> int:
        """Number of batches at the main runner that hold a slot."""
        return self.dispatcher.at_engine

    @property
    def asking(self) -> int:
        """Number of batches that wait for the first answer about their leases."""
        return self.dispatcher.asking

    @property
    def limits(self) -> frozenset[str]:
        return self.dispatcher.limits

    @property
    def paused(self) -> bool:
        return self.dispatcher.paused

    def handle(self, event: CoreEvent, now: float) -> list[Command]:
        """Take note of a fact and return what is to be done, in order: journal entries and actions."""
        return self.handle_all((event,), now)

    def handle_all(self, events: Sequence[CoreEvent], now: float) -> list[Command]:
        """Do the same with all facts of a turn. Batches are formed once, knowing all of them."""
        self.ledger.now = now
        self.ledger.out = []
        for event in _without_echoes(events):
            self._take(event)
            self._spread()
        self._follow_up()
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

    def holder(self, flight: Flight) -> str:
        """Return what names a batch as the holder of leases."""
        return f"{self.run_id}/batch/{flight.batch_id}"

    # --- events ---------------------------------------------------------------------------------

    def _take(self, event: CoreEvent) -> None:
        match event:
            case NodeSubmitted():
                self._add_node(event)
            case BatchFinished(table):
                self._finish(table)
            case BatchProgress():
                live = self.ledger.live.get(event.batch_id)
                if live is None or progress_fits(live, event):
                    self.hearing.progress(event)
                    if live is not None:
                        cancelling.look_again(self, live)
            case BatchStarted():
                self.hearing.started(event)
            case BatchLost(batch_id, reason, suspect):
                self._end(batch_id, lambda flight: self._lose(flight, reason, suspect=suspect))
            case ResultsLost(batch_ids, reason):
                self._lose_results(batch_ids, reason)
            case FilesLost(node_id, urls, reason):
                self._take_apart(self.remaking.unstored(self.nodes[node_id], urls, reason))
            case ResultsWanted(node_id, indices):
                self._want_results(self.nodes[node_id], indices)
            case FuturesDropped(node_id):
                if node_id in self.nodes:
                    self.releasing.dropped(self.nodes[node_id])
            case LengthsLearned(node_id, lengths):
                node = self.nodes[node_id]
                for index, length in lengths.items():
                    node.facts.lengths.put(index, length, node.width)
            case FusionRefused(batch_id):
                flight = self.ledger.live.get(batch_id)
                if flight is not None:
                    self.settling.leave_riders(flight)
            case BatchRejected(batch_id):
                self._end(batch_id, lambda flight: self._ends(flight).reject(flight, event))
            case SlotsChanged(slots):
                self.dispatcher.set_slots(slots)
            case LeasesAnswered():
                self._leases(event)
            case LimitsKnown(names):
                self.dispatcher.know_limits(names)
            case PermitAsked():
                self.hearing.permit(event)
            case SlotLent(batch_id):
                self._lend(batch_id, 1)
            case SlotReclaimed(batch_id):
                self._lend(batch_id, -1)
            case CancelRequested():
                cancelling.cancel(self, event)
            case PauseRequested(reason):
                self.dispatcher.pause(reason)
            case ResumeRequested():
                self._resume()
            case RunInterrupted(reason, type_name):
                cancelling.interrupt(self, reason, type_name)
            case Tick():
                self._fire()
            case _:
                assert_never(event)

    def _follow_up(self) -> None:
        """Do what follows: downstream of what ended, then new batches. What these hold back may end others."""
        self._spread()
        while not self.over:
            self.dispatcher.dispatch()
            if not (self.ledger.ended or self.settling.ready or self.dispatcher.may_remake):
                break
            self._spread()
        self.remaking.settle()

    def _spread(self) -> None:
        """Tell downstream of what ended, and queue what may run."""
        verdicts, settling = self.readiness.verdicts, self.settling
        self.readiness.spread()
        if verdicts.newly_ready or settling.ready:
            ready = verdicts.newly_ready + settling.ready
            verdicts.newly_ready, settling.ready = [], []
            for node, indices in ready:
                self.dispatcher.enqueue(node, indices)

    def _add_node(self, event: NodeSubmitted) -> None:
        spec = event.spec
        for dependency in spec.dependencies:
            if dependency.node_id not in self.ledger.nodes:
                raise ValueError(
                    f"{spec.path} depends on node {dependency.node_id}, which is not known (yet)"
                )
        sizer = self._sizers.get(spec.task_name)
        if sizer is None:
            sizer = self._sizers[spec.task_name] = Sizer(self._lessons.get(spec.task_name))
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
        self.dispatcher.turns.added(node)
        if self.over or self.cancelled:
            self._spread()
            cancelling.cancel_node(self, node, self.cancelled or "the run is over")
        elif not self.calls.note(node):
            self._spread()
            self.calls.give_up(node)

    # --- batches --------------------------------------------------------------------------------

    def _end(self, batch_id: int, settle: Callable[[Flight], None]) -> None:
        """Act on the end of a flight, unless it has ended before."""
        flight = self.ledger.live.get(batch_id)
        if flight is None or not flight.submitted:
            return
        self.dispatcher.land(flight)
        if flight.names:
            self.ledger.emit(LeasesReturned((self.holder(flight),)))
        settle(flight)
        self.calls.end_with(flight)
        flight.shrink()

    def _lose(self, flight: Flight, reason: str, *, suspect: bool) -> None:
        self.overdues.lost(flight)
        self._ends(flight).lose(flight, reason, suspect=suspect)

    def _finish(self, table: Table) -> None:
        """Act on a table. One that cannot be about its batch is no record: the batch is lost."""
        live = self.ledger.live.get(table.batch_id)
        if live is not None and not table_fits(live, table):
            self._end(table.batch_id, lambda flight: self._ends(flight).lose(flight, MISFIT, suspect=True))
            return
        self.overdues.finished(table.batch_id)
        self.hearing.finished(table)
        if table.missing:
            self._lose_results(table.missing, _first_words(table))
        if table.missing_files and live is not None:
            self._lose_files(live, frozenset(table.missing_files), _first_words(table))
        self._end(table.batch_id, lambda flight: self._ends(flight).finish(flight, table))

    def _ends(self, flight: Flight) -> Settling | Remade:
        """Return what acts on a flight's end."""
        return self.remade if flight.remake else self.settling

    def _lose_results(self, batch_ids: Sequence[int], reason: str) -> None:
        """Results are gone from the engine."""
        self._take_apart(self.remaking.lost(batch_ids, reason))

    def _lose_files(self, reader: Flight, urls: frozenset[str], reason: str) -> None:
        """Files are gone that a batch was to read."""
        for up in {edge.up.node_id: edge.up for node in reader.nodes for edge in node.ins}.values():
            self._take_apart(self.remaking.unstored(up, urls, reason))

    def _take_apart(self, flights: Sequence[Flight]) -> None:
        """Recall batches that would read what is gone and have not been sent yet."""
        for flight in flights:
            self.dispatcher.recall(flight, flight.indices)

    def _want_results(self, node: Node, indices: Sequence[int]) -> None:
        if self.over or self.cancelled:
            self.remaking.give_up(
                node, [i for i in indices if node.gone(i)], self.cancelled or "the run is over"
            )
        else:
            self.remaking.want(node, indices)

    def _may_run(self, node: Node, indices: Sequence[int]) -> None:
        self.settling.ready.append((node, indices))

    def _lend(self, batch_id: int, change: int) -> None:
        flight = self.ledger.live.get(batch_id)
        carrier = None if flight is None else self.calls.carrier(flight)
        if carrier is not None:
            for part in carrier.parts:  # which of them waits is not told
                part.node.sizer.waits = True
            self.dispatcher.lend(carrier, change)

    def _leases(self, event: LeasesAnswered) -> None:
        flight = self.ledger.live.get(event.batch_id)
        if flight is None:
            if event.granted:  # the answer has crossed with the withdrawal
                self.ledger.emit(WithdrawLeases((event.batch_id,)))
        elif not flight.submitted:
            self.dispatcher.answered(flight, event)

    def _resume(self) -> None:
        self.dispatcher.paused = False
        for node in self.ledger.nodes.values():
            if node.counts[State.PAUSED]:
                paused = positions_in(node.states, _PAUSED)
                self.ledger.move(node, paused, Cause.RESUMED)
                self.dispatcher.enqueue(node, paused)

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
        due = compact(sorted(i for i in indices if node.states[i] == State.AWAITING_RETRY))
        self.ledger.move(node, due, Cause.TIMER)
        if len(due):
            self.settling.ready.append((node, due))


def _first_words(table: Table) -> str:
    """Return what a table says of the first input that was missing."""
    return next((detail.message for detail in table.details.values() if detail.message), "it was not there")


def _without_echoes(events: Sequence[CoreEvent]) -> Sequence[CoreEvent]:
    """Leave out hints that a batch has begun where the same execution's table is among the events: it tells more."""
    over = {
        event.table.batch_id: event.table.execution_id for event in events if type(event) is BatchFinished
    }
    if not over:
        return events
    return [e for e in events if type(e) is not BatchStarted or over.get(e.batch_id) != e.execution_id]
