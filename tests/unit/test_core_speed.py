"""Costs: bytes per item, entries per batch, and no event that looks at everything.

Times are too noisy for a test; what is counted here is calls of Python functions, which is not.
"""

from __future__ import annotations

import cProfile
import tracemalloc
from array import array
from collections import deque
from collections.abc import Callable, Sequence

import pytest

from orchestration.core.commands import AskLeases, Command, SubmitBatch
from orchestration.core.coordinator import Coordinator
from orchestration.core.events import CancelRequested, LeasesAnswered, LimitsKnown, NodeSubmitted
from orchestration.core.journal import Moved
from orchestration.core.specs import Dependency, NodeSpec, Policy, Reach
from runners.messages import BatchFinished, BatchStarted, Outcome, SlotsChanged, Table


def table(command: SubmitBatch, each: float = 1e-4) -> Table:
    n = len(command.indices) * len(command.node_ids)
    offsets = array("d", [each * k for k in range(n)])
    return Table(
        command.batch_id, "x", "w", 0.0, bytes([Outcome.COMPLETED]) * n, offsets, array("d", [each]) * n
    )


def run_all(specs: Sequence[NodeSpec], slots: int = 8) -> tuple[Coordinator, list[Command]]:
    """Run nodes to their end on an engine that does nothing."""
    core = Coordinator("run", lambda: 0.5, prefetch=2)
    said: list[Command] = []
    queue: deque[SubmitBatch] = deque()
    asks: deque[AskLeases] = deque()

    def tell(event: object) -> None:
        commands = core.handle(event, 0.0)  # type: ignore[arg-type]
        said.extend(commands)
        queue.extend(c for c in commands if isinstance(c, SubmitBatch))
        asks.extend(c for c in commands if isinstance(c, AskLeases))

    tell(SlotsChanged(slots))
    tell(LimitsKnown(frozenset({"db"})))
    for spec in specs:
        tell(NodeSubmitted(spec))
    while queue or asks:
        if asks:
            tell(LeasesAnswered(asks.popleft().batch_id, True, {}))
            continue
        command = queue.popleft()
        tell(BatchStarted(command.batch_id, "x", "w", 0.0))
        tell(BatchFinished(table(command)))
    assert all(node.unfinished == 0 for node in core.nodes.values())
    return core, said


def calls_of(action: Callable[[], object]) -> int:
    """Count calls of functions, also of built-in ones."""
    profile = cProfile.Profile()
    profile.runcall(action)
    return sum(entry.callcount for entry in profile.getstats())


def single(node_id: int, *dependencies: Dependency) -> NodeSpec:
    return NodeSpec(node_id, f"t{node_id}", "t", dependencies=dependencies)


def chain(n: int) -> list[NodeSpec]:
    return [single(i, *((Dependency(i - 1, Reach.SOME, (0,)),) if i else ())) for i in range(n)]


def fan_in_of_singles(n: int) -> list[NodeSpec]:
    return [*map(single, range(n)), single(n, *(Dependency(i, Reach.SOME, (0,)) for i in range(n)))]


def fan_in_of_a_map(n: int) -> list[NodeSpec]:
    every_other = Dependency(0, Reach.SOME, tuple(range(0, n, 2)))
    mapped = NodeSpec(0, "m", "m", "map", n, Policy(batch=1))
    return [mapped, single(1, Dependency(0, Reach.ALL), every_other)]


def slow_map(n: int) -> list[NodeSpec]:
    return [NodeSpec(0, "m", "m", "map", n, Policy(batch=1))]


def slow_map_of_a_map(n: int) -> list[NodeSpec]:
    one = Policy(batch=1)
    return [
        NodeSpec(0, "a", "a", "map", n, one),
        NodeSpec(1, "b", "b", "map", None, one, (Dependency(0, Reach.ALIGNED),)),
    ]


def limited(n: int) -> list[NodeSpec]:
    return [NodeSpec(i, f"t{i}", "t", tags=frozenset({"db"})) for i in range(n)]


@pytest.mark.parametrize(
    "make", [chain, fan_in_of_singles, fan_in_of_a_map, slow_map, slow_map_of_a_map, limited]
)
def test_eight_times_the_work_costs_eight_times_as_much(make: Callable[[int], list[NodeSpec]]) -> None:
    """No event of one task run looks at all the others."""
    small, large = calls_of(lambda: run_all(make(100))), calls_of(lambda: run_all(make(800)))
    assert large < 8 * 1.25 * small


def test_a_map_costs_by_batch() -> None:
    """A hundred thousand short items take some hundred events and entries, and no call per item."""
    specs = [
        NodeSpec(0, "a", "a", "map", 100_000),
        NodeSpec(1, "b", "b", "map", None, dependencies=(Dependency(0, Reach.ALIGNED),)),
        single(2, Dependency(1, Reach.ALL)),
    ]
    said: list[Command] = []
    calls = calls_of(lambda: said.extend(run_all(specs)[1]))
    assert calls < 200_000
    assert len(said) < 10_000


def test_a_waiting_item_takes_few_bytes() -> None:
    """A map of a map of a hundred thousand items waits in less than 25 bytes per item."""
    core = Coordinator("run", lambda: 0.5)
    tracemalloc.start()
    try:
        core.handle(NodeSubmitted(NodeSpec(0, "a", "a", "map", 100_000)), 0.0)
        core.handle(
            NodeSubmitted(NodeSpec(1, "b", "b", "map", None, dependencies=(Dependency(0, Reach.ALIGNED),))),
            0.0,
        )
        assert tracemalloc.get_traced_memory()[0] < 25 * 200_000
    finally:
        tracemalloc.stop()


def test_ended_items_take_few_bytes() -> None:
    """What stays of a map that has run is as small."""
    tracemalloc.start()
    try:
        core, said = run_all([NodeSpec(0, "a", "a", "map", 100_000)])
        said.clear()
        core.ledger.out = []
        assert tracemalloc.get_traced_memory()[0] < 25 * 100_000
    finally:
        tracemalloc.stop()


def test_a_single_task_takes_little() -> None:
    """Ten thousand tasks submitted one by one wait in less than 2 kB each."""
    specs = [single(i) for i in range(2000)]
    core = Coordinator("run", lambda: 0.5)
    tracemalloc.start()
    try:
        for spec in specs:
            core.handle(NodeSubmitted(spec), 0.0)
        assert tracemalloc.get_traced_memory()[0] < 2000 * 2000
    finally:
        tracemalloc.stop()


def test_cancelling_one_item_does_not_look_at_the_others() -> None:
    """Items of a wide map can be cancelled one by one."""

    def cancel_all_of(n: int) -> None:
        core = Coordinator("run", lambda: 0.5)
        core.handle(NodeSubmitted(NodeSpec(0, "a", "a", "map", n)), 0.0)
        for index in range(n):
            core.handle(CancelRequested(0, frozenset({index})), 0.0)
        assert core.nodes[0].unfinished == 0

    small, large = calls_of(lambda: cancel_all_of(100)), calls_of(lambda: cancel_all_of(800))
    assert large < 8 * 1.25 * small


def test_a_tail_that_comes_back_is_one_entry() -> None:
    """A batch over its deadline returns thousands of items by one entry."""
    core = Coordinator("run", lambda: 0.5)
    core.handle(SlotsChanged(1), 0.0)
    core.handle(NodeSubmitted(NodeSpec(0, "a", "a", "map", 5000, Policy(batch=5000))), 0.0)
    column = array("d", bytes(8 * 5000))
    outcomes = bytes([Outcome.COMPLETED]) * 10 + bytes(4990)
    said = core.handle(BatchFinished(Table(0, "x", "w", 0.0, outcomes, column, column)), 0.0)
    assert sum(isinstance(command, Moved) for command in said) == 2
