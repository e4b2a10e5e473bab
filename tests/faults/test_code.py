"""Code that hangs, cannot be moved or eats its memory, and cancellations that race with everything."""

from __future__ import annotations

import random
from typing import Any

import pytest
from faultkit.bench import CANCELLED, Bench
from faultkit.plan import Node, Plan, random_plan

pytestmark = pytest.mark.timeout(600)

SEQUENTIAL: dict[str, Any] = {"kind": "sequential"}
THREADS: dict[str, Any] = {"kind": "threads"}
PATIENCE = 120.0  # two sleeps of half a minute, one after the other where there is one slot


def hanging(rng: random.Random, ways: tuple[str, ...], width: int = 8) -> Plan:
    """Return a flow of which some items hang, beyond a timeout of a fifth of a second."""
    sick = {i: f"always:{rng.choice(ways)}" for i in rng.sample(range(width), rng.randint(1, 2))}
    first = Node("t0", width, seconds=0.005, sick=sick, timeout=0.2, batch=rng.choice((None, 1, 3)))
    return Plan((first, Node("t1", width, source=0), Node("t2", 1, gather=1)))


def test_hanging_code_times_out(bench: Bench) -> None:
    """Code that hangs is stopped by its timeout, or abandoned in `time.sleep`; its neighbours complete."""
    for trial in bench.trials("code hangs in Python or time.sleep, with a timeout", short=1, full=25):
        plan = hanging(trial.rng, ("spin", "sleep"))
        child = trial.start(plan, trial.rng.choice((SEQUENTIAL, THREADS)))
        for _ in plan.nodes[0].sick:
            trial.injected()
        trial.finish(child, PATIENCE)
        trial.check(plan)


def test_code_hanging_in_c_times_out(bench: Bench) -> None:
    """What hangs in a C call in a thread cannot be stopped: its task run ends, abandoned, and so does the process."""
    for trial in bench.trials("code hangs in C, with a timeout", short=0, full=4):
        plan = hanging(trial.rng, ("c",), width=4)
        child = trial.start(plan, THREADS)
        for _ in plan.nodes[0].sick:
            trial.injected()
        trial.finish(child, PATIENCE)
        trial.check(plan)


def test_cancellation_races(bench: Bench) -> None:
    """A run is cancelled while task runs complete, wait for retries, time out: each ends in one way or the other."""
    for trial in bench.trials("cancel races completion, retry and timeout", short=2, full=60):
        plan = random_plan(trial.rng, width=20, seconds=0.02, limited=trial.rng.random() < 0.3)
        if trial.rng.random() < 0.3:
            plan = hanging(trial.rng, ("spin", "sleep"))
        child = trial.start(plan, trial.rng.choice((SEQUENTIAL, THREADS)))
        trial.cancel(child)
        trial.finish(child)
        trial.check(plan, **CANCELLED)
