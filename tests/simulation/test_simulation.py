"""Whole flows in virtual time: random ones with faults and crashes, and the big shapes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence

import pytest

from orchestration.core.journal import AttemptsEnded, Moved, StartRepeated
from orchestration.core.specs import Dependency, NodeSpec, Policy, Reach
from orchestration.core.states import State
from orchestration.testing.engine import Faults
from orchestration.testing.flows import ENOUGH, random_chains, random_flow, random_submits
from orchestration.testing.leases import LeaseAuthority
from orchestration.testing.script import Act, End, Step, reference
from orchestration.testing.simulation import Report, Run, World, drain, simulate
from runners.messages import Outcome

# How many blocks of seeds, and how many seeds a block, so that one ends within a test's time on a busy machine:
# "faults" is for `make faults`, "long" for an idle machine.
BLOCKS, FUSION_BLOCKS, SEEDS = {"long": (200, 80, 250), "faults": (32, 8, 250)}.get(
    os.environ.get("MILLRACE_SIMULATION", ""), (8, 1, 150)
)

Told = Callable[[str, object], None]  # for the page about faults: see tests/faults/conftest.py

LYING = Faults(delay=0.5, hint_lost=0.3, hint_repeated=0.3, repeated=0.1)
DEADLY = Faults(
    death=0.2,
    zombie=0.5,
    hint_lost=0.2,
    hint_repeated=0.3,
    repeated=0.2,
    input_lost=0.05,
    delay=1.5,
    ends_workers=True,
)
FORGETFUL = Faults(results_lost=0.2, delay=0.2)
ROTTEN = Faults(results_lost=0.2, files_lost=0.3, delay=0.2)
CRUEL = Faults(
    death=0.1,
    zombie=0.5,
    hint_lost=0.2,
    repeated=0.2,
    input_lost=0.02,
    results_lost=0.15,
    files_lost=0.1,
    delay=1.0,
)
ODD_CLOCKS = Faults(death=0.1, hint_late=0.3, hint_repeated=0.3, delay=0.5, skew=4000.0, leap=0.02)
FAULTS = (None, LYING, DEADLY, FORGETFUL, ROTTEN, CRUEL, ODD_CLOCKS)
HARDY = Policy(retries_on_loss=ENOUGH)


def play(seed: int, *, check: bool) -> tuple[Report, list[Step]]:
    """Run the random flow of a seed, with the faults, limits and crashes of that seed."""
    rng = random.Random(seed)
    limits = {"db": rng.randint(1, 3), "api": 1} if rng.random() < 0.4 else None
    steps = random_flow(rng, tags=tuple(limits or ()))
    report = simulate(
        steps,
        seed=seed,
        workers=rng.choice((1, 3, 8)),
        prefetch=rng.choice((1, 2)),
        faults=rng.choice(FAULTS),
        limits=limits,
        crashes=[rng.randrange(1, 40) for _ in range(rng.choice((0, 0, 1, 3)))],
        check=check,
    )
    return report, steps


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_flows_end_as_the_reference_interpreter_says(block: int, record_property: Told) -> None:
    """Whatever is lost, repeated, late or crashed: states and values are those of a run without trouble."""
    for seed in range(SEEDS * block, SEEDS * (block + 1)):
        report, steps = play(seed, check=seed % 5 == 0)
        assert report.ends == reference(steps), f"seed {seed}"
        journal_says_each_item_ended_once(report)
    record_property("seeds", SEEDS)


def journal_says_each_item_ended_once(report: Report) -> None:
    run = report.lives[-1]
    replayed = run.replay()
    replayed.check(run.core)
    for items in replayed.items.values():
        assert all(item.terminal == 1 for item in items)


def test_the_same_seed_gives_the_same_journal() -> None:
    """A simulation that failed can be repeated: nothing in it depends on the machine or the hour."""
    first, second = play(11, check=False)[0], play(11, check=False)[0]
    assert repr(first.journal) == repr(second.journal)


STORED = [
    Step(NodeSpec(0, "a", "a", "map", 12, HARDY), persist=True),
    Step(
        NodeSpec(1, "b", "b", "map", None, HARDY, (Dependency(0, Reach.ALIGNED),)),
        lambda i, n: Act(length=3),
        persist=True,
    ),
    Step(NodeSpec(2, "c", "c", "map", None, HARDY, (Dependency(1, Reach.ELEMENTS, (4,)),)), persist=True),
    Step(NodeSpec(3, "d", "d", policy=HARDY, dependencies=(Dependency(2, Reach.ALL),)), persist=True),
]


def test_a_crash_after_any_turn_is_recovered_from() -> None:
    """Killed after its n-th transaction, for every n, the run is finished by the next process, and what had
    been stored is not run again."""
    turns = simulate(STORED, seed=5).lives[0].turns
    expected = reference(STORED)
    for crash_after in range(1, turns):
        report = simulate(STORED, seed=5, crashes=[crash_after], check=True)
        assert report.ends == expected
        first = report.lives[0].replay()
        for node_id, items in first.items.items():
            for index, item in enumerate(items):
                if item.state is State.COMPLETED:
                    assert report.lives[1].engine.starts[node_id, index] == 0


def test_crashes_during_recovery_are_recovered_from() -> None:
    """Processes that die soon after one another leave nothing half done."""
    report = simulate(STORED, seed=6, crashes=[9, 2, 1, 14, 3], faults=LYING, check=True)
    assert report.ends == reference(STORED)


def width_of(steps: Sequence[Step], ends: Mapping[int, list[End]]) -> int:
    assert all(end.state is State.COMPLETED for items in ends.values() for end in items)
    assert ends == reference(steps)
    return sum(map(len, ends.values()))


def test_a_chain_of_ten_thousand_tasks() -> None:
    """A long chain neither deepens the stack nor slows down on the way."""
    steps = [
        Step(NodeSpec(i, f"t{i}", "t", dependencies=(Dependency(i - 1, Reach.SOME, (0,)),) if i else ()))
        for i in range(10_000)
    ]
    assert width_of(steps, simulate(steps).ends) == 10_000


def test_a_fan_in_of_a_hundred_thousand() -> None:
    """One task run may wait for a hundred thousand, and get the value of each."""
    steps = [
        Step(NodeSpec(0, "part", "part", "map", 100_000), lambda i, n: Act(seconds=1e-4)),
        Step(NodeSpec(1, "sum", "sum", dependencies=(Dependency(0, Reach.ALL),))),
    ]
    assert width_of(steps, simulate(steps, workers=8, faults=LYING).ends) == 100_001


def test_a_map_of_a_map_of_a_map_on_dying_workers() -> None:
    """Twenty thousand items run through three stages while workers die."""
    up = (Dependency(0, Reach.ALIGNED),), (Dependency(1, Reach.ALIGNED),)
    steps = [
        Step(NodeSpec(0, "a", "a", "map", 20_000, HARDY), lambda i, n: Act(seconds=1e-4)),
        Step(NodeSpec(1, "b", "b", "map", None, HARDY, up[0]), lambda i, n: Act(seconds=1e-4)),
        Step(NodeSpec(2, "c", "c", "map", None, HARDY, up[1]), lambda i, n: Act(seconds=1e-4)),
    ]
    report = simulate(steps, workers=8, faults=Faults(death=0.1, delay=0.1))
    assert width_of(steps, report.ends) == 60_000
    assert report.deaths
    assert fused(report) > 30_000


@pytest.mark.parametrize("block", range(FUSION_BLOCKS))
@pytest.mark.parametrize("random_steps", [random_chains, random_submits], ids=["fused", "pooled"])
def test_shared_batches_end_as_the_reference_interpreter_says(
    record_property: Told, random_steps: Callable[..., list[Step]], block: int
) -> None:
    """Chains of short maps, and loops of submits of which some take long: with failures, skips, losses and crashes."""
    rode = 0
    for seed in range(SEEDS * block, SEEDS * (block + 1)):
        rng = random.Random(seed)
        limits = {"db": rng.randint(1, 3)} if rng.random() < 0.3 else None
        steps = random_steps(rng, tags=tuple(limits or ()))
        report = simulate(
            steps,
            seed=seed,
            workers=rng.choice((1, 3)),
            faults=rng.choice(FAULTS),
            limits=limits,
            crashes=[rng.randrange(1, 40) for _ in range(rng.choice((0, 0, 1, 2)))],
            check=seed % 5 == 0,
        )
        assert report.ends == reference(steps), f"seed {seed}"
        journal_says_each_item_ended_once(report)
        rode += fused(report)
    assert rode > 5 * SEEDS
    record_property("seeds", SEEDS)


def fused(report: Report) -> int:
    """Return how many task runs have ended in a later stage of a batch."""
    first_nodes: dict[int, int] = {}
    rode = 0
    for entry in report.journal:
        if isinstance(entry, AttemptsEnded) and entry.batch_id >= 0:
            first = first_nodes.setdefault(entry.batch_id, entry.node_id)
            rode += len(entry.indices) if entry.node_id != first else 0
    return rode


def test_a_diamond() -> None:
    """Two branches of one source meet again."""
    steps = [
        Step(NodeSpec(0, "source", "source")),
        Step(NodeSpec(1, "left", "left", "map", 5, dependencies=(Dependency(0, Reach.ALL),))),
        Step(NodeSpec(2, "right", "right", dependencies=(Dependency(0, Reach.SOME, (0,)),))),
        Step(
            NodeSpec(
                3, "join", "join", dependencies=(Dependency(1, Reach.ALL), Dependency(2, Reach.SOME, (0,)))
            )
        ),
    ]
    assert width_of(steps, simulate(steps, check=True).ends) == 8


@pytest.mark.parametrize("seed", range(20))
def test_code_that_must_not_run_twice_does_not(seed: int) -> None:
    """With rerun_on_loss=False each attempt's code starts once, through deaths, repeats and a crash."""
    policy = Policy(rerun_on_loss=False, retries_on_loss=ENOUGH)
    spec = NodeSpec(0, "pay", "pay", "map", 40, policy)
    steps = [Step(spec, lambda i, n: Act(seconds=0.1), persist=seed % 4 < 2)]
    report = simulate(
        steps, seed=seed, faults=DEADLY, check=True, crashes=[25, 9, 14] if seed % 2 else [], workers=3
    )
    assert max(report.starts.values()) == 1
    ended = {end.state for end in report.ends[0]}
    assert ended <= {State.COMPLETED, State.CRASHED}


def test_an_item_that_kills_its_worker_is_isolated() -> None:
    """The killer ends as Crashed within its budget; its neighbours complete."""
    steps = [
        Step(NodeSpec(0, "a", "a", "map", 30, Policy(batch=10)), lambda i, n: Act(kills=i == 17)),
    ]
    report = simulate(steps, workers=2, faults=Faults(hint_lost=1.0), check=True)
    states = [end.state for end in report.ends[0]]
    assert states[17] is State.CRASHED
    assert states.count(State.COMPLETED) == 29
    assert report.deaths <= 6


@pytest.mark.parametrize("ends_workers", [True, False])
def test_an_item_that_hangs_holds_nobody_up(ends_workers: bool) -> None:
    """What was to follow it in its batch runs elsewhere, long before it ends, and starts once."""

    def plan(index: int, failures: int) -> Act:
        if index == 7:
            return Act(Outcome.TIMED_OUT, seconds=1000.0, deaf=True)
        return Act(seconds=0.1)

    steps = [Step(NodeSpec(0, "a", "a", "map", 30, Policy(batch=10)), plan)]
    report = simulate(steps, workers=2, prefetch=1, faults=Faults(ends_workers=ends_workers), check=True)
    states = [end.state for end in report.ends[0]]
    assert states[7] is State.FAILED
    assert states.count(State.COMPLETED) == 29
    assert report.deaths == ends_workers
    assert all(report.starts[0, index] == 1 for index in range(8, 30))
    late = [e for e in report.journal if isinstance(e, AttemptsEnded) and e.at > 100.0]
    assert sorted(i for e in late for i in e.indices) == ([] if ends_workers else list(range(7)))


def test_runs_share_limits_without_overbooking() -> None:
    """Five runs under one limit of two: never more than two at once, and nobody starves."""
    world, leases = World(), LeaseAuthority({"db": 2})
    steps = [
        Step(NodeSpec(0, "a", "a", "map", 40, HARDY, tags=frozenset({"db"})), lambda i, n: Act(seconds=0.3)),
        Step(NodeSpec(1, "b", "b", policy=HARDY, dependencies=(Dependency(0, Reach.ALL),))),
    ]
    runs = [
        Run(world, steps, run_id=f"run{k}", seed=k, leases=leases, faults=DEADLY, check=True)
        for k in range(5)
    ]
    drain(world, runs)
    assert leases.most["db"] == 2
    assert leases.quiet


def test_a_dead_run_gives_its_leases_back() -> None:
    """A run that crashes while it holds a limit does not keep it from its next life."""
    steps = [Step(NodeSpec(0, "a", "a", "map", 20, HARDY, tags=frozenset({"db"})))]
    report = simulate(steps, limits={"db": 1}, crashes=[4, 6], check=True)
    assert report.ends == reference(steps)


def test_a_second_execution_is_recorded() -> None:
    """When an engine runs a batch again, the journal says so, and the first table counts."""
    steps = [Step(NodeSpec(0, "a", "a", "map", 50))]
    report = simulate(steps, faults=Faults(repeated=1.0), check=True)
    assert report.ends == reference(steps)
    assert any(isinstance(entry, StartRepeated) for entry in report.journal)


def test_a_big_map_is_journalled_by_batch() -> None:
    """A hundred thousand short items make some hundred entries, not one each."""
    steps = [Step(NodeSpec(0, "a", "a", "map", 100_000), lambda i, n: Act(seconds=1e-5))]
    report = simulate(steps, workers=8)
    assert len([e for e in report.journal if isinstance(e, AttemptsEnded | Moved)]) < 2000


def test_failures_spend_retries_and_losses_do_not() -> None:
    """Items that fail twice complete with two retries, however often their workers die."""

    def plan(index: int, failures: int) -> Act:
        return Act() if failures == 2 else Act(Outcome.FAILED, message="flaky")

    steps = [Step(NodeSpec(0, "a", "a", "map", 30, Policy(retries=2, retries_on_loss=ENOUGH)), plan)]
    report = simulate(steps, faults=DEADLY, check=True)
    assert {end.state for end in report.ends[0]} == {State.COMPLETED}
    assert report.deaths
