"""What is heard of batches while they are at the engine: hints, permits, repeated starts.

Hints may be lost, repeated, late or of an execution that the engine has given up. They show that items
run; they never decide how an item ends, with one exception that the table will confirm: an item whose code
could not be stopped is settled at once, for its table may be long in coming. Its worker starts nothing more of
that batch, so that what was to follow is queued again, and is ended where the engine can do that. Likewise what was
to follow an item that still runs when the batch's deadline is over.
"""

from __future__ import annotations

from runners.messages import BatchProgress, BatchStarted, Detail, Outcome, Table

from .commands import AnswerPermit, CancelBatches
from .events import PermitAsked
from .journal import StartRepeated
from .ledger import Ledger, compact
from .overdue import Overdue, Overdues
from .records import Flight, Part, Rider
from .settling import Settling
from .stages import entry_of
from .states import Cause, State

_ENDS = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CANCELLED})


class Hearing:
    """Takes note of messages about batches."""

    def __init__(self, ledger: Ledger, settling: Settling, overdues: Overdues) -> None:
        self.ledger = ledger
        self.settling = settling
        self.overdues = overdues

    def started(self, event: BatchStarted) -> None:
        """A worker has begun a batch."""
        flight = self.ledger.flights.get(event.batch_id)
        if flight is None or not flight.submitted:
            return
        if self._is_first(flight, event.execution_id, event.worker):
            self._seen(flight, 1)
            self.overdues.heard(flight, event.at)

    def progress(self, event: BatchProgress) -> None:
        """A worker tells how far it is."""
        flight = self.ledger.flights.get(event.batch_id)
        if flight is None or not flight.submitted:
            return
        if not self._is_first(flight, event.execution_id, event.worker):
            return
        parts = flight.parts
        self._seen(flight, event.entry // len(parts) + 1)
        for rider in flight.riders:
            self._seen_riding(rider, event)
        if event.entry >= flight.entry:  # not an old one that comes late
            self.overdues.heard(flight, event.since)
        flight.entry = max(flight.entry, event.entry)
        self.settling.log(flight, event.logs)
        if event.closed and flight.node.policy.rerun_on_loss and not flight.remake:
            self.settling.give_back(flight, event.entry, "what came before it in its batch took long")
        for entry, detail in event.details.items() if not flight.remake else ():
            position, stage = divmod(entry, len(parts))
            part = parts[stage]
            if not detail.abandoned or position in part.settled or entry >= len(event.outcomes):
                continue
            outcome = event.outcomes[entry]
            if outcome in _ENDS:
                self._start(part, position, position + 1)
                self._part_with(flight, part, position, Outcome(outcome), detail, event.since)

    def _part_with(
        self, flight: Flight, part: Part, position: int, outcome: Outcome, detail: Detail, since: float
    ) -> None:
        """A batch hangs at a position: take back what follows, and have its worker ended."""
        why = "the code before it in its batch could not be stopped"
        entry = entry_of(part, position)
        if self.overdues.ends_workers:
            self.settling.give_back(flight, entry, why)
            if self.overdues.may_end(flight, part, position):
                self.overdues.end(flight, Overdue(part, position, outcome, since))
                return
        self.settling.early(part, position, outcome, detail, since)
        self.settling.give_back(flight, entry, why)
        if may_be_ended(flight):
            flight.cancelling = True
            self.ledger.emit(CancelBatches((flight.batch_id,), force=True))

    def finished(self, table: Table) -> None:
        """A table has come: was it the execution that had been heard of?"""
        flight = self.ledger.flights.get(table.batch_id)
        if (
            flight is None
            or not flight.submitted
            or table.outcomes.count(Outcome.UNSTARTED) == len(table.outcomes)
        ):
            return
        self._is_first(flight, table.execution_id, table.worker)

    def permit(self, event: PermitAsked) -> None:
        """Let an item start only once, in the first execution of its batch. The start is journalled first."""
        self.ledger.emit(AnswerPermit(event.call_id, self._may_start(event)))

    def _may_start(self, event: PermitAsked) -> bool:
        flight = self.ledger.live.get(event.batch_id)
        if flight is None or not flight.submitted or not 0 <= event.entry < len(flight.indices):
            return False
        if not self._is_first(flight, event.execution_id, flight.worker):
            return False
        if event.entry < flight.seen:  # asked again, because the answer was lost?
            return event.call_id == flight.permitted
        if flight.cancelling or event.entry in flight.settled:
            return False
        if flight.indices[event.entry] in flight.node.known.cancel_wanted:
            return False
        flight.permitted = event.call_id
        self._start(flight, event.entry, event.entry + 1)  # what it passed over needed no permit
        return True

    def _is_first(self, flight: Flight, execution_id: str, worker: str) -> bool:
        """Whether this execution is the one that counts. Others are recorded, once each."""
        if flight.execution_id == execution_id or not execution_id:
            return not flight.over
        if not flight.execution_id and not flight.over:
            flight.execution_id, flight.worker = execution_id, worker
            return True
        if execution_id not in flight.repeats:
            flight.repeats = (*flight.repeats, execution_id)
            for node in flight.nodes:
                self.ledger.emit(
                    StartRepeated(
                        node.node_id, flight.batch_id, flight.indices, execution_id, worker, self.ledger.now
                    )
                )
        return False

    def _seen(self, flight: Flight, started: int) -> None:
        """Items at positions below `started` are known to have started."""
        if not flight.node.policy.rerun_on_loss:
            return  # they start when they have their permit, not before
        self._start(flight, flight.seen, started)

    def _seen_riding(self, rider: Rider, event: BatchProgress) -> None:
        """Items of a later stage have started if they have ended, or run now."""
        flight, stride = rider.flight, len(rider.flight.riders) + 1
        first, last = flight.entry // stride, event.entry // stride  # positions
        ended = event.outcomes[first * stride + rider.stage : last * stride : stride]
        if Outcome.UNSTARTED not in ended:
            self._start(rider, first, first + len(ended))
        else:
            for place, outcome in enumerate(ended):
                if outcome != Outcome.UNSTARTED:
                    self._start(rider, first + place, first + place + 1)
        if event.entry >= last * stride + rider.stage:
            entry = last * stride + rider.stage
            if event.entry == entry or event.outcomes[entry : entry + 1] > b"\0":
                self._start(rider, last, last + 1)

    def _start(self, part: Part, first: int, last: int) -> None:
        """Items of a part, from position `first` to before `last`, have started."""
        last = min(last, len(part.indices))
        if isinstance(part, Flight):
            part.seen = max(part.seen, last)
        states, settled, indices = part.node.states, part.settled, part.indices[first:last]
        if not settled and isinstance(indices, range):
            there = states[indices.start : indices.stop]
            if there.count(State.SUBMITTED) == len(indices):  # almost always
                self.ledger.move(part.node, indices, Cause.STARTED, worker=part.worker)
                return
        fresh = [
            index
            for p, index in enumerate(indices, first)
            if p not in settled and states[index] == State.SUBMITTED
        ]
        self.ledger.move(part.node, compact(sorted(fresh)), Cause.STARTED, worker=part.worker)


def may_be_ended(flight: Flight) -> bool:
    """Whether a batch may be lost with its worker: all of it that has no end yet may run again."""
    return all(part.node.policy.rerun_on_loss or not part.open_positions() for part in flight.parts)
