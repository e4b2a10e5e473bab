"""What the coordinator remembers: a `Node` per submit or map, a `Flight` per batch, and bytes per item.

An item of a node costs one byte of state, four of attempt number and eight that say where its result is.
Whatever only some items have (an error, a spent retry) is in `Facts`, which most nodes do without.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, Protocol

from runners.messages import Detail, Stored

from .batching import ReadyQueue, Sizer
from .sparse import Facts, Notes, Spent
from .specs import INLINE, MAIN, Dependency, NodeSpec, Policy, Reach, Recovered
from .states import State
from .triggers import Tally

__all__ = [
    "INLINE",
    "MAIN",
    "Dependency",
    "Edge",
    "Facts",
    "Flight",
    "Node",
    "NodeSpec",
    "Part",
    "Policy",
    "Reach",
    "Recovered",
    "Rider",
    "Spent",
    "StoredResults",
]


class Edge:
    """A dependency, and how far it has been fulfilled.

    Attributes:
        members: SOME, ELEMENTS: the upstream items, and how many `remaining` have not ended.
        reverse: ALIGNED with indices, PICKED: upstream item -> items that wait for it.
        identity: item i waits for upstream item i, and both nodes are equally wide.
        blocks: it holds back all items of `down`.
        counted: per-item edges: `down.waits` includes it. Ends told before that are found in the states.
        dead: it concerns no item, because `down` is one item that stands for a map which cannot be.
    """

    __slots__ = (
        "blocks",
        "counted",
        "dead",
        "dependency",
        "down",
        "identity",
        "members",
        "per_item",
        "remaining",
        "reverse",
        "up",
    )

    def __init__(self, dependency: Dependency, up: Node, down: Node) -> None:
        self.dependency = dependency
        self.up = up
        self.down = down
        self.per_item = dependency.reach in (Reach.ALIGNED, Reach.PICKED)
        self.identity = dependency.reach is Reach.ALIGNED and (
            dependency.indices is None or _is_all_of(up, dependency.indices, down.spec.width)
        )
        self.members: range | frozenset[int] = range(0)
        self.remaining = 0
        self.reverse: dict[int, list[int]] | None = None
        self.blocks = False
        self.counted = False
        self.dead = False

    @property
    def element(self) -> int:
        """The upstream item of which the result is mapped over."""
        return next(iter(self.members))

    def uppers(self, item: int) -> Sequence[int]:
        """Return the upstream items that one item waits for along this per-item edge."""
        if self.up.stand_in:
            return (0,)
        dependency = self.dependency
        if dependency.reach is Reach.PICKED:
            return (dependency.picks or {}).get(item, ())
        return (item,) if dependency.indices is None else (dependency.indices[item],)

    def read_by(self, items: Iterable[int]) -> Iterable[int]:
        """Return the upstream items whose results some items read along this edge; some more than once."""
        return self.waited_for_by(items) if self.dependency.reads else ()

    def waited_for_by(self, items: Iterable[int]) -> Iterable[int]:
        """Return the upstream items that some items wait for along this edge; some more than once."""
        if self.dead:
            return ()
        if self.per_item:
            return (upper for item in items for upper in self.uppers(item))
        return range(self.up.width) if self.dependency.reach is Reach.ALL else self.members


def _is_all_of(up: Node, indices: Sequence[int], width: int | None) -> bool:
    """Whether indices are those of all items of a node, in order."""
    if not isinstance(indices, range) or not up.opened or up.stand_in:
        return False
    return indices == range(up.width) and width == up.width


WAITS = (State.READY, State.AWAITING_LIMIT, State.AWAITING_RETRY)  # of which a node keeps the time

_NO_FACTS = Facts()  # read through nodes that have none, never written


class Node:
    """A node's items, in columns. While `opened` is False the width is not known yet.

    Attributes:
        blockers: edges that hold back all items.
        waits: per item: unfinished upstream items of per-item edges; None without such edges.
        tainted_all: an upstream of all items did not simply complete.
        tainted: items of which an own upstream did not, one byte each; None if there is none.
        base: what the edges that concern all items say to triggers, once they have all been fulfilled.
        unusable: why what the node maps over cannot be mapped over.
        stand_in: its one item stands for a map whose width will never be known.
        flights: live batches by id.
        takers: edges to nodes that have not ended. See `releasing` for `heirs`, `dropped`, `closed`, `released`,
            `retired`.
        holes: some results are gone: of items that are Completed and whose result is nowhere.
        waited: seconds spent in the states WAITS so far, summed over items, up to `since`; empty if none.
    """

    __slots__ = (
        "_facts",
        "attempts",
        "base",
        "batches",
        "below",
        "blockers",
        "closed",
        "counts",
        "depth",
        "dropped",
        "flights",
        "heirs",
        "holes",
        "ins",
        "node_id",
        "opened",
        "outs",
        "parked",
        "policy",
        "positions",
        "queued",
        "ready",
        "released",
        "retired",
        "since",
        "sizer",
        "spec",
        "stand_in",
        "states",
        "tainted",
        "tainted_all",
        "takers",
        "unusable",
        "waited",
        "waits",
        "width",
    )

    def __init__(self, spec: NodeSpec, sizer: Sizer) -> None:
        self.spec = spec
        self.node_id = spec.node_id
        self.policy = spec.policy
        self.sizer = sizer
        self.depth, self.below = 0, 0.0  # maps above it; seconds of the longest way from its end, see `turns`
        self.opened = False
        self.width = 0
        self.states = bytearray()
        self.attempts: array[int] = array("I")
        self.batches: array[int] = array("i")  # where the result is: batch ...
        self.positions: array[int] = array("i")  # ... and position in it
        self.counts = [0] * len(State)
        self.ins: list[Edge] = []
        self.outs: list[Edge] = []
        self.blockers = 0
        self.waits: array[int] | None = None
        self.tainted_all = False
        self.tainted: bytearray | None = None
        self.base: tuple[Tally, tuple[Node, int] | None] | None = None
        self.unusable = ""
        self.stand_in = False
        self.ready = ReadyQueue()
        self.queued = False  # in the dispatcher's heap
        self.parked = False  # waits until fewer batches ask for its limits, or for its turn at a gate
        self.flights: dict[int, Flight] = {}
        self.takers = self.heirs = 0
        self.dropped = spec.runner == INLINE  # only its caller gets the result, at once
        self.closed = self.released = self.retired = self.holes = False
        self.waited: tuple[float, ...] = ()
        self.since = 0.0
        self._facts: Facts | None = None

    def open(self, width: int) -> None:
        """Give the node its items, all Pending."""
        self.width = width
        self.states = bytearray(width)
        self.attempts = array("I", bytes(4 * width))
        self.batches = array("i", [-1]) * width
        self.positions = array("i", bytes(4 * width))
        self.counts[State.PENDING] = width
        self.opened = True  # last: other threads read the columns of nodes that are open

    @property
    def unfinished(self) -> int:
        """Number of items that are in no terminal state; 1 while the width is unknown."""
        return sum(self.counts[: State.COMPLETED]) if self.opened else 1

    def wait_until(self, now: float) -> None:
        """Count the time since the last call for all items that wait. Exact, whatever their number."""
        elapsed = now - self.since
        if elapsed <= 0:
            return
        self.since = now
        waiting = [self.counts[state] for state in WAITS]
        if any(waiting):
            before = self.waited or (0.0,) * len(WAITS)
            self.waited = tuple([s + n * elapsed for s, n in zip(before, waiting, strict=True)])

    def state(self, index: int) -> State:
        return State(self.states[index])

    def location(self, index: int) -> tuple[int, int] | None:
        """Return (batch_id, position) of a result that the engine holds."""
        batch_id = self.batches[index]
        return None if batch_id < 0 else (batch_id, self.positions[index])

    def gone(self, index: int) -> bool:
        """Whether an item completed and its result is nowhere any more."""
        return (
            self.holes
            and self.batches[index] < 0
            and self.states[index] == State.COMPLETED
            and index not in self.known.recovered
        )

    def forget_places(self) -> None:
        """The engine forgets the node's results; those in storage stay known by their files."""
        if self.spec.runner == MAIN and not self.known.files:
            self.holes = True  # first: other threads read this
            self.batches = array("i", [-1]) * self.width

    def batch_runs(self, items: range) -> Iterator[tuple[int, range]]:
        """Yield contiguous items with the batch that has their results, in order; -1 where none has."""
        start = items.start
        for batch_id, group in groupby(self.batches[items.start : items.stop]):
            run = range(start, start + len(list(group)))
            yield batch_id, run
            start = run.stop

    def positions_of(self, indices: Sequence[int]) -> Sequence[int]:
        """Return where in their batch the results of items are; a range where they are contiguous there."""
        if not isinstance(indices, range):
            return [self.positions[index] for index in indices]
        positions = self.positions[indices.start : indices.stop]
        first, count = positions[0], len(positions)
        if positions[-1] - first != count - 1 or positions != _counted(first, first + count):
            return positions
        return range(first, first + count)

    def stage_in(self, batch_id: int) -> int:
        """Return which stage of a batch was this node's."""
        return self.known.stages.get(batch_id, 0)

    # --- sparse facts ---------------------------------------------------------------------------

    @property
    def facts(self) -> Facts:
        """The node's sparse facts, to write to."""
        if self._facts is None:
            self._facts = Facts()
        return self._facts

    @property
    def known(self) -> Facts:
        """The node's sparse facts, to read."""
        return self._facts or _NO_FACTS

    @property
    def details(self) -> Mapping[int, Detail]:
        return self.known.details

    @property
    def reasons(self) -> Notes[str]:
        return self.known.reasons

    @property
    def roots(self) -> Notes[tuple[int, int]]:
        return self.known.roots

    @property
    def names(self) -> Notes[str]:
        return self.known.names

    @property
    def run_names(self) -> Mapping[int, str]:
        return self.known.run_names

    @property
    def stored(self) -> StoredResults:
        return StoredResults(self)

    def budget(self, index: int) -> Spent:
        return self.facts.spent.setdefault(index, Spent())


class StoredResults:
    """Where items' results are in result storage: `stored[index]` is (file, position in it)."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        self._node = node

    def get(self, index: int) -> tuple[Stored, int] | None:
        node = self._node
        batch_id = node.batches[index]
        if batch_id < 0:
            return node.known.recovered.get(index)
        file = node.known.files.get(batch_id)
        return None if file is None else (file, node.positions[index])

    def __contains__(self, index: int) -> bool:
        return self.get(index) is not None

    def __getitem__(self, index: int) -> tuple[Stored, int]:
        found = self.get(index)
        if found is None:
            raise KeyError(index)
        return found


def _counted(start: int, stop: int) -> array[int]:
    """Return the numbers from start to stop. To count them anew costs as much as the rest of a batch's bookkeeping."""
    global _NUMBERS
    numbers = _NUMBERS  # replaced as a whole: any thread may ask
    if len(numbers) < stop:
        numbers = _NUMBERS = array("i", range(2 * stop))
    return numbers[start:stop]


_NUMBERS = array("i")
_NOTHING: frozenset[int] = frozenset()
_NO_ATTEMPTS: array[int] = array("I")


class _HasItems(Protocol):
    settled: set[int] | frozenset[int]

    @property
    def indices(self) -> Sequence[int]: ...


class _Part:
    """A node's items in a batch: what flights and their riders have in common."""

    __slots__ = ()

    def open_positions(self: _HasItems) -> Sequence[int]:
        """Return the positions whose end is not known yet."""
        n = len(self.indices)
        return [p for p in range(n) if p not in self.settled] if self.settled else range(n)

    def settle(self: _HasItems, positions: Sequence[int]) -> None:
        self.settled = self.settled.union(positions)


@dataclass(slots=True, eq=False)
class Flight(_Part):
    """A batch, from its forming to its end. Ended ones are kept, shrunk: results are named by batch.

    Attributes:
        riders: the nodes that share the batch, in order. Of those that follow, position p depends on position p
            of the one before.
        names: limits of which it holds or awaits a lease.
        gates: those that it is inside of.
        remake: its items have Completed; it makes their results again, which were lost. It moves no state.
        seen: items that are known to have started: positions below it. Of riders, those that are Running.
        entry: the column entry (see `runners.messages.Table`) that is known to have been reached.
        settled: positions whose end was acted upon before the table came. Their items may be in another
            flight by now.
        repeats: further execution ids that have been recorded as repeated starts.
        permitted: id of the last call that was given a permit.
        keepers: nodes that have results in it, which may be needed.
        rode: nodes of the riders of an ended flight: an engine may compute it again.
    """

    batch_id: int
    node: Node
    indices: Sequence[int]
    attempts: array[int]
    runner: str
    names: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    submitted: bool = False
    submitted_at: float = 0.0
    over: bool = False
    lent: int = 0
    riders: tuple[Rider, ...] = ()
    execution_id: str = ""
    worker: str = ""
    seen: int = 0
    settled: set[int] | frozenset[int] = _NOTHING
    cancelling: bool = False
    waits_for_limit: bool = False
    log_seen: int = 0  # log lines below this seq are journalled
    repeats: tuple[str, ...] = ()
    permitted: str = ""
    entry: int = 0
    keepers: int = 0
    rode: tuple[Node, ...] = ()
    remake: bool = False

    stage: ClassVar[int] = 0  # as a part of itself
    follows: ClassVar[bool] = False

    @property
    def flight(self) -> Flight:
        return self

    @property
    def parts(self) -> tuple[Flight | Rider, ...]:
        """The parts of its nodes, by stage."""
        return (self, *self.riders)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes whose items are in it, by stage; also after its end."""
        return (self.node, *(rider.node for rider in self.riders), *self.rode)

    def shrink(self) -> None:
        """Forget what an ended flight needs no longer."""
        self.attempts = _NO_ATTEMPTS
        self.settled = _NOTHING
        self.names = ()
        self.permitted = ""
        self.rode = tuple(rider.node for rider in self.riders)
        self.riders = ()


@dataclass(slots=True, eq=False)
class Rider(_Part):
    """A further node's part in a shared batch, a stage later. Reads like a flight of its own.

    Attributes:
        follows: fused: each item waits for the same item of the stage before. Otherwise pooled: all that they
            share is the batch.
    """

    flight: Flight
    stage: int
    node: Node
    attempts: array[int]
    follows: bool = True
    settled: set[int] | frozenset[int] = _NOTHING

    @property
    def batch_id(self) -> int:
        return self.flight.batch_id

    @property
    def indices(self) -> Sequence[int]:
        return self.flight.indices

    @property
    def execution_id(self) -> str:
        return self.flight.execution_id

    @property
    def worker(self) -> str:
        return self.flight.worker

    @property
    def submitted_at(self) -> float:
        return self.flight.submitted_at

    @property
    def seen(self) -> int:
        return 0


Part = Flight | Rider
