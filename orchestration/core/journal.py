"""What the coordinator writes down: the entries of a run's journal, one per batch, never one per item.

A store appends the entries of one driver turn in one transaction. Replaying them in order gives every task
run's state, attempts and times.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runners.messages import Detail, LogLine, Outcome, Stored

from .states import TERMINAL, RunState, State

_TERMINAL_BYTES = bytes(TERMINAL)
LOST = 255  # an attempt's outcome beside runners.messages.Outcome: no table came


@dataclass(frozen=True, slots=True)
class NodeAdded:
    """A `.submit()` or `.map()` has been recorded.

    Attributes:
        path: the node's identity over resumes: parent, task and how many of this task came before it.
        kind: "single", "map" or "call".
        width: number of items; None until it is learned from an upstream result.
        fingerprint: of code and arguments as far as they are known at submission; stored results are reused
            on resume only where it is equal.
        policy: what the task asked for, as JSON values, for people.
        parent: (node, index) of the task run that submitted it, None for the flow itself.
    """

    node_id: int
    path: str
    task_name: str
    kind: str
    width: int | None
    at: float
    tags: frozenset[str] = frozenset()
    upstream: tuple[int, ...] = ()
    fingerprint: str = ""
    policy: Mapping[str, Any] = field(default_factory=dict)
    parent: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class WidthLearned:
    """A map over an upstream result now knows its number of items."""

    node_id: int
    width: int


@dataclass(frozen=True, slots=True)
class Roots:
    """Whose failure kept items from running.

    Attributes:
        task_name: of the node `node_id`.
        indices: of its items, one for each item that was kept from running, or one for all of them.
    """

    node_id: int
    task_name: str
    indices: Sequence[int]

    def of(self, k: int) -> tuple[int, int]:
        """Return the (node, index) that the k-th of the items did not run for."""
        return self.node_id, self.indices[k if len(self.indices) > 1 else 0]


@dataclass(frozen=True, slots=True)
class Moved:
    """Items have changed state, other than by the end of an attempt.

    Attributes:
        indices: of the items; a range where they are contiguous.
        reason: for people, in words: the limit waited for, the root cause, why it is tried again.
        worker: where they run, of a move to Running.
        roots: whose failure it was, of a move to UpstreamFailed; None where no task run's was.
    """

    node_id: int
    indices: Sequence[int]
    state: State
    at: float
    reason: str = ""
    name: str = ""  # where it says more than the state's own, such as "Cached"
    worker: str = ""
    roots: Roots | None = None


@dataclass(frozen=True, slots=True)
class AttemptsEnded:
    """One row per attempt, in columns: entry k is about item `indices[k]`.

    Attributes:
        outcomes: runners.messages.Outcome values, or LOST.
        states: the items' State after it: terminal, or where they wait for their next attempt.
        started: seconds since the epoch; 0.0 where the item is not known to have started.
        details: by k; sparse.
        stored: the file with the batch's results, if they were persisted; item k is at `positions[k]` in it.
        lengths: by k: the length of a stored result that may be mapped over, which a resume must know.
        submitted_at: when the batch was submitted.
        cpu_seconds: what the batch cost its worker; in the one entry that its table gave.
        remade: the items had Completed, their results were lost: these attempts were to make them again. Whatever
            their outcomes, the items stay Completed. Not stored: the states before tell.
    """

    node_id: int
    batch_id: int
    execution_id: str
    worker: str
    at: float
    indices: Sequence[int]
    attempts: Sequence[int]
    outcomes: bytes
    states: bytes
    started: array[float]
    durations: array[float]
    positions: Sequence[int]
    details: Mapping[int, Detail] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    stored: Stored | None = None
    reason: str = ""
    lengths: Mapping[int, int] = field(default_factory=dict)
    submitted_at: float = 0.0
    cpu_seconds: float = 0.0
    remade: bool = False

    def retried(self) -> tuple[int, float]:
        """Return how many attempts have begun and did not end their task run, and the seconds of their code."""
        if not self.states.translate(None, _TERMINAL_BYTES):  # as nearly always: nothing per item
            return 0, 0.0
        again = [
            seconds
            for state, outcome, seconds in zip(self.states, self.outcomes, self.durations, strict=True)
            if state not in TERMINAL and outcome != Outcome.UNSTARTED
        ]
        return len(again), sum(again)


@dataclass(frozen=True, slots=True)
class StartRepeated:
    """An attempt was started a second time: an engine computed a lost result again, or ran it twice."""

    node_id: int
    batch_id: int
    indices: Sequence[int]
    execution_id: str
    worker: str
    at: float


@dataclass(frozen=True, slots=True)
class Counted:
    """Number of a node's items by state, indexed by State value. Written once per turn for what changed.

    Attributes:
        waited: seconds that items have spent Ready, AwaitingLimit and AwaitingRetry so far, summed over items.
            Empty: as it was.
    """

    node_id: int
    counts: tuple[int, ...]
    waited: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LogWritten:
    """Log lines of a batch; `items[k]` and `attempts[k]` say whose `lines[k]` is. node_id -1: the flow's."""

    node_id: int
    items: Sequence[int]
    attempts: Sequence[int]
    lines: Sequence[LogLine]


@dataclass(frozen=True, slots=True)
class LeasesReturned:
    """Leases that ended with what this transaction records."""

    holders: Sequence[str]


@dataclass(frozen=True, slots=True)
class RunMoved:
    """The flow run has changed state.

    Attributes:
        coordinator_seconds: CPU time that this process's coordinator has used for the run so far.
        engine_url: the web page of the engine that runs its tasks; "": as it was.
    """

    state: RunState
    at: float
    name: str = ""
    message: str = ""
    detail: Detail | None = None
    coordinator_seconds: float = 0.0
    engine_url: str = ""


Entry = (
    NodeAdded
    | WidthLearned
    | Moved
    | AttemptsEnded
    | StartRepeated
    | Counted
    | LogWritten
    | LeasesReturned
    | RunMoved
)
