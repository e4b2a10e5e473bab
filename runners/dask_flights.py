"""What the flow's process knows of a batch that Dask has: while it is in flight, and after its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .messages import HAS_RESULT, Batch, Outcome, Payload, Table


@dataclass(slots=True)
class Flight:
    """A batch that Dask has and that has not been reported yet."""

    batch: Batch
    shared: dict[str, Payload] = field(default_factory=dict)  # what its workers may ask for, by digest
    future: Any = None
    submitted: float = field(default_factory=time.monotonic)
    place: str = ""  # address of where it was sent; "" if Dask chose
    worker: str = ""  # address of where it was seen to start
    asking: set[str] = field(default_factory=set)  # calls without an answer: its slot is lent to others
    process: str = ""  # the same as host:pid
    table: bytes | None = None
    size: int = 0  # bytes of its results
    orphaned: bool = False  # its future failed with its worker, whose end has not been told yet
    doomed: bool = False  # its worker was killed on request, to stop it

    @property
    def asks_first(self) -> bool:
        """Whether each start needs a permit: without one nothing of it runs, whatever Dask does."""
        return any(stage.permit for stage in self.batch.stages)


@dataclass(slots=True)
class Kept:
    """A finished batch whose results Dask holds."""

    future: Any
    size: int
    entries: int
    run_id: str
    worker: str  # address of where it was computed, as far as known
    repeatable: bool  # Dask may compute it again ...
    shared: Mapping[str, Payload]  # ... and then a worker may ask for these; by digest


def repeatable(table: Table, batch: Batch) -> bool:
    """Whether Dask may compute a batch again when its results are lost with their worker.

    Not if items were cancelled or given back unstarted: these would run, or hang, behind the flow's back. Nor if
    each start needs a permit. Nor if results are in storage, from where they are read at less cost.
    """
    outcomes, stages = table.outcomes, len(batch.stages)
    if any(stage.permit for stage in batch.stages) or any(table.stored):
        return False
    whole = not {Outcome.CANCELLED, Outcome.REFUSED, Outcome.INPUT_LOST}.intersection(outcomes)
    if not whole or Outcome.UNSTARTED in outcomes[::stages]:
        return False
    if stages == 1 or Outcome.UNSTARTED not in outcomes:
        return True
    return not any(
        outcome == Outcome.UNSTARTED
        and entry % stages
        and (not batch.stages[entry % stages].follows or outcomes[entry - 1] in HAS_RESULT)
        for entry, outcome in enumerate(outcomes)
    )


def probably_begun(address: str, there: Mapping[int, Flight], threads: int) -> set[int]:
    """Return which of its batches a worker that is gone had probably begun.

    Those that said so, and the oldest ones up to its number of threads: their message may have died with it.
    """
    said = {b for b, f in there.items() if f.worker == address}
    silent = [b for b in there if b not in said]
    return said | set(silent[: max(0, threads - len(said))])
