"""Facts given to the coordinator, in the past tense. Runners report theirs as `runners.messages` events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runners.messages import (
    BatchFinished,
    BatchLost,
    BatchProgress,
    BatchRejected,
    BatchStarted,
    ResultsLost,
    SlotsChanged,
)

from .records import NodeSpec


@dataclass(frozen=True, slots=True)
class NodeSubmitted:
    """User code has called `.submit()`, `.map()` or a task."""

    spec: NodeSpec


@dataclass(frozen=True, slots=True)
class LimitsKnown:
    """These tags have a concurrency limit now; others have none."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class LeasesAnswered:
    """The store has answered a request for a batch's leases.

    Attributes:
        blocked_by: if not granted: the limits in the way with labels of their holders.
    """

    batch_id: int
    granted: bool
    blocked_by: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class FuturesDropped:
    """User code can no longer ask for results of a node: it has let go of all its futures."""

    node_id: int


@dataclass(frozen=True, slots=True)
class ResultsWanted:
    """User code asks for results of a node that are gone."""

    node_id: int
    indices: Sequence[int]


@dataclass(frozen=True, slots=True)
class FilesLost:
    """Files with results of a node are gone, or are not what was written: somebody has tried to read them."""

    node_id: int
    urls: frozenset[str]
    reason: str


@dataclass(frozen=True, slots=True)
class LengthsLearned:
    """Stored results of an earlier process have these lengths, by item; told before somebody maps over them."""

    node_id: int
    lengths: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class FusionRefused:
    """A batch was sent without what was fused with it, which cannot be packed."""

    batch_id: int


@dataclass(frozen=True, slots=True)
class PermitAsked:
    """A worker asks whether it may start an item that must not run twice."""

    call_id: str
    batch_id: int
    execution_id: str
    entry: int


@dataclass(frozen=True, slots=True)
class SlotLent:
    """User code in a batch waits for other task runs: its slot is free meanwhile."""

    batch_id: int


@dataclass(frozen=True, slots=True)
class SlotReclaimed:
    """... and has stopped waiting."""

    batch_id: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the run, a node of it, or some of a node's items cancelled."""

    node_id: int | None = None
    indices: frozenset[int] | None = None
    reason: str = "cancelled on request"


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Nothing new shall start."""

    reason: str = "paused on request"


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """Paused task runs may start again."""


@dataclass(frozen=True, slots=True)
class RunInterrupted:
    """The run ends now, whatever its task runs do: what has not ended is Crashed.

    Attributes:
        type_name: of the error that is recorded for what was running.
    """

    reason: str
    type_name: str = "runners.errors.TaskCancelledError"


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: timers that are due go off."""


CoreEvent = (
    NodeSubmitted
    | LimitsKnown
    | LeasesAnswered
    | FuturesDropped
    | ResultsWanted
    | FilesLost
    | LengthsLearned
    | FusionRefused
    | PermitAsked
    | SlotLent
    | SlotReclaimed
    | CancelRequested
    | PauseRequested
    | ResumeRequested
    | RunInterrupted
    | Tick
    | SlotsChanged
    | BatchStarted
    | BatchProgress
    | BatchFinished
    | BatchLost
    | ResultsLost
    | BatchRejected
)
