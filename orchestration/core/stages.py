"""The table of a batch, as its stages see it: their own columns, and what the sizers learn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from runners.messages import Outcome, Table

from .records import Part

T = TypeVar("T")

_DONE, _UNSTARTED = bytes([Outcome.COMPLETED]), bytes([Outcome.UNSTARTED])


def observe(parts: Sequence[Part], table: Table) -> None:
    """Let the sizers learn from the items that ran. Time that no item has is shared out equally."""
    outcomes = table.outcomes
    entries = len(outcomes) - outcomes.count(_UNSTARTED)
    if not entries:
        return
    if len(parts) == 1:
        seconds = table.offsets[entries - 1] + table.durations[entries - 1]
        if seconds > 0 or _DONE in outcomes:  # else it could not even be loaded
            parts[0].node.sizer.observe(entries, seconds, table.moved_bytes)
        return
    stages, last = len(parts), len(outcomes.rstrip(_UNSTARTED)) - 1
    total = table.offsets[last] + table.durations[last]
    if total <= 0 and _DONE not in outcomes:
        return
    overhead = max(0.0, total - sum(table.durations)) / stages
    moved = table.moved_bytes // stages
    observed: set[int] = set()
    for part in parts:
        own = outcomes[part.stage :: stages]
        ran = len(own) - own.count(_UNSTARTED)
        sizer = part.node.sizer
        seconds = sum(table.durations[part.stage :: stages]) + overhead
        sizer.observe(ran, seconds, moved, grow=id(sizer) not in observed)
        observed.add(id(sizer))


def entry_of(part: Part, position: int) -> int:
    """Return the column entry (see `runners.messages.Table`) of an item of a batch."""
    return position * (len(part.flight.riders) + 1) + part.stage


def of_stage(table: Table, stage: int, stages: int) -> Table:
    """Return the record of one stage of a fused batch as a table of its own, with an entry per position."""
    if stages == 1:
        return table

    def own(column: Mapping[int, T]) -> dict[int, T]:
        return {entry // stages: value for entry, value in column.items() if entry % stages == stage}

    return Table(  # `replace` takes three times as long, for each task run of a pooled batch
        batch_id=table.batch_id,
        execution_id=table.execution_id,
        worker=table.worker,
        started=table.started,
        outcomes=table.outcomes[stage::stages],
        offsets=table.offsets[stage::stages],
        durations=table.durations[stage::stages],
        details=own(table.details) if table.details else {},
        lengths=own(table.lengths) if table.lengths else {},
        names=own(table.names) if table.names else {},
        stored=table.stored[stage : stage + 1],
        cpu_seconds=table.cpu_seconds * _share(table.durations, stage, stages),
        missing=table.missing,
        missing_files=table.missing_files,
    )


def _share(durations: Sequence[float], stage: int, stages: int) -> float:
    """Return a stage's part of the time that user code took."""
    total = sum(durations)
    return sum(durations[stage::stages]) / total if total else 1 / stages
