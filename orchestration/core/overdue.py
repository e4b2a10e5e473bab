"""Items that are out of time and do not react: their workers are ended.

A worker interrupts its items itself, and tells when one does not stop. Code in C that holds the interpreter keeps it
from doing either: it falls silent. While it works it says so every second or so (`runners.execution`), so what has said
nothing for longer than its items may take, and some seconds, hangs in one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runners.messages import Outcome, unstopped_detail

from .commands import CancelBatches
from .ledger import Ledger
from .records import Flight, Part
from .settling import Settling
from .stages import entry_of
from .states import State

SILENT_SECONDS = 6.0  # beyond the timeout, until a worker that says nothing counts as hanging
LOOK_SECONDS = 1.0
ENDING_SECONDS = 5.0  # for a worker to be ended and its end to be seen; then the code counts as abandoned


@dataclass(frozen=True, slots=True)
class Overdue:
    """An item that did not react, whose worker is being ended."""

    part: Part
    position: int
    outcome: Outcome
    since: float


class Overdues:
    """Watches batches whose items have timeouts, and ends the workers of items that do not react.

    Attributes:
        ends_workers: whether the runner can, as a rule.
    """

    def __init__(
        self, ledger: Ledger, settling: Settling, at: Callable[[float, Callable[[], None]], None]
    ) -> None:
        self.ledger = ledger
        self.settling = settling
        self.ends_workers = False
        self._at = at
        self._heard: dict[int, tuple[float, float]] = {}  # by batch: when, and since when its item runs
        self._looking = False
        self._overdue: dict[int, Overdue] = {}  # by batch

    # --- silence --------------------------------------------------------------------------------

    def heard(self, flight: Flight, since: float) -> None:
        """Something was heard of a batch, whose current item runs since then."""
        if flight.remake or flight.cancelling or _longest(flight) is None:
            return
        self._heard[flight.batch_id] = self.ledger.now, since
        if not self._looking:
            self._looking = True
            self._at(self.ledger.now + LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Find batches that have been silent for too long."""
        for batch_id, (heard, since) in list(self._heard.items()):
            flight = self.ledger.live.get(batch_id)
            longest = None if flight is None or flight.cancelling else _longest(flight)
            if flight is None or longest is None:
                del self._heard[batch_id]
            elif self.ledger.now - heard > longest + SILENT_SECONDS:
                del self._heard[batch_id]
                self._hangs(flight, since)
        self._looking = bool(self._heard)
        if self._looking:
            self._at(self.ledger.now + LOOK_SECONDS, self._look)

    def _hangs(self, flight: Flight, since: float) -> None:
        """A worker is silent. Which of several items is to blame shows when each runs alone, after the loss."""
        suspects = [
            (part, position)
            for part in flight.parts
            for position in part.open_positions()
            if entry_of(part, position) >= flight.entry
        ]
        if len(suspects) == 1:
            (part, position) = suspects[0]
            if part.node.states[part.indices[position]] != State.RUNNING:
                return  # it waits for its permit
            if self.may_end(flight, part, position):
                self.end(flight, Overdue(part, position, Outcome.TIMED_OUT, since))
            else:
                self._settle(Overdue(part, position, Outcome.TIMED_OUT, since), ended=False)
        elif suspects and self.ends_workers and all(part.node.policy.rerun_on_loss for part in flight.parts):
            self._end_worker(flight)

    # --- ending ---------------------------------------------------------------------------------

    def may_end(self, flight: Flight, part: Part, position: int) -> bool:
        """Whether the worker of an item may be ended: all else in its batch that has no end yet may run again."""
        return self.ends_workers and all(
            each.node.policy.rerun_on_loss
            or all(each is part and p == position for p in each.open_positions())
            for each in flight.parts
        )

    def end(self, flight: Flight, overdue: Overdue) -> None:
        """Have a worker ended. How its item ended is settled when the worker is gone."""
        self._overdue[flight.batch_id] = overdue
        self._end_worker(flight)
        self._at(self.ledger.now + ENDING_SECONDS, lambda: self._give_up(flight))

    def lost(self, flight: Flight) -> None:
        """A batch is lost: the worker of an overdue item has been ended."""
        overdue = self._overdue.pop(flight.batch_id, None)
        if overdue is not None:
            self._settle(overdue, ended=True)

    def finished(self, batch_id: int) -> None:
        """A table has come: it tells how an overdue item ended."""
        self._overdue.pop(batch_id, None)

    def _end_worker(self, flight: Flight) -> None:
        flight.cancelling = True
        self.ledger.emit(CancelBatches((flight.batch_id,), force=True))

    def _give_up(self, flight: Flight) -> None:
        """The worker could not be ended: the item has come to its end all the same."""
        overdue = self._overdue.pop(flight.batch_id, None)
        if overdue is not None and not flight.over:
            self._settle(overdue, ended=False)

    def _settle(self, overdue: Overdue, *, ended: bool) -> None:
        part, position, outcome = overdue.part, overdue.position, overdue.outcome
        if position in part.settled:
            return
        timeout = part.node.policy.timeout_seconds if outcome is Outcome.TIMED_OUT else None
        detail = unstopped_detail(timeout, ended=ended)
        self.settling.early(part, position, outcome, detail, overdue.since)


def _longest(flight: Flight) -> float | None:
    """Return the longest time that an item of a batch may take; None if one may take any."""
    timeouts = [part.node.policy.timeout_seconds for part in flight.parts]
    return max((t for t in timeouts if t is not None), default=None) if None not in timeouts else None
