"""The flow's own process dies: at every transaction, at random, during its resumes, and with one-time tasks."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from faultkit.bench import Bench, Trial
from faultkit.plan import Node, Plan, random_plan

pytestmark = pytest.mark.timeout(600)

SEQUENTIAL: dict[str, Any] = {"kind": "sequential"}
THREADS: dict[str, Any] = {"kind": "threads"}
SMALL = Plan(
    (
        Node("t0", 4, batch=2),
        Node("t1", 4, source=0, retries=2, flaky={1: 1}, batch=2),
        Node("t2", 4, source=1, skips=(3,)),
        Node("t3", 1, gather=0),
    ),
    persist=True,
)


def run_and_die(trial: Trial, plan: Plan, runner: dict[str, Any], number: int, when: str) -> bool:
    """Run, or resume, a process that dies at its n-th transaction. Returns whether it came to that."""
    run = trial.run
    if run is not None and run.state.title == "Completed":
        return False
    trial.let_go()
    child = trial.start(
        plan, runner, resume=run.run_id if run else None, inject=[["die_at_write", number, when]]
    )
    code = trial.finish(child)
    if code == -9:
        trial.injected()
    return code == -9


@pytest.mark.parametrize("runner", [SEQUENTIAL, THREADS], ids=lambda runner: runner["kind"])
def test_killed_at_every_transaction(bench: Bench, runner: dict[str, Any]) -> None:
    """Killed before and after its n-th transaction, for every n that a small flow has; then resumed."""
    places = [(n, when) for n in range(1, transactions(runner) + 1) for when in ("before", "after")]
    name = f"flow process killed at each transaction ({runner['kind']})"
    for trial in bench.trials(name, short=4, full=len(places)):
        run_and_die(trial, SMALL, runner, *places[trial.seed % len(places)])
        trial.to_the_end(SMALL, runner)
        trial.check(SMALL)


@pytest.mark.parametrize("runner", [SEQUENTIAL, THREADS], ids=lambda runner: runner["kind"])
def test_killed_at_every_transaction_of_a_resume(bench: Bench, runner: dict[str, Any]) -> None:
    """Killed in its middle, resumed, and the resume killed before and after its n-th transaction."""
    most = transactions(runner)
    places = [(n, when) for n in range(1, most + 1) for when in ("before", "after")]
    for trial in bench.trials(
        f"its resume killed at each transaction ({runner['kind']})", short=2, full=len(places)
    ):
        run_and_die(trial, SMALL, runner, most // 2, "after")
        run_and_die(trial, SMALL, runner, *places[trial.seed % len(places)])
        trial.to_the_end(SMALL, runner)
        trial.check(SMALL)


def transactions(runner: dict[str, Any]) -> int:
    """Return how many transactions the small flow has when nothing happens to it."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-fault-"))
    trial = Trial(0, folder)
    trial.finish(trial.start(SMALL, runner, inject=[["count_writes", str(folder / "writes")]]))
    trial.close()
    assert trial.violations == []
    writes = int((folder / "writes").read_text())
    shutil.rmtree(folder)
    return writes


def test_killed_again_and_again(bench: Bench) -> None:
    """Random flows, killed at random transactions in the run and in its resumes."""
    for trial in bench.trials("flow process killed, and its resumes", short=2, full=80):
        plan = random_plan(trial.rng)
        runner = trial.rng.choice((SEQUENTIAL, THREADS))
        for _ in range(trial.rng.randint(1, 5)):
            number, when = trial.rng.randint(1, 25), trial.rng.choice(("before", "after"))
            if not run_and_die(trial, plan, runner, number, when):
                break
        trial.to_the_end(plan, runner)
        trial.check(plan)


def test_killed_while_it_runs(bench: Bench) -> None:
    """Killed at a random moment, in the middle of user code more often than not."""
    for trial in bench.trials("flow process killed in user code", short=2, full=60):
        plan = random_plan(trial.rng, seconds=0.02)
        for _ in range(trial.rng.randint(1, 3)):
            run = trial.run
            child = trial.start(plan, THREADS, resume=run.run_id if run else None)
            if trial.wait_for_lines(trial.lines() + trial.rng.randint(1, 12), child):
                trial.kill(child)
        trial.to_the_end(plan, THREADS)
        trial.check(plan)


def test_what_must_not_run_twice(bench: Bench) -> None:
    """`rerun_on_loss=False`: by the outside history nothing starts twice, whatever the process dies of."""
    for trial in bench.trials("flow process killed, rerun_on_loss=False", short=2, full=60):
        plan = random_plan(trial.rng, seconds=0.01, once=True)
        runner = trial.rng.choice((SEQUENTIAL, THREADS))
        for _ in range(trial.rng.randint(1, 4)):
            if trial.rng.random() < 0.5:
                run_and_die(
                    trial, plan, runner, trial.rng.randint(1, 30), trial.rng.choice(("before", "after"))
                )
            else:
                run = trial.run
                child = trial.start(plan, runner, resume=run.run_id if run else None)
                if trial.wait_for_lines(trial.lines() + trial.rng.randint(1, 8), child):
                    trial.kill(child)
        trial.to_the_end(plan, runner)
        trial.check(plan)
