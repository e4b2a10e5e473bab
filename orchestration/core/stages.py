"""The table of a batch, as its stages see it: their own columns, and what the sizers learn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from runners.messages import Outcome, Table

from .records import Part

T = TypeVar("T")

_DONE, _UNSTARTED = bytes([Outcome.COMPLETED]), bytes([Outcome.UNSTARTED])


def stage_seconds(table: Table, stages: int) -> list[float]:
    """Return how long the items of each stage of a batch ran, in seconds: added up once for all who ask."""
    return [sum(table.durations[stage::stages]) for stage in range(stages)] if stages > 1 else []


def observe(parts: Sequence[Part], table: Table, each_seconds: Sequence[float]) -> None:
    """Let the sizers learn from the items that ran. Time that no item has is shared out equally.

    Args:
        each_seconds: see `stage_seconds`.
    """
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
    overhead = max(0.0, total - sum(each_seconds)) / stages
    moved = table.moved_bytes // stages
    observed: set[int] = set()
    for part in parts:
        own = outcomes[part.stage :: stages]
        ran = len(own) - own.count(_UNSTARTED)
        sizer = part.node.sizer
        sizer.observe(ran, each_seconds[part.stage] + overhead, moved, grow=id(sizer) not in observed)
        observed.add(id(sizer))


def entry_of(part: Part, position: int) -> int:
    """Return the column entry (see `runners.messages.Table`) of an item of a batch."""
    return position * (len(part.flight.riders) + 1) + part.stage


def of_stage(table: Table, stage: int, each_seconds: Sequence[float]) -> Table:
    """Return the record of one stage of a fused batch as a table of its own, with an entry per position.

    Args:
        each_seconds: see `stage_seconds`.
    """
    if not each_seconds:
        return table
    stages = len(each_seconds)

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
        cpu_seconds=table.cpu_seconds * _share(stage, each_seconds),
        missing=table.missing,
        missing_files=table.missing_files,
    )


def _share(stage: int, each_seconds: Sequence[float]) -> float:
    """Return a stage's part of the time that user code took."""
    total = sum(each_seconds)
    return each_seconds[stage] / total if total else 1 / len(each_seconds)
