"""What becomes of items when their batch ends: completed, skipped, tried again, failed, returned, lost.

This is the one retry authority. A failure spends one of the task's `retries`; a loss spends one of its
`retries_on_loss`; an item that came back unstarted has spent nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence

from runners.messages import BatchRejected, Detail, LogLine, Outcome, Stored, Table

from .batching import Sizer
from .journal import LOST, AttemptsEnded, LogWritten
from .ledger import Ledger, compact
from .records import Flight, Node
from .retry import FREE_LOSSES, jittered
from .states import TABLE, Cause, State

_DONE = bytes([Outcome.COMPLETED])

Later = Callable[[float, Node, Sequence[int]], None]  # (delay in seconds, node, items)


class Settling:
    """Turns tables and losses into transitions and journal entries."""

    def __init__(self, ledger: Ledger, later: Later, uniform: Callable[[], float]) -> None:
        self.ledger = ledger
        self.later = later
        self.uniform = uniform  # random numbers in 0..1
        self.ready: list[tuple[Node, Sequence[int], bool]] = []  # items to queue again; True: alone

    def finish(self, flight: Flight, table: Table) -> None:
        """Act on a batch's table."""
        node = flight.node
        self.log(flight, table.logs)
        for entry, name in table.names.items():
            node.run_names[flight.indices[entry]] = name
        for entry, length in table.lengths.items():
            node.lengths[flight.indices[entry]] = length
        _observe(node.sizer, table)
        if table.outcomes.count(_DONE) == len(flight.indices) and not flight.settled:
            self._all_completed(flight, table)
        else:
            self._mixed(flight, table)

    def early(self, flight: Flight, position: int, outcome: int, detail: Detail, started: float) -> None:
        """Act on an item's end that is certain before its batch has ended."""
        flight.settled.add(position)
        index = flight.indices[position]
        cause, reason = self._cause(flight, position, Outcome(outcome), detail)
        self._record(
            flight,
            positions=(position,),
            outcomes=bytes([outcome]),
            causes=(cause,),
            started=array("d", [started]),
            durations=array("d", [max(0.0, self.ledger.now - started)]),
            details={0: detail},
            execution_id=flight.execution_id,
            worker=flight.worker,
        )
        self._apply(flight, cause, [index], reason, detail)

    def reject(self, flight: Flight, event: BatchRejected) -> None:
        """The engine can never run this batch."""
        n = len(flight.indices)
        self._record(
            flight,
            positions=range(n),
            outcomes=bytes([Outcome.FAILED]) * n,
            causes=(Cause.FAILED,) * n,
            started=array("d", bytes(8 * n)),
            durations=array("d", bytes(8 * n)),
            details=dict.fromkeys(range(n), event.detail),
        )
        for index in flight.indices:
            self._apply(flight, Cause.FAILED, [index], "", event.detail)

    def lose(self, flight: Flight, reason: str, *, suspect: bool) -> None:
        """No table will come: find out what has started, charge for it, and run the rest again, singly."""
        node, n = flight.node, len(flight.indices)
        known = n if flight.seen == 0 and suspect and n == 1 else flight.seen
        lost: list[int] = []
        free: list[int] = []
        dead: list[int] = []
        for position in range(n):
            if position in flight.settled:
                continue
            index = flight.indices[position]
            if index in node.cancel_wanted:
                self._apply(flight, Cause.CANCELLED, [index], "cancelled; its worker was lost", None)
                continue
            spent = node.budget(index)
            if position >= known:
                spent.free_losses += 1
                if spent.free_losses <= FREE_LOSSES or not node.policy.rerun_on_loss:
                    free.append(position)
                    continue
            spent.losses += 1
            may = node.policy.rerun_on_loss and spent.losses <= node.policy.retries_on_loss
            (lost if may else dead).append(position)
        self._return(flight, [flight.indices[p] for p in free], reason)
        self._lose(flight, lost, Cause.LOST, reason)
        self._lose(flight, dead, Cause.LOST_FOR_GOOD, reason)

    # --- the common case ------------------------------------------------------------------------

    def _all_completed(self, flight: Flight, table: Table) -> None:
        node, indices, n = flight.node, flight.indices, len(flight.indices)
        self._locate(flight, table.stored)
        zero = table.started
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
                stored=table.stored[0] if table.stored else None,
            )
        )
        self.ledger.move(node, indices, Cause.COMPLETED)

    def _locate(self, flight: Flight, stored: Sequence[Stored | None]) -> None:
        node, indices, n = flight.node, flight.indices, len(flight.indices)
        if isinstance(indices, range) and indices.step == 1:
            node.batches[indices.start : indices.stop] = array("i", [flight.batch_id]) * n
            node.positions[indices.start : indices.stop] = array("i", range(n))
        else:
            for position, index in enumerate(indices):
                node.batches[index] = flight.batch_id
                node.positions[index] = position
        if stored and stored[0] is not None:
            for position, index in enumerate(indices):
                node.stored[index] = (stored[0], position)

    # --- all other cases ------------------------------------------------------------------------

    def _mixed(self, flight: Flight, table: Table) -> None:
        node = flight.node
        self._locate(flight, table.stored)
        groups: dict[Cause, list[int]] = {}
        reasons: dict[int, str] = {}
        ended: list[int] = []
        causes: list[Cause] = []
        for position, index in enumerate(flight.indices):
            if position in flight.settled:
                continue
            outcome = Outcome(table.outcomes[position])
            cause, reason = self._cause(flight, position, outcome, table.details.get(position))
            if outcome not in (Outcome.COMPLETED, Outcome.CACHED):
                node.batches[index] = -1
                node.stored.pop(index, None)
            if reason:
                reasons[index] = reason
            if outcome is Outcome.CACHED:
                node.names[index] = "Cached"
            if cause is Cause.RETURNED or (cause is Cause.CANCELLED and outcome is Outcome.UNSTARTED):
                groups.setdefault(cause, []).append(index)
                continue
            ended.append(position)
            causes.append(cause)
            groups.setdefault(cause, []).append(index)
        self._record(
            flight,
            positions=ended,
            outcomes=bytes(table.outcomes[p] for p in ended),
            causes=causes,
            started=array("d", [table.started + table.offsets[p] for p in ended]),
            durations=array("d", [table.durations[p] for p in ended]),
            details={k: table.details[p] for k, p in enumerate(ended) if p in table.details},
            execution_id=table.execution_id,
            worker=table.worker,
            stored=table.stored[0] if table.stored else None,
            names={k: table.names[p] for k, p in enumerate(ended) if p in table.names},
        )
        where = {index: position for position, index in enumerate(flight.indices)}
        for cause, members in groups.items():
            if cause in (Cause.COMPLETED, Cause.SKIPPED):
                for index in members:
                    if index in reasons:
                        node.reasons[index] = reasons[index]
                self.ledger.move(node, compact(members), cause)
                continue
            for index in members:
                detail = table.details.get(where[index])
                self._apply(flight, cause, [index], reasons.get(index, ""), detail)

    def _cause(
        self, flight: Flight, position: int, outcome: Outcome, detail: Detail | None
    ) -> tuple[Cause, str]:
        """Say what an outcome means for the item. The budget is charged here, once."""
        node, index = flight.node, flight.indices[position]
        message = detail.message if detail is not None else ""
        match outcome:
            case Outcome.COMPLETED | Outcome.CACHED:
                return Cause.COMPLETED, ""
            case Outcome.SKIPPED:
                return Cause.SKIPPED, message
            case Outcome.UNSTARTED:
                if index in node.cancel_wanted:
                    return Cause.CANCELLED, "cancelled before it started"
                return Cause.RETURNED, ""
            case Outcome.CANCELLED:
                if index in node.cancel_wanted:
                    return Cause.CANCELLED, message
                return self._loss(node, index, "its batch was stopped")
            case Outcome.INPUT_LOST:
                return self._loss(node, index, message)
            case Outcome.REFUSED:
                return Cause.LOST_FOR_GOOD, "it had been started before and must not run twice"
        if outcome is Outcome.TIMED_OUT:
            node.names[index] = "TimedOut"
        spent = node.budget(index)
        if index in node.cancel_wanted:
            return Cause.FAILED, message
        retriable = detail is None or detail.retriable
        if not retriable or spent.failures >= node.policy.retries:
            return Cause.FAILED, message
        spent.failures += 1
        return Cause.WILL_RETRY, message

    def _loss(self, node: Node, index: int, why: str) -> tuple[Cause, str]:
        spent = node.budget(index)
        spent.losses += 1
        may = node.policy.rerun_on_loss and spent.losses <= node.policy.retries_on_loss
        return (Cause.LOST if may else Cause.LOST_FOR_GOOD), why

    def _apply(
        self, flight: Flight, cause: Cause, indices: Sequence[int], reason: str, detail: Detail | None
    ) -> None:
        node = flight.node
        if cause is Cause.RETURNED:
            self._return(flight, indices, reason)
            return
        if detail is not None:
            for index in indices:
                node.details[index] = detail
        self.ledger.move(node, indices, cause, reason)
        if cause is Cause.WILL_RETRY:
            for index in indices:
                node.names.pop(index, None)
                self.later(self._delay(node, index, detail), node, (index,))
        elif cause is Cause.LOST:
            self.later(0.0, node, indices)

    def _delay(self, node: Node, index: int, detail: Detail | None) -> float:
        if detail is not None and detail.after_seconds is not None:
            return max(0.0, detail.after_seconds)
        try:
            seconds = float(node.policy.delay(node.budget(index).failures))
        except Exception:  # a user's callable; the retry matters more than its delay
            seconds = 0.0
        return jittered(seconds, node.policy.jitter, self.uniform())

    def _return(self, flight: Flight, indices: Sequence[int], reason: str) -> None:
        """Items that have not started go back into the queue; their attempt is not spent."""
        if not len(indices):
            return
        node = flight.node
        for index in indices:
            node.attempts[index] -= 1
        self.ledger.move(node, indices, Cause.RETURNED, reason)
        self.ready.append((node, indices, bool(reason)))  # after a loss alone, after a deadline as before

    def _lose(self, flight: Flight, positions: Sequence[int], cause: Cause, reason: str) -> None:
        n = len(positions)
        if not n:
            return
        self._record(
            flight,
            positions=positions,
            outcomes=bytes([LOST]) * n,
            causes=(cause,) * n,
            started=array("d", bytes(8 * n)),
            durations=array("d", bytes(8 * n)),
            reason=reason,
            execution_id=flight.execution_id,
            worker=flight.worker,
        )
        detail = Detail("orchestration.errors.CrashedRunError", reason)
        for position in positions:
            final = detail if cause is Cause.LOST_FOR_GOOD else None
            self._apply(flight, cause, [flight.indices[position]], reason, final)

    def _record(
        self,
        flight: Flight,
        *,
        positions: Sequence[int],
        outcomes: bytes,
        causes: Sequence[Cause],
        started: array[float],
        durations: array[float],
        details: Mapping[int, Detail] | None = None,
        names: Mapping[int, str] | None = None,
        stored: Stored | None = None,
        reason: str = "",
        execution_id: str = "",
        worker: str = "",
    ) -> None:
        if not len(positions):
            return
        self.ledger.emit(
            AttemptsEnded(
                flight.node.node_id,
                flight.batch_id,
                execution_id,
                worker,
                self.ledger.now,
                [flight.indices[p] for p in positions],
                [flight.attempts[p] for p in positions],
                outcomes,
                bytes(TABLE[cause][1] for cause in causes),
                started,
                durations,
                positions,
                details or {},
                names or {},
                stored,
                reason,
            )
        )

    def log(self, flight: Flight, lines: Sequence[LogLine]) -> None:
        """Journal log lines that have not been journalled yet."""
        new = [line for line in lines if line.seq >= flight.log_seen]
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


def _observe(sizer: Sizer, table: Table) -> None:
    """Let the sizer learn from the items that ran."""
    ran = len(table.outcomes) - table.outcomes.count(bytes([Outcome.UNSTARTED]))
    if ran and table.execution_id:
        sizer.observe(ran, table.offsets[ran - 1] + table.durations[ran - 1])
