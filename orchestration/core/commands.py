"""What the coordinator wants done. Journal entries are commands, too: "write this down first"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .journal import Entry


@dataclass(frozen=True, slots=True)
class Fused:
    """A further node whose items run in a batch.

    Attributes:
        follows: each after its upstream in the node before, whose result it takes. Otherwise it has nothing to do
            with what comes before.
    """

    node_id: int
    attempts: Sequence[int]
    follows: bool = True


@dataclass(frozen=True, slots=True)
class SubmitBatch:
    """Hand these items of a node to a runner, as one batch; with those of `fused`, position by position."""

    batch_id: int
    node_id: int
    indices: Sequence[int]
    attempts: Sequence[int]
    runner: str
    deadline_seconds: float | None
    permit: bool
    fused: tuple[Fused, ...] = ()

    @property
    def node_ids(self) -> tuple[int, ...]:
        """The batch's nodes, by stage."""
        return (self.node_id, *(fused.node_id for fused in self.fused))

    def item(self, entry: int) -> tuple[int, int]:
        """Return the node and the index of a column entry (see `runners.messages.Table`)."""
        position, stage = divmod(entry, len(self.fused) + 1)
        return self.node_ids[stage], self.indices[position]


@dataclass(frozen=True, slots=True)
class CancelBatches:
    """Stop batches at their runners."""

    batch_ids: tuple[int, ...]
    force: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseBatches:
    """Let the engine forget the results of ended batches: nobody will ask for them."""

    batch_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ForgetNodes:
    """No item of these nodes will run again: forget what they are called with."""

    node_ids: tuple[int, ...]


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


Action = (
    SubmitBatch | CancelBatches | ReleaseBatches | ForgetNodes | AskLeases | WithdrawLeases | AnswerPermit
)
Command = Entry | Action
