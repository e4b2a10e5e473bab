"""Tables of batches that no worker has run."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace

from .messages import Batch, Detail, Outcome, Table


def unstarted_table(batch: Batch) -> Table:
    """Return the table of a batch that was taken back before a worker had it."""
    return uniform_table(batch, Outcome.UNSTARTED)


def starved_table(batch: Batch, missing: Sequence[int], reason: str) -> Table:
    """Return the table of a batch that could not start, because the results of other batches are gone."""
    return starved(batch.batch_id, len(batch.indices), len(batch.stages), reason, missing)


def starved(batch_id: int, items: int, stages: int, reason: str, missing: Sequence[int] = ()) -> Table:
    """Return that table for a batch that was not even packed."""
    outcomes = (bytes([Outcome.INPUT_LOST]) + bytes([Outcome.UNSTARTED]) * (stages - 1)) * items
    heads = range(0, items * stages, stages)
    table = _table(batch_id, outcomes, dict.fromkeys(heads, Detail("ResultLostError", reason)))
    return replace(table, missing=tuple(missing))


def uniform_table(batch: Batch, outcome: Outcome, detail: Detail | None = None) -> Table:
    """Return a table that says the same of every item."""
    entries = len(batch.indices) * len(batch.stages)
    details = {} if detail is None else dict.fromkeys(range(entries), detail)
    return _table(batch.batch_id, bytes([outcome]) * entries, details)


def _table(batch_id: int, outcomes: bytes, details: Mapping[int, Detail]) -> Table:
    return Table(
        batch_id=batch_id,
        execution_id="",
        worker="",
        started=0.0,
        outcomes=outcomes,
        offsets=array("d", bytes(8 * len(outcomes))),
        durations=array("d", bytes(8 * len(outcomes))),
        details=details,
    )
