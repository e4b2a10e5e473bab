"""Tables of batches that no worker has run."""

from __future__ import annotations

from array import array

from .messages import Batch, Detail, Outcome, Table


def unstarted_table(batch: Batch) -> Table:
    """Return the table of a batch that was taken back before a worker had it."""
    return uniform_table(batch, Outcome.UNSTARTED)


def uniform_table(batch: Batch, outcome: Outcome, detail: Detail | None = None) -> Table:
    """Return a table that says the same of every item."""
    entries = len(batch.indices) * len(batch.stages)
    return Table(
        batch_id=batch.batch_id,
        execution_id="",
        worker="",
        started=0.0,
        outcomes=bytes([outcome]) * entries,
        offsets=array("d", bytes(8 * entries)),
        durations=array("d", bytes(8 * entries)),
        details={} if detail is None else dict.fromkeys(range(entries), detail),
    )
