"""What is handed to the coordinator: nodes, what they wait for, and the policies that decide how they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from runners.messages import Stored

from .triggers import Trigger, all_successful

MAIN, INLINE = "main", "inline"  # the run's runner; the thread that called a task directly


class Reach(Enum):
    """Which upstream items an item waits for."""

    ALL = "all"  # every item of the upstream node
    SOME = "some"  # `indices` of it
    ALIGNED = "aligned"  # item i for indices[i], or for i where `indices` is None
    PICKED = "picked"  # item i for picks[i]
    ELEMENTS = "elements"  # the one item indices[0], whose result is a list: item i takes its element i


@dataclass(frozen=True, slots=True)
class Dependency:
    """What a node waits for in one upstream node.

    Attributes:
        tolerant: the upstream may fail (`allow_failure`): it then counts as successful.
        reads: its results are read; False where it is only waited for.
    """

    node_id: int
    reach: Reach
    indices: Sequence[int] | None = None
    picks: Mapping[int, Sequence[int]] | None = None
    tolerant: bool = False
    reads: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides how a node's items run.

    Attributes:
        delay: seconds before retry number n (from 1), without jitter.
        jitter: a retry waits delay * (1 + u * jitter) seconds, u uniform in 0..1.
        batch: fixed batch size; None lets the sizer choose.
        max_concurrency: how many batches of the task run at once in the run; None: any number.
    """

    retries: int = 0
    delay: Callable[[int], float] = lambda n: 0.0
    jitter: float = 0.0
    retries_on_loss: int = 3
    rerun_on_loss: bool = True
    timeout_seconds: float | None = None
    trigger: Trigger = all_successful
    skip_on_upstream_skip: bool = True
    batch: int | None = None
    priority: int = 0
    max_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an earlier process of the run left of a node.

    Attributes:
        attempts: by index, how many attempts it has had.
        results: by index, where its result is stored.
        lengths: by index, the length of a stored result that may be mapped over (`AttemptsEnded.lengths`).
        width: how many items it had, or how many it has where the first are known to be those. With another number
            of items nothing is taken over, and where the task must not run twice and some had started, none starts.
            None: unknown.
        started: items that were Running when the process died, and items that completed with a result that is
            not stored. Where the task must not run twice they are Crashed, for a person to decide.
        skipped: items that asked to be skipped, and are so again.
    """

    attempts: Mapping[int, int] = field(default_factory=dict)
    results: Mapping[int, tuple[Stored, int]] = field(default_factory=dict)
    started: frozenset[int] = frozenset()
    skipped: frozenset[int] = frozenset()
    lengths: Mapping[int, int] = field(default_factory=dict)
    width: int | None = None


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A `.submit()` or `.map()`, as handed to the coordinator. See `journal.NodeAdded` for the fields.

    Attributes:
        placement: where its items may run, in words; nodes that share a batch have the same.
        persists: its results are written to storage, so that what follows builds upon stored results.
    """

    node_id: int
    path: str
    task_name: str
    kind: str = "single"
    width: int | None = 1
    policy: Policy = field(default_factory=Policy)
    dependencies: tuple[Dependency, ...] = ()
    tags: frozenset[str] = frozenset()
    fingerprint: str = ""
    described: Mapping[str, Any] = field(default_factory=dict)
    parent: tuple[int, int] | None = None
    runner: str = MAIN
    recovered: Recovered | None = None
    placement: str = ""
    persists: bool = False
