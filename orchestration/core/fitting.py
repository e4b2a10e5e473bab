"""Whether what a worker says of a batch can be about that batch. A message is well-formed by then, and no more."""

from __future__ import annotations

from collections.abc import Iterable

from runners.messages import BatchProgress, LogLine, Table

from .records import Flight

MISFIT = "its worker sent a record that is not about this batch"


def table_fits(flight: Flight, table: Table) -> bool:
    """Whether a table has an entry for each item and stage of the batch, and speaks of no others."""
    stages, items = len(flight.parts), len(flight.indices)
    return (
        len(table.outcomes) == len(table.offsets) == len(table.durations) == items * stages
        and len(table.stored) in (0, stages)
        and min(table.durations, default=0.0) >= 0.0
        and min(table.lengths.values(), default=0) >= 0
        and table.moved_bytes >= 0
        and _lines_fit(table.logs, items, stages)
    )


def progress_fits(flight: Flight, event: BatchProgress) -> bool:
    """Whether a hint speaks of entries that the batch has."""
    stages, items = len(flight.parts), len(flight.indices)
    return (
        event.entry >= 0  # beyond the end it says that all run
        and len(event.outcomes) <= items * stages
        and _lines_fit(event.logs, items, stages)
    )


def _lines_fit(lines: Iterable[LogLine], items: int, stages: int) -> bool:
    return all(0 <= line.position < items and 0 <= line.stage < stages for line in lines)
