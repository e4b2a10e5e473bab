"""Whole flows through the real coordinator, on a simulated engine, in virtual time.

    steps = [Step(NodeSpec(0, "load", "load", "map", 1000)),
             Step(NodeSpec(1, "sum", "sum", dependencies=(Dependency(0, Reach.ALL),)))]
    report = simulate(steps, seed=7, workers=4, faults=Faults(death=0.1, delay=0.5))
    assert report.ends == reference(steps)

The same arguments give the same report. Nothing sleeps: the clock jumps from event to event.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from runners.messages import ResultsLost, Stored

from ..core import invariants
from ..core.commands import (
    AnswerPermit,
    AskLeases,
    CancelBatches,
    Command,
    ForgetNodes,
    ReleaseBatches,
    SubmitBatch,
    WithdrawLeases,
)
from ..core.coordinator import Coordinator
from ..core.events import (
    CoreEvent,
    FilesLost,
    FuturesDropped,
    LeasesAnswered,
    LimitsKnown,
    NodeSubmitted,
    ResultsWanted,
    Tick,
)
from ..core.journal import Entry, LeasesReturned
from ..core.records import Node
from ..core.states import State
from .clock import ManualClock
from .engine import Faults, SimulatedEngine
from .leases import LeaseAuthority
from .replayed import Replayed
from .results import Results
from .script import Act, End, Step, Value, resubmitted


class Stuck(AssertionError):
    """Nothing will happen any more, and some items have not ended."""


class Crash(Exception):
    """The simulated flow process has died."""


TOGETHER = 0.25  # share of the events that wait for others of the same moment


class World:
    """Virtual time, and what happens in it."""

    def __init__(self) -> None:
        self.clock = ManualClock(0.0)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._seq = 0

    @property
    def now(self) -> float:
        return self.clock.now()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._seq += 1
        heapq.heappush(self._due, (self.now + seconds, self._seq, action))

    @property
    def due(self) -> float | None:
        return self._due[0][0] if self._due else None

    def step(self) -> None:
        """Go to the next thing that happens."""
        when, _, action = heapq.heappop(self._due)
        self.clock.jump(max(when, self.now))
        action()


@dataclass
class Storage:
    """Result storage. It outlives processes of the run.

    Attributes:
        files: address -> position -> value.
        damaged: those that nobody may believe any more.
        made: by node and index, what each item returned last.
    """

    files: dict[str, dict[int, Value]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    made: dict[tuple[int, int], Value] = field(default_factory=dict)


class Run:
    """One flow run in a world: its coordinator, engine and journal.

    Args:
        crash_after: the process dies when it has journalled so many turns.
        check: compare state, journal and invariants after every event. Slow with many items.
    """

    def __init__(
        self,
        world: World,
        steps: Sequence[Step],
        *,
        run_id: str = "run",
        seed: int = 0,
        workers: int = 4,
        prefetch: int = 2,
        faults: Faults | None = None,
        leases: LeaseAuthority | None = None,
        crash_after: int | None = None,
        check: bool = False,
        first_batch_id: int = 0,
        storage: Storage | None = None,
    ) -> None:
        rng = random.Random(seed)
        self.world = world
        self.steps = {step.spec.node_id: step for step in steps}
        self.core = Coordinator(run_id, rng.random, prefetch=prefetch, first_batch_id=first_batch_id)
        self.storage = storage = storage or Storage()
        self.engine = SimulatedEngine(world, self, rng, workers, faults, storage.made)
        self.leases = leases
        self.results = Results(self.core, self.steps, self.engine.results, storage.files, storage.made)
        self.forgotten: set[int] = set()
        self.journal: list[Entry] = []
        self.turns = 0
        self.crash_after = crash_after
        before = {i: s.spec.recovered for i, s in self.steps.items() if s.spec.recovered is not None}
        self.replayed = Replayed(before=before) if check else None
        self._before = before
        self._wake_at: float | None = None
        self._inbox: list[CoreEvent] = []
        self._moods = random.Random(seed + 2)
        world.later(0.0, self._start)
        for step in steps:
            world.later(step.at, partial(self.post, NodeSubmitted(step.spec)))
        last, moods = max((step.at for step in steps), default=0.0), random.Random(seed + 1)
        self.held: list[int] = []  # nodes of which the flow keeps futures
        for step in steps:
            if moods.random() < 0.5:
                self.held.append(step.spec.node_id)
            else:
                dropped = FuturesDropped(step.spec.node_id)
                world.later(last + moods.uniform(0.0, 2.0), partial(self.post, dropped))

    def _start(self) -> None:
        if self.leases is not None:
            self.post(LimitsKnown(frozenset(self.leases.limits)))
        self.engine.start()

    @property
    def done(self) -> bool:
        nodes = self.core.nodes
        return len(nodes) == len(self.steps) and all(node.unfinished == 0 for node in nodes.values())

    # --- turns ----------------------------------------------------------------------------------

    def post(self, event: CoreEvent) -> None:
        """Let the coordinator handle an event, at once or with others of the same moment."""
        self._inbox.append(event)
        if self._moods.random() < TOGETHER:
            self.world.later(0.0, self._turn)
        else:
            self._turn()

    def _turn(self) -> None:
        """Let the coordinator handle what has happened, journal, then act."""
        events, self._inbox = self._inbox, []
        if self.engine.gone or not events:
            return
        leap = self.engine.faults.leap
        if leap and self.engine.rng.random() < leap:
            self.world.clock.jump(self.world.now + 3600.0)
        commands = self.core.handle_all(events, self.world.now)
        entries = [c for c in commands if isinstance(c, Entry)]
        self.journal += entries
        self.journal += self.core.counted()
        self.turns += bool(entries)
        if self.replayed is not None:
            for entry in entries:
                self.replayed.apply(entry)
            self.replayed.check(self.core)
            invariants.check(self.core)
        if self.crash_after is not None and self.turns >= self.crash_after:
            self.engine.gone = True
            raise Crash
        for command in commands:
            self._perform(command)
        self._set_timer()

    def _perform(self, command: Command) -> None:
        match command:
            case SubmitBatch():
                assert self.forgotten.isdisjoint(command.node_ids), "a node runs that was to be forgotten"
                self.engine.submit(command)
            case ForgetNodes(node_ids):
                self.forgotten.update(node_ids)
            case CancelBatches(batch_ids, force):
                self.engine.cancel(batch_ids, force=force)
            case ReleaseBatches(batch_ids):
                self.engine.release(batch_ids)
            case AnswerPermit(call_id, permitted):
                self.world.later(0.0, lambda: self.engine.answer(call_id, permitted))
            case AskLeases(batch_id, names, label):
                self._leases().ask(self._holder(batch_id), names, label, batch_id, self._tell)
            case WithdrawLeases(batch_ids):
                self._leases().release([self._holder(batch_id) for batch_id in batch_ids])
            case LeasesReturned(holders):
                self._leases().release(holders)
            case _:
                pass

    def _leases(self) -> LeaseAuthority:
        assert self.leases is not None
        return self.leases

    def _holder(self, batch_id: int) -> str:
        return f"{self.core.run_id}/batch/{batch_id}"

    def _tell(self, answer: LeasesAnswered) -> None:
        self.world.later(0.0, lambda: self.post(answer))

    def _set_timer(self) -> None:
        due = self.core.next_timer()
        if due is None or (self._wake_at is not None and self.world.now < self._wake_at <= due):
            return
        self._wake_at = due

        def tick() -> None:
            if self._wake_at == due:
                self._wake_at = None
                self.post(Tick())

        self.world.later(max(0.0, due - self.world.now), tick)

    # --- what the engine asks -------------------------------------------------------------------

    def act(self, node_id: int, index: int) -> Act:
        spent = self.core.nodes[node_id].known.spent.get(index)
        return self.steps[node_id].plan(index, spent.failures if spent else 0)

    def value(self, node_id: int, index: int, given: Value | None) -> Value:
        return self.results.value(node_id, index, given)

    def inputs(self, command: SubmitBatch) -> frozenset[int]:
        """Return the batches that hold what a batch reads."""
        found: set[int] = set()
        for node in map(self.core.nodes.__getitem__, command.node_ids):
            for edge in node.ins:
                if edge.up.node_id not in command.node_ids:
                    members = edge.read_by(command.indices)
                    found.update(edge.up.batches[i] for i in members)
        return frozenset(found - {-1})

    def files_of(self, command: SubmitBatch) -> frozenset[str]:
        """Return the files in storage that a batch reads."""
        ups = {
            (edge.up, i)
            for node in map(self.core.nodes.__getitem__, command.node_ids)
            for edge in node.ins
            for i in edge.read_by(command.indices)
        }
        return frozenset(up.stored[i][0].url for up, i in ups if up.batches[i] < 0 and i in up.stored)

    def is_damaged(self, url: str) -> bool:
        return url in self.storage.damaged

    def persist(self, batch_id: int, node_id: int, values: Mapping[int, Value]) -> Stored | None:
        if not self.steps[node_id].persist or not values:
            return None
        url = f"memory:{batch_id}/{node_id}"
        self.storage.files.setdefault(url, dict(values))
        engine = self.engine
        if engine.faults.files_lost and engine.rng.random() < engine.faults.files_lost:
            self.world.later(engine.rng.uniform(0.0, 3.0), partial(self.storage.damaged.add, url))
        return Stored(url, "")

    def fetch(self) -> bool:
        """Ask for all results that the flow has futures of, as its last act. Returns whether all of them were there."""
        whole = True
        for node in (self.core.nodes[node_id] for node_id in self.held):
            silent = {b for b in set(node.batches) if b in self.engine.vanished}
            if silent:
                self.post(ResultsLost(tuple(silent), "it is not there"))
            read = {node.stored[i][0].url for i in range(node.width) if self._reads_file(node, i)}
            if not read.isdisjoint(self.storage.damaged):
                bad = frozenset(read & self.storage.damaged)
                self.post(FilesLost(node.node_id, bad, "its file is damaged"))
            gone = [i for i in range(node.width) if node.gone(i) and i not in node.known.hopeless]
            if gone:
                self.post(ResultsWanted(node.node_id, gone))
                whole = False
        return whole

    def _reads_file(self, node: Node, index: int) -> bool:
        return node.states[index] == State.COMPLETED and node.batches[index] < 0 and index in node.stored

    # --- afterwards -----------------------------------------------------------------------------

    def replay(self) -> Replayed:
        return Replayed(self.journal, self._before)

    def why_stuck(self) -> str:
        """Tell the stories of some items that have not ended."""
        lines = [f"paused={self.core.paused} slots={self.core.slots} at_engine={self.core.at_engine}"]
        for node in self.core.nodes.values():
            open_ = [i for i in range(node.width) if node.states[i] < State.COMPLETED]
            if open_ or not node.opened:
                lines.append(f"{node.spec.path}: {len(open_)} of {node.width} items, opened={node.opened}")
                lines += [f"  {line}" for i in open_[:2] for line in self.core.story(node.node_id, i)]
        return "\n".join(lines[:60])


@dataclass
class Report:
    """What came of a simulated flow.

    Attributes:
        ends: by node, how each item ended.
        journal: of the last process; `lives` are those of all of them, in order.
        starts: by (node, index), how often its code was started, over all processes.
    """

    ends: dict[int, list[End]]
    journal: list[Entry]
    lives: list[Run]
    starts: dict[tuple[int, int], int]
    seconds: float
    deaths: int


def drain(world: World, runs: Sequence[Run], *, max_steps: int = 10_000_000) -> None:
    """Let time pass until all runs are done and all news has arrived.

    Raises:
        Stuck: nothing will happen any more, and a run is not done.
        Crash: a run's process has died.
    """
    for _ in range(max_steps):
        if world.due is None:
            break
        world.step()
    for run in runs:
        if not run.done:
            raise Stuck(run.why_stuck())


def simulate(
    steps: Sequence[Step],
    *,
    seed: int = 0,
    workers: int = 4,
    prefetch: int = 2,
    faults: Faults | None = None,
    limits: Mapping[str, int] | None = None,
    crashes: Sequence[int] = (),
    check: bool = False,
) -> Report:
    """Run a flow to its end.

    Args:
        crashes: after how many journalled turns the process of each life but the last dies. Each next life
            recovers what the journal and the result storage of the ones before tell.
        check: check invariants and journal after every event.
    """
    world = World()
    leases = LeaseAuthority(limits) if limits is not None else None
    lives: list[Run] = []
    storage, decay = Storage(), random.Random(seed + 3)
    first_batch_id = 0
    for life, crash_after in enumerate([*crashes, None]):
        run = Run(
            world,
            steps,
            seed=seed + life,
            workers=workers,
            prefetch=prefetch,
            faults=faults,
            leases=leases,
            crash_after=crash_after,
            check=check,
            first_batch_id=first_batch_id,
            storage=storage,
        )
        lives.append(run)
        try:
            drain(world, [run])
            while not run.fetch():
                drain(world, [run])
            break
        except Crash:
            replayed = run.replay()
            first_batch_id = max(run.core.flights, default=first_batch_id - 1) + 1
            steps = resubmitted(steps, replayed.recovered)
            world = World()
            if faults is not None and faults.files_lost:
                storage.damaged.update(u for u in storage.files if decay.random() < faults.files_lost)
            if leases is not None:
                leases.expire(run.core.run_id)
    starts: dict[tuple[int, int], int] = {}
    for run in lives:
        for item, n in run.engine.starts.items():
            starts[item] = starts.get(item, 0) + n
    last = lives[-1]
    return Report(
        last.results.ends(), last.journal, lives, starts, world.now, sum(run.engine.deaths for run in lives)
    )
