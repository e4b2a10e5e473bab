"""What becomes of items when their batch ends: by table, by loss, by rejection, or item by item before.

Items are grouped by what happens to them, so that a batch gives a handful of transitions and entries.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence

from runners.messages import BatchRejected, Detail, LogLine, Outcome, Stored, Table

from .journal import LOST, AttemptsEnded, LogWritten
from .ledger import Ledger, compact
from .outcomes import PLAIN, cause_of, retry_delay
from .records import Flight, Node, Part
from .retry import QUEUE_LOSSES, charge_loss
from .stages import entry_of, observe, of_stage, stage_seconds
from .states import TABLE, TERMINAL, Cause, State

WARNING = 30  # a level of `logging`
_DONE = bytes([Outcome.COMPLETED])
_PLACES = array("i", range(10_000))

Later = Callable[[float, Node, Sequence[int]], None]  # (delay in seconds, node, items)
Ends = dict[tuple[Cause, str], list[int]]  # cause and reason -> positions


class Settling:
    """Turns tables and losses into transitions and journal entries."""

    def __init__(self, ledger: Ledger, later: Later, uniform: Callable[[], float]) -> None:
        self.ledger = ledger
        self.later = later
        self.uniform = uniform  # random numbers in 0..1
        self.ready: list[tuple[Node, Sequence[int]]] = []  # items to queue again
        self.starve: Callable[[Node, Sequence[int]], None]  # takes items that read what is gone
        self.lacks: Callable[[Node, Sequence[int]], bool]

    # --- the ways in which batches end ----------------------------------------------------------

    def finish(self, flight: Flight, table: Table) -> None:
        """Act on a batch's table."""
        self.log(flight, table.logs)
        parts = flight.parts
        each_seconds = stage_seconds(table, len(parts))
        observe(parts, table, each_seconds)
        for part in parts:
            self._finish(part, of_stage(table, part.stage, each_seconds))

    def _finish(self, part: Part, table: Table) -> None:
        node, indices = part.node, part.indices
        if table.names:
            node.facts.run_names.update({indices[p]: name for p, name in table.names.items()})
        if table.lengths:
            lengths, width = node.facts.lengths, node.width
            for position, length in table.lengths.items():
                lengths.put(indices[position], length, width)
        if table.outcomes.count(_DONE) == len(indices) and not part.settled:
            self._all_completed(part, table)
        else:
            self._mixed(part, table)

    def early(self, part: Part, position: int, outcome: int, detail: Detail, started: float) -> None:
        """Act on an item's end that is certain before its batch has ended. What was to come after it gets off."""
        for rider in part.flight.riders[part.stage :]:
            if position not in rider.settled:
                self._return(rider, (position,), "")
                rider.settle((position,))
        cause, reason = cause_of(part, position, Outcome(outcome), detail.message, detail.retriable)
        part.settle((position,))
        self.record(
            part,
            (position,),
            bytes([outcome]),
            (cause,),
            details={0: detail},
            started=array("d", [started]),
            durations=array("d", [max(0.0, self.ledger.now - started)]),
        )
        self._apply(part, {(cause, reason): [position]}, {position: detail}, {position: outcome})

    def give_back(self, flight: Flight, entry: int, reason: str) -> None:
        """What comes after an entry will not be started in this batch: it is queued again, unless cancelled."""
        for part in flight.parts:
            wanted = part.node.known.cancel_wanted
            rest = [p for p in part.open_positions() if entry_of(part, p) > entry]
            dropped: dict[str, list[int]] = {}
            for place in rest:
                if (index := part.indices[place]) in wanted:
                    dropped.setdefault(wanted[index], []).append(place)
            self._return(part, [p for p in rest if part.indices[p] not in wanted], reason)
            self._drop(part, dropped)
            part.settle(rest)

    def leave_riders(self, flight: Flight) -> None:
        """What was to ride in a batch has not been sent along."""
        for rider in flight.riders:
            self._return(rider, rider.open_positions(), "")
            del rider.node.flights[flight.batch_id]
        flight.riders = ()

    def reject(self, flight: Flight, event: BatchRejected) -> None:
        """The engine can never run this batch."""
        self._get_off(flight, "")
        open_, detail = flight.open_positions(), event.detail
        n = len(open_)
        details = dict.fromkeys(range(n), detail)
        self.record(flight, open_, bytes([Outcome.FAILED]) * n, (Cause.FAILED,) * n, details=details)
        self._apply(flight, {(Cause.FAILED, detail.message): list(open_)}, dict.fromkeys(open_, detail))

    def lose(self, flight: Flight, reason: str, *, suspect: bool) -> None:
        """No table will come: find out what has started, charge for it, and run the rest again."""
        self._get_off(flight, reason)
        # what ran on the dead worker had begun its first item, whether or not we were told
        least = 1 if suspect and flight.node.policy.rerun_on_loss else 0
        self._lose_part(flight, max(flight.seen, least).__gt__, reason, suspect=suspect)

    def _get_off(self, flight: Flight, reason: str) -> None:
        """A batch is lost or was never sent: its riders wait or queue again. Those that ran pay for it."""
        for rider in flight.riders:
            self._lose_part(rider, _running(rider), reason, suspect=True)

    def _lose_part(self, part: Part, started: Callable[[int], bool], reason: str, *, suspect: bool) -> None:
        """Charge items for the loss of their batch, by position, and run those again that may."""
        node, wanted = part.node, part.node.known.cancel_wanted
        free: list[int] = []
        dropped: dict[str, list[int]] = {}
        ends: Ends = {}
        open_ = part.open_positions()
        flight = part.flight
        last = flight.seen - 1  # it began last of those that are known to have begun: the others have ended
        company = max(len(open_), len(flight.parts))  # items of a map, or pooled ones
        for position in open_:
            index, begun = part.indices[position], started(position)
            if index in wanted:
                if not begun:
                    dropped.setdefault(wanted[index], []).append(position)
                    continue
                ends.setdefault((Cause.CANCELLED, f"{wanted[index]}; {reason}"), []).append(position)
                continue
            if part.follows and not begun:  # what it rides behind pays
                free.append(position)
                continue
            again = charge_loss(
                node.budget(index),
                node.policy,
                started=begun,
                suspect=suspect,
                company=company,
                ended=position < last or entry_of(part, position) < flight.entry,
            )
            if again is None:
                free.append(position)
                continue
            cause = _lost(part) if again else Cause.LOST_FOR_GOOD
            ends.setdefault((cause, reason), []).append(position)
        self._return(part, free, reason)
        self._drop(part, dropped)
        self._end_as_lost(part, ends, reason)

    def end_without_table(
        self, flight: Flight, cause: Cause, message: str, type_name: str = "runners.errors.TaskCancelledError"
    ) -> None:
        """End the open items of a batch whose table will not be waited for: their code may still run."""
        if flight.remake:
            return
        detail = Detail(type_name, message, abandoned=True)
        for part in flight.parts:
            open_ = part.open_positions()
            n = len(open_)
            details = dict.fromkeys(range(n), detail)
            self.record(part, open_, bytes([Outcome.CANCELLED]) * n, (cause,) * n, details=details)
            self._apply(part, {(cause, message): list(open_)}, dict.fromkeys(open_, detail))
            part.settle(open_)

    def abandon(self, flight: Flight, message: str) -> None:
        """Give up a batch that does not stop. What was to be cancelled is; what else was fused with it runs again."""
        if flight.riders:
            for part in flight.parts:
                wanted, running = part.node.known.cancel_wanted, _running(part)
                ran: list[int] = []
                waited: list[int] = []
                for position in part.open_positions():
                    if part.indices[position] not in wanted:
                        (ran if not part.stage or running(position) else waited).append(position)
                self._return(part, waited, message)
                self._end_as_lost(part, {(_lost(part), message): ran} if ran else {}, message)
                part.settle(ran + waited)
        self.end_without_table(flight, Cause.CANCELLED, message)

    def log(self, flight: Flight, lines: Sequence[LogLine]) -> None:
        """Journal log lines that have not been journalled yet."""
        new = [line for line in lines if line.seq >= flight.log_seen] if lines else None
        if not new:
            return
        flight.log_seen = new[-1].seq + 1
        for part in flight.parts:
            own = new if not flight.riders else [line for line in new if line.stage == part.stage]
            if own:
                self.ledger.emit(
                    LogWritten(
                        part.node.node_id,
                        [part.indices[line.position] for line in own],
                        [part.attempts[line.position] for line in own],
                        own,
                    )
                )

    # --- the common case ------------------------------------------------------------------------

    def _all_completed(self, part: Part, table: Table) -> None:
        node, indices, n = part.node, part.indices, len(part.indices)
        zero, stored = table.started, table.stored[0] if table.stored else None
        self.locate(part, range(n), stored)
        self.ledger.emit(
            AttemptsEnded(
                node.node_id,
                part.batch_id,
                table.execution_id,
                table.worker,
                self.ledger.now,
                indices,
                part.attempts,
                table.outcomes,
                bytes([State.COMPLETED]) * n,
                array("d", [zero + offset for offset in table.offsets]),
                table.durations,
                range(n),
                names=table.names,
                stored=stored,
                lengths=table.lengths if stored is not None else {},
                submitted_at=part.submitted_at,
                cpu_seconds=table.cpu_seconds,
            )
        )
        self.ledger.move(node, indices, Cause.COMPLETED)

    def locate(self, part: Part, positions: Sequence[int], stored: Stored | None) -> None:
        """Note where the results of completed items are: in which batch last, since other threads go by that."""
        node, indices, n = part.node, part.indices, len(positions)
        if not n:
            return
        part.flight.keepers += 1
        if stored is not None:
            node.facts.files[part.batch_id] = stored
        if part.stage:
            node.facts.stages[part.batch_id] = part.stage
        if isinstance(indices, range) and n == len(indices):
            places = _PLACES[:n] if n <= len(_PLACES) else array("i", range(n))
            node.positions[indices.start : indices.stop] = places
            node.batches[indices.start : indices.stop] = array("i", [part.batch_id]) * n
        else:
            for position in positions:
                node.positions[indices[position]] = position
                node.batches[indices[position]] = part.batch_id

    # --- all other cases ------------------------------------------------------------------------

    def _mixed(self, part: Part, table: Table) -> None:
        """Act on a table in which items ended in different ways, or some had been acted upon before."""
        ended: list[int] = []
        causes: list[Cause] = []
        returned: dict[str, list[int]] = {}
        located: list[int] = []
        starved: list[int] = []
        dropped: dict[str, list[int]] = {}
        ends: Ends = {}
        outcomes, details = table.outcomes, table.details
        for position in part.open_positions():
            outcome, detail = Outcome(outcomes[position]), details.get(position)
            if outcome is Outcome.INPUT_LOST and self._may_wait(part, position, table):
                starved.append(position)
                continue
            if detail is None and outcome in PLAIN:
                cause, reason = PLAIN[outcome], ""
            else:
                message, retriable = ("", True) if detail is None else (detail.message, detail.retriable)
                cause, reason = cause_of(part, position, outcome, message, retriable)
            if cause is Cause.RETURNED:
                returned.setdefault(reason, []).append(position)
                continue
            if cause is Cause.LOST:
                cause = _lost(part)
            if cause is Cause.CANCELLED and outcome is not Outcome.CANCELLED:
                dropped.setdefault(reason, []).append(position)
                continue
            if cause is Cause.COMPLETED:
                located.append(position)
            ended.append(position)
            causes.append(cause)
            ends.setdefault((cause, reason), []).append(position)
        self.locate(part, located, table.stored[0] if table.stored else None)
        self.record(
            part,
            ended,
            bytes(outcomes[p] for p in ended),
            causes,
            table=table,
            details={k: details[p] for k, p in enumerate(ended) if p in details} if details else None,
        )
        self._apply(part, ends, details, outcomes)
        self._drop(part, dropped)
        for reason, positions in returned.items():
            part.node.sizer.waits |= bool(reason)
            self._return(part, positions, reason)
        self._starve(part, starved)

    def _may_wait(self, part: Part, position: int, table: Table) -> bool:
        """Whether an item whose inputs were lost may wait for them at no charge. Not for ever, if they are there."""
        node, index = part.node, part.indices[position]
        if index in node.known.cancel_wanted:
            return False
        if not part.follows and self.lacks(node, (index,)):
            return True
        if not (table.missing or table.missing_files):
            return False
        spent = node.budget(index)
        spent.queue_losses += 1
        return spent.queue_losses <= QUEUE_LOSSES

    def _starve(self, part: Part, positions: Sequence[int]) -> None:
        """Items could not read their inputs: they wait until these are there again. Their attempt is not spent."""
        lacking = [p for p in positions if not part.follows and self.lacks(part.node, (part.indices[p],))]
        if lacking:
            self.starve(part.node, self._unspend(part, lacking))
        self._return(part, [p for p in positions if p not in lacking], "an input was lost")

    def _apply(
        self,
        part: Part,
        ends: Ends,
        details: Mapping[int, Detail],
        outcomes: Mapping[int, int] | bytes = b"",
    ) -> None:
        """Move items whose attempt has ended, by cause; the attempts have been recorded."""
        node = part.node
        by_cause: dict[Cause, list[int]] = {}
        for (cause, _), positions in ends.items():
            by_cause.setdefault(cause, []).extend(positions)
        for cause, positions in by_cause.items():
            indices = compact(sorted([part.indices[p] for p in positions]))
            self.ledger.move(node, indices, cause, told=True)
            if details and TABLE[cause][1] in TERMINAL:
                told = {part.indices[p]: details[p] for p in positions if p in details}
                node.facts.details.update(told)
            if outcomes and cause in _NAMED:
                self._name(part, positions, outcomes)
            if cause is Cause.WILL_RETRY:
                self._schedule(part, positions, details)
            elif cause is Cause.LOST:
                self.later(0.0, node, indices)
        for (cause, reason), positions in ends.items():
            if reason and TABLE[cause][1] in TERMINAL:
                node.facts.reasons.put([part.indices[p] for p in positions], reason, node.width)

    def _name(self, part: Part, positions: Iterable[int], outcomes: Mapping[int, int] | bytes) -> None:
        node = part.node
        for outcome, name in ((Outcome.CACHED, "Cached"), (Outcome.TIMED_OUT, "TimedOut")):
            named = [part.indices[p] for p in positions if outcomes[p] == outcome]
            if named:
                node.facts.names.put(named, name, node.width)

    def _schedule(self, part: Part, positions: Iterable[int], details: Mapping[int, Detail]) -> None:
        """Let items that failed run again, each after its delay."""
        node = part.node
        due: dict[float, list[int]] = {}
        for position in positions:
            index = part.indices[position]
            delay, complaint = retry_delay(node, index, details.get(position), self.uniform)
            due.setdefault(delay, []).append(index)
            if complaint:
                self._complain(node, index, complaint)
        for delay, indices in due.items():
            self.later(delay, node, indices)

    def _complain(self, node: Node, index: int, words: str) -> None:
        """Put a warning into the log of an item's attempt."""
        line = LogLine(0, 0, 0, self.ledger.now, WARNING, "millrace", words)
        self.ledger.emit(LogWritten(node.node_id, [index], [node.attempts[index]], [line]))

    def _return(self, part: Part, positions: Sequence[int], reason: str) -> None:
        """Items that have not started go back into the queue; their attempt is not spent."""
        if not len(positions):
            return
        node = part.node
        indices = self._unspend(part, positions)
        if part.follows:
            self.ledger.move(node, indices, Cause.WAITS_AGAIN, reason)
        else:
            self.ledger.move(node, indices, Cause.RETURNED, reason)
            self.ready.append((node, indices))

    def _drop(self, part: Part, dropped: Mapping[str, Sequence[int]]) -> None:
        """Items that have not started and never will: cancelled meanwhile, for these reasons."""
        for reason, positions in dropped.items():
            self.ledger.move(part.node, self._unspend(part, positions), Cause.CANCELLED, reason)

    def _unspend(self, part: Part, positions: Sequence[int]) -> Sequence[int]:
        indices = compact(sorted(part.indices[p] for p in positions))
        attempts = part.node.attempts
        for index in indices:
            attempts[index] -= 1
        return indices

    def _end_as_lost(self, part: Part, ends: Ends, reason: str) -> None:
        positions = sorted(p for members in ends.values() for p in members)
        cause_at = {p: cause for (cause, _), members in ends.items() for p in members}
        self.record(
            part,
            positions,
            bytes([LOST]) * len(positions),
            [cause_at[p] for p in positions],
            reason=reason,
        )
        detail = Detail("orchestration.errors.CrashedRunError", reason)
        gone = ends.get((Cause.LOST_FOR_GOOD, reason), ())
        self._apply(part, ends, dict.fromkeys(gone, detail))

    def record(
        self,
        part: Part,
        positions: Sequence[int],
        outcomes: bytes,
        causes: Sequence[Cause],
        *,
        table: Table | None = None,
        details: Mapping[int, Detail] | None = None,
        started: array[float] | None = None,
        durations: array[float] | None = None,
        reason: str = "",
        remade: bool = False,
    ) -> None:
        """Journal attempts that have ended; with a table, its columns say when and where."""
        if not len(positions):
            return
        n = len(positions)
        names: Mapping[int, str] = {}
        stored: Stored | None = None
        lengths: Mapping[int, int] = {}
        if table is not None:
            stored = table.stored[0] if table.stored else None
            started = array("d", [table.started + table.offsets[p] for p in positions])
            durations = array("d", [table.durations[p] for p in positions])
            names = {k: table.names[p] for k, p in enumerate(positions) if p in table.names}
            if stored is not None:
                lengths = {k: table.lengths[p] for k, p in enumerate(positions) if p in table.lengths}
        self.ledger.emit(
            AttemptsEnded(
                part.node.node_id,
                part.batch_id,
                part.execution_id if table is None else table.execution_id,
                part.worker if table is None else table.worker,
                self.ledger.now,
                [part.indices[p] for p in positions],
                [part.attempts[p] for p in positions],
                outcomes,
                bytes(TABLE[cause][1] for cause in causes),
                started or array("d", bytes(8 * n)),
                durations or array("d", bytes(8 * n)),
                positions,
                details or {},
                names,
                stored,
                reason,
                lengths,
                part.submitted_at,
                0.0 if table is None else table.cpu_seconds,
                remade,
            )
        )


_NAMED = frozenset({Cause.COMPLETED, Cause.FAILED})


def _lost(part: Part) -> Cause:
    """Return what a loss is for items that may run again: those that ride wait for their upstream first."""
    return Cause.LOST_ON_THE_WAY if part.follows else Cause.LOST


def _running(part: Part) -> Callable[[int], bool]:
    """Return a test by position whether an item is known to run."""
    states, indices = part.node.states, part.indices
    return lambda position: states[indices[position]] == State.RUNNING
