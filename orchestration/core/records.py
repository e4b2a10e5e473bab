"""What the coordinator remembers: a `Node` per submit or map, a `Flight` per batch, and bytes per item.

An item of a node costs one byte of state, two of attempt number and eight that say where its result is.
Whatever only some items have (an error, a spent retry) is in a sparse dict.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from runners.messages import Detail, Stored

from .batching import ReadyQueue, Sizer
from .states import TERMINAL, State
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
    """

    node_id: int
    reach: Reach
    indices: Sequence[int] | None = None
    picks: Mapping[int, Sequence[int]] | None = None
    tolerant: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides how a node's items run.

    Attributes:
        delay: seconds before retry number n (from 1), without jitter.
        jitter: a retry waits delay * (1 + u * jitter) seconds, u uniform in 0..1.
        batch: fixed batch size; None lets the sizer choose.
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


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an earlier process of the run left of a node."""

    attempts: Mapping[int, int] = field(default_factory=dict)
    results: Mapping[int, tuple[Stored, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A `.submit()` or `.map()`, as handed to the coordinator. See `journal.NodeAdded` for the fields."""

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


@dataclass(slots=True)
class Spent:
    """What an item has used of its budgets."""

    failures: int = 0
    losses: int = 0
    free_losses: int = 0  # losses without evidence that it had started


class Edge:
    """A dependency while it is waited for."""

    __slots__ = ("dependency", "down", "members", "remaining", "reverse", "up")

    def __init__(self, dependency: Dependency, up: Node, down: Node) -> None:
        self.dependency = dependency
        self.up = up
        self.down = down
        self.remaining = 0  # SOME, ELEMENTS: unfinished members
        self.members: frozenset[int] = frozenset()
        self.reverse: dict[int, list[int]] | None = None  # ALIGNED with indices, PICKED: upstream -> items

    @property
    def per_item(self) -> bool:
        return self.dependency.reach in (Reach.ALIGNED, Reach.PICKED)


class Node:
    """A node's items, in columns. `width` 0 with `opened` False: the width is not known yet."""

    def __init__(self, spec: NodeSpec, sizer: Sizer) -> None:
        self.spec = spec
        self.node_id = spec.node_id
        self.policy = spec.policy
        self.sizer = sizer
        self.depth = 0
        self.opened = False
        self.width = 0
        self.states = bytearray()
        self.attempts: array[int] = array("H")
        self.batches: array[int] = array("i")  # where the result is: batch ...
        self.positions: array[int] = array("i")  # ... and position in it
        self.counts = [0] * len(State)
        # readiness
        self.ins: list[Edge] = []
        self.outs: list[Edge] = []
        self.blockers = 0  # edges that hold back all items
        self.waits: array[int] | None = None  # per item: unfinished upstream items of per-item edges
        self.tainted_all = False  # an upstream of all items did not simply complete
        self.tainted: set[int] = set()  # items of which an own upstream did not
        # running
        self.ready = ReadyQueue()
        self.queued = False  # in the coordinator's heap
        # sparse facts
        self.stored: dict[int, tuple[Stored, int]] = {}
        self.details: dict[int, Detail] = {}
        self.reasons: dict[int, str] = {}
        self.roots: dict[int, tuple[int, int]] = {}  # of items that never ran: whose failure it was
        self.names: dict[int, str] = {}  # state names such as Cached
        self.run_names: dict[int, str] = {}
        self.spent: dict[int, Spent] = {}
        self.lengths: dict[int, int] = {}
        self.cancel_wanted: set[int] = set()

    def open(self, width: int) -> None:
        """Give the node its items, all Pending."""
        self.opened = True
        self.width = width
        self.states = bytearray(width)
        self.attempts = array("H", bytes(2 * width))
        self.batches = array("i", [-1]) * width
        self.positions = array("i", bytes(4 * width))
        self.counts[State.PENDING] = width

    @property
    def unfinished(self) -> int:
        """Number of items that are in no terminal state; 1 while the width is unknown."""
        if not self.opened:
            return 1
        return self.width - sum(self.counts[s] for s in TERMINAL)

    def state(self, index: int) -> State:
        return State(self.states[index])

    def location(self, index: int) -> tuple[int, int] | None:
        """Return (batch_id, position) of a result that the engine holds."""
        batch_id = self.batches[index]
        return None if batch_id < 0 else (batch_id, self.positions[index])

    def budget(self, index: int) -> Spent:
        return self.spent.setdefault(index, Spent())


@dataclass(slots=True)
class Flight:
    """A batch, from its forming to its end.

    Attributes:
        names: limits of which it holds or awaits a lease.
        seen: items that are known to have started: positions below it.
        settled: positions whose end was acted upon before the table came.
    """

    batch_id: int
    node: Node
    indices: Sequence[int]
    attempts: array[int]
    runner: str
    names: tuple[str, ...] = ()
    submitted: bool = False
    over: bool = False
    lent: int = 0
    execution_id: str = ""
    worker: str = ""
    seen: int = 0
    settled: set[int] = field(default_factory=set)
    cancelling: bool = False
    waits_for_limit: bool = False
    log_seen: int = 0  # log lines below this seq are journalled
