"""What becomes of batches that make lost results again. Their items are Completed and stay so.

The attempts count and are recorded like others, with the budgets that others have; what they lead to is not a state
of the item but whether its result is there again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from runners.messages import BatchRejected, Detail, Outcome, Table

from .journal import LOST
from .outcomes import cause_of, retry_delay
from .records import Flight, Node
from .remaking import Remaking
from .retry import charge_loss
from .settling import Settling
from .stages import observe, stage_seconds
from .states import Cause

At = Callable[[float, Callable[[], None]], None]  # (when, action)


class Remade:
    """Acts on the ends of these batches."""

    def __init__(self, settling: Settling, remaking: Remaking, at: At, uniform: Callable[[], float]) -> None:
        self.ledger = settling.ledger
        self.settling = settling
        self.remaking = remaking
        self.at = at
        self.uniform = uniform

    def finish(self, flight: Flight, table: Table) -> None:
        """Act on a batch's table: results that were made are where it says, others are tried again or given up."""
        self.settling.log(flight, table.logs)
        observe(flight.parts, table, stage_seconds(table, len(flight.parts)))
        node, made, again, starved = flight.node, list[int](), list[int](), list[int]()
        failed: list[int] = []
        doomed: dict[str, list[int]] = {}
        for position in self._wanted(flight):
            index, detail = flight.indices[position], table.details.get(position, Detail())
            outcome = Outcome(table.outcomes[position])
            missing = table.missing or table.missing_files
            if outcome is Outcome.INPUT_LOST and (missing or self.remaking.lacks(node, (index,))):
                starved.append(index)
                continue
            cause, why = cause_of(flight, position, outcome, detail.message, detail.retriable)
            if cause is Cause.RETURNED:
                again.append(index)
                continue
            (made if cause is Cause.COMPLETED else failed).append(position)
            if cause is Cause.COMPLETED:
                continue
            if cause is Cause.WILL_RETRY:
                self._later(node, index, detail)
            elif cause is Cause.LOST:
                again.append(index)
            else:
                doomed.setdefault(f"when it was to be made again it ended {outcome.name}: {why}", []).append(
                    index
                )
        self.settling.locate(flight, made, table.stored[0] if table.stored else None)
        self._record(flight, made, table)
        self._record(flight, failed, replace(table, stored=()))
        self.remaking.made(node, [flight.indices[p] for p in made])
        self.remaking.starved(node, starved)
        self.remaking.again(node, again)
        for why, indices in doomed.items():
            self.remaking.give_up(node, indices, why)

    def lose(self, flight: Flight, reason: str, *, suspect: bool) -> None:
        """No table will come: try again, within what a loss may cost."""
        node, least = flight.node, 1 if suspect else 0
        charged: list[int] = []
        again: list[int] = []
        doomed: list[int] = []
        for position in self._wanted(flight):
            index = flight.indices[position]
            begun = position < max(flight.seen, least)
            may = charge_loss(node.budget(index), node.policy, started=begun, suspect=suspect)
            if may is not None:
                charged.append(position)
            (doomed if may is False else again).append(index)
        self._record(flight, charged, reason=reason)
        self.remaking.again(node, again)
        self.remaking.give_up(node, doomed, f"it was lost when it was to be made again: {reason}")

    def reject(self, flight: Flight, event: BatchRejected) -> None:
        """The engine can never run this batch."""
        indices = [flight.indices[p] for p in self._wanted(flight)]
        self.remaking.give_up(flight.node, indices, event.detail.message)

    def _wanted(self, flight: Flight) -> list[int]:
        """Return the positions of items whose results are still wanted."""
        wanted = self.remaking.keeps(flight.node, flight.indices)
        return [p for p, index in enumerate(flight.indices) if index in wanted]

    def _later(self, node: Node, index: int, detail: Detail) -> None:
        delay, _ = retry_delay(node, index, detail, self.uniform)
        again = partial(self.remaking.again, node, (index,))
        if delay > 0:
            self.at(self.ledger.now + delay, again)
        else:
            again()

    def _record(
        self,
        flight: Flight,
        positions: Sequence[int],
        table: Table | None = None,
        reason: str = "",
    ) -> None:
        """Journal attempts. An error is not told as the item's: it has none."""
        node = flight.node
        for position in positions:
            node.attempts[flight.indices[position]] = flight.attempts[position]
        how = {node.known.losses.get(flight.indices[position]) for position in positions}
        lost = f" ({how.pop()})" if len(how) == 1 and any(how) else ""
        reason = reason or f"its result was lost{lost} and had to be made again"
        outcomes = bytes([LOST] * len(positions) if table is None else [table.outcomes[p] for p in positions])
        causes = (Cause.COMPLETED,) * len(positions)
        self.settling.record(flight, positions, outcomes, causes, table=table, reason=reason, remade=True)
