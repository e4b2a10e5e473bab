"""What becomes of items when their batch ends: by table, by loss, by rejection, or item by item before.

Items are grouped by what happens to them, so that a batch gives a handful of transitions and entries.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence

from runners.messages import BatchRejected, Detail, LogLine, Outcome, Stored, Table

from .batching import Sizer
from .journal import LOST, AttemptsEnded, LogWritten
from .ledger import Ledger, compact
from .outcomes import PLAIN, cause_of, retry_delay
from .records import Flight, Node
from .retry import charge_loss
from .states import TABLE, TERMINAL, Cause, State

WARNING = 30  # a level of `logging`
_DONE, _UNSTARTED = bytes([Outcome.COMPLETED]), bytes([Outcome.UNSTARTED])
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

    # --- the ways in which batches end ----------------------------------------------------------

    def finish(self, flight: Flight, table: Table) -> None:
        """Act on a batch's table."""
        node = flight.node
        self.log(flight, table.logs)
        if table.names:
            node.facts.run_names.update({flight.indices[k]: name for k, name in table.names.items()})
        if table.lengths:
            lengths, indices, width = node.facts.lengths, flight.indices, node.width
            for entry, length in table.lengths.items():
                lengths.put(indices[entry], length, width)
        _observe(node.sizer, table)
        if table.outcomes.count(_DONE) == len(flight.indices) and not flight.settled:
            self._all_completed(flight, table)
        else:
            self._mixed(flight, table)

    def early(self, flight: Flight, position: int, outcome: int, detail: Detail, started: float) -> None:
        """Act on an item's end that is certain before its batch has ended."""
        cause, reason = cause_of(flight, position, Outcome(outcome), detail.message, detail.retriable)
        flight.settle((position,))
        self._record(
            flight,
            (position,),
            bytes([outcome]),
            (cause,),
            details={0: detail},
            started=array("d", [started]),
            durations=array("d", [max(0.0, self.ledger.now - started)]),
        )
        self._apply(flight, {(cause, reason): [position]}, {position: detail}, {position: outcome})

    def reject(self, flight: Flight, event: BatchRejected) -> None:
        """The engine can never run this batch."""
        open_, detail = flight.open_positions(), event.detail
        n = len(open_)
        details = dict.fromkeys(range(n), detail)
        self._record(flight, open_, bytes([Outcome.FAILED]) * n, (Cause.FAILED,) * n, details=details)
        self._apply(flight, {(Cause.FAILED, detail.message): list(open_)}, dict.fromkeys(open_, detail))

    def lose(self, flight: Flight, reason: str, *, suspect: bool) -> None:
        """No table will come: find out what has started, charge for it, and run the rest again."""
        node, policy = flight.node, flight.node.policy
        # what ran on the dead worker had begun its first item, whether or not we were told
        begun = max(flight.seen, 1) if suspect and policy.rerun_on_loss else flight.seen
        wanted = node.known.cancel_wanted
        free: list[int] = []
        dropped: dict[str, list[int]] = {}
        ends: Ends = {}
        for position in flight.open_positions():
            index = flight.indices[position]
            started = position < begun
            if index in wanted:
                cause = Cause.CANCELLED
                if not started:
                    dropped.setdefault(wanted[index], []).append(position)
                    continue
            else:
                again = charge_loss(node.budget(index), policy, started=started, suspect=suspect)
                if again is None:
                    free.append(position)
                    continue
                cause = Cause.LOST if again else Cause.LOST_FOR_GOOD
            ends.setdefault((cause, reason), []).append(position)
        self._return(flight, free, reason)
        self._drop(flight, dropped)
        self._end_as_lost(flight, ends, reason)

    def end_without_table(
        self, flight: Flight, cause: Cause, message: str, type_name: str = "runners.errors.TaskCancelledError"
    ) -> None:
        """End the open items of a batch whose table will not be waited for: their code may still run."""
        open_ = flight.open_positions()
        n = len(open_)
        detail = Detail(type_name, message, abandoned=True)
        details = dict.fromkeys(range(n), detail)
        self._record(flight, open_, bytes([Outcome.CANCELLED]) * n, (cause,) * n, details=details)
        self._apply(flight, {(cause, message): list(open_)}, dict.fromkeys(open_, detail))
        flight.settle(open_)

    def log(self, flight: Flight, lines: Sequence[LogLine]) -> None:
        """Journal log lines that have not been journalled yet."""
        new = [line for line in lines if line.seq >= flight.log_seen] if lines else None
        if not new:
            return
        flight.log_seen = new[-1].seq + 1
        self.ledger.emit(
            LogWritten(
                flight.node.node_id,
                [flight.indices[line.position] for line in new],
                [flight.attempts[line.position] for line in new],
                new,
            )
        )

    # --- the common case ------------------------------------------------------------------------

    def _all_completed(self, flight: Flight, table: Table) -> None:
        node, indices, n = flight.node, flight.indices, len(flight.indices)
        zero, stored = table.started, table.stored[0] if table.stored else None
        self._locate(flight, range(n), stored)
        self.ledger.emit(
            AttemptsEnded(
                node.node_id,
                flight.batch_id,
                table.execution_id,
                table.worker,
                self.ledger.now,
                indices,
                flight.attempts,
                table.outcomes,
                bytes([State.COMPLETED]) * n,
                array("d", [zero + offset for offset in table.offsets]),
                table.durations,
                range(n),
                names=table.names,
                stored=stored,
                lengths=table.lengths if stored is not None else {},
                submitted_at=flight.submitted_at,
                cpu_seconds=table.cpu_seconds,
            )
        )
        self.ledger.move(node, indices, Cause.COMPLETED)

    def _locate(self, flight: Flight, positions: Sequence[int], stored: Stored | None) -> None:
        """Note where the results of completed items are."""
        node, indices, n = flight.node, flight.indices, len(positions)
        if isinstance(indices, range) and n == len(indices):
            places = _PLACES[:n] if n <= len(_PLACES) else array("i", range(n))
            node.batches[indices.start : indices.stop] = array("i", [flight.batch_id]) * n
            node.positions[indices.start : indices.stop] = places
        else:
            for position in positions:
                node.batches[indices[position]] = flight.batch_id
                node.positions[indices[position]] = position
        if n and stored is not None:
            node.facts.files[flight.batch_id] = stored

    # --- all other cases ------------------------------------------------------------------------

    def _mixed(self, flight: Flight, table: Table) -> None:
        """Act on a table in which items ended in different ways, or some had been acted upon before."""
        ended: list[int] = []
        causes: list[Cause] = []
        returned: list[int] = []
        located: list[int] = []
        dropped: dict[str, list[int]] = {}
        ends: Ends = {}
        outcomes, details = table.outcomes, table.details
        for position in flight.open_positions():
            outcome, detail = Outcome(outcomes[position]), details.get(position)
            if detail is None and outcome in PLAIN:
                cause, reason = PLAIN[outcome], ""
            else:
                message, retriable = ("", True) if detail is None else (detail.message, detail.retriable)
                cause, reason = cause_of(flight, position, outcome, message, retriable)
            if cause is Cause.RETURNED:
                returned.append(position)
                continue
            if cause is Cause.CANCELLED and outcome is not Outcome.CANCELLED:
                dropped.setdefault(reason, []).append(position)
                continue
            if cause is Cause.COMPLETED:
                located.append(position)
            ended.append(position)
            causes.append(cause)
            ends.setdefault((cause, reason), []).append(position)
        self._locate(flight, located, table.stored[0] if table.stored else None)
        self._record(
            flight,
            ended,
            bytes(outcomes[p] for p in ended),
            causes,
            table=table,
            details={k: details[p] for k, p in enumerate(ended) if p in details} if details else None,
        )
        self._apply(flight, ends, details, outcomes)
        self._drop(flight, dropped)
        self._return(flight, returned, "")

    def _apply(
        self,
        flight: Flight,
        ends: Ends,
        details: Mapping[int, Detail],
        outcomes: Mapping[int, int] | bytes = b"",
    ) -> None:
        """Move items whose attempt has ended, by cause; the attempts have been recorded."""
        node = flight.node
        by_cause: dict[Cause, list[int]] = {}
        for (cause, _), positions in ends.items():
            by_cause.setdefault(cause, []).extend(positions)
        for cause, positions in by_cause.items():
            indices = compact(sorted([flight.indices[p] for p in positions]))
            self.ledger.move(node, indices, cause, told=True)
            if details and TABLE[cause][1] in TERMINAL:
                told = {flight.indices[p]: details[p] for p in positions if p in details}
                node.facts.details.update(told)
            if outcomes and cause in _NAMED:
                self._name(flight, positions, outcomes)
            if cause is Cause.WILL_RETRY:
                self._schedule(flight, positions, details)
            elif cause is Cause.LOST:
                self.later(0.0, node, indices)
        for (cause, reason), positions in ends.items():
            if reason and TABLE[cause][1] in TERMINAL:
                node.facts.reasons.put([flight.indices[p] for p in positions], reason, node.width)

    def _name(self, flight: Flight, positions: Iterable[int], outcomes: Mapping[int, int] | bytes) -> None:
        node = flight.node
        for outcome, name in ((Outcome.CACHED, "Cached"), (Outcome.TIMED_OUT, "TimedOut")):
            named = [flight.indices[p] for p in positions if outcomes[p] == outcome]
            if named:
                node.facts.names.put(named, name, node.width)

    def _schedule(self, flight: Flight, positions: Iterable[int], details: Mapping[int, Detail]) -> None:
        """Let items that failed run again, each after its delay."""
        node = flight.node
        due: dict[float, list[int]] = {}
        for position in positions:
            index = flight.indices[position]
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

    def _return(self, flight: Flight, positions: Sequence[int], reason: str) -> None:
        """Items that have not started go back into the queue; their attempt is not spent."""
        if not len(positions):
            return
        node = flight.node
        indices = self._unspend(flight, positions)
        self.ledger.move(node, indices, Cause.RETURNED, reason)
        self.ready.append((node, indices))

    def _drop(self, flight: Flight, dropped: Mapping[str, Sequence[int]]) -> None:
        """Items that have not started and never will: cancelled meanwhile, for these reasons."""
        for reason, positions in dropped.items():
            self.ledger.move(flight.node, self._unspend(flight, positions), Cause.CANCELLED, reason)

    def _unspend(self, flight: Flight, positions: Sequence[int]) -> Sequence[int]:
        indices = compact(sorted(flight.indices[p] for p in positions))
        attempts = flight.node.attempts
        for index in indices:
            attempts[index] -= 1
        return indices

    def _end_as_lost(self, flight: Flight, ends: Ends, reason: str) -> None:
        positions = sorted(p for members in ends.values() for p in members)
        cause_at = {p: cause for (cause, _), members in ends.items() for p in members}
        self._record(
            flight,
            positions,
            bytes([LOST]) * len(positions),
            [cause_at[p] for p in positions],
            reason=reason,
        )
        detail = Detail("orchestration.errors.CrashedRunError", reason)
        gone = ends.get((Cause.LOST_FOR_GOOD, reason), ())
        self._apply(flight, ends, dict.fromkeys(gone, detail))

    def _record(
        self,
        flight: Flight,
        positions: Sequence[int],
        outcomes: bytes,
        causes: Sequence[Cause],
        *,
        table: Table | None = None,
        details: Mapping[int, Detail] | None = None,
        started: array[float] | None = None,
        durations: array[float] | None = None,
        reason: str = "",
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
                flight.node.node_id,
                flight.batch_id,
                flight.execution_id if table is None else table.execution_id,
                flight.worker if table is None else table.worker,
                self.ledger.now,
                [flight.indices[p] for p in positions],
                [flight.attempts[p] for p in positions],
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
                flight.submitted_at,
                0.0 if table is None else table.cpu_seconds,
            )
        )


_NAMED = frozenset({Cause.COMPLETED, Cause.FAILED})


def _observe(sizer: Sizer, table: Table) -> None:
    """Let the sizer learn from the items that ran."""
    ran = len(table.outcomes) - table.outcomes.count(_UNSTARTED)
    if not ran:
        return
    seconds = table.offsets[ran - 1] + table.durations[ran - 1]
    if seconds > 0 or _DONE in table.outcomes:  # else it could not even be loaded
        sizer.observe(ran, seconds)
