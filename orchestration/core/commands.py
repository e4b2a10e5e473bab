"""What the coordinator wants done. Journal entries are commands, too: "write this down first"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .journal import Entry


@dataclass(frozen=True, slots=True)
class SubmitBatch:
    """Hand these items of a node to a runner, as one batch."""

    batch_id: int
    node_id: int
    indices: Sequence[int]
    attempts: Sequence[int]
    runner: str
    deadline_seconds: float | None
    permit: bool


@dataclass(frozen=True, slots=True)
class CancelBatches:
    """Stop batches at their runners."""

    batch_ids: tuple[int, ...]
    force: bool = False


@dataclass(frozen=True, slots=True)
class AskLeases:
    """Ask the store for one slot of each of these limits; answer with `LeasesAnswered`."""

    batch_id: int
    names: tuple[str, ...]
    label: str


@dataclass(frozen=True, slots=True)
class WithdrawLeases:
    """Stop waiting for, or give back, the leases of a batch that will not run."""

    batch_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AnswerPermit:
    """Tell a worker whether it may start the item."""

    call_id: str
    permitted: bool


Action = SubmitBatch | CancelBatches | AskLeases | WithdrawLeases | AnswerPermit
Command = Entry | Action
