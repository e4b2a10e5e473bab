"""Dask's workers die, stop, leave and are poisoned, in the middle of batches."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from faultkit.bench import Bench, Trial
from faultkit.clusters import dask_scheduler, dask_workers
from faultkit.plan import Node, Plan, random_plan
from faultkit.processes import Child, is_alive, wait_until

pytestmark = [pytest.mark.timeout(900), pytest.mark.dask]


@pytest.fixture(scope="module")
def dask() -> Iterator[dict[str, Any]]:
    """The runner of a cluster of three worker processes that several trials use one after another."""
    pytest.importorskip("distributed")
    with dask_scheduler() as address, dask_workers(address, 3):
        yield {"kind": "dask", "address": address}


def busy(trial: Trial, child: Child) -> int | None:
    """Wait until a worker is in the middle of user code; return its pid. None if the flow ends before."""
    found: list[int] = []

    def look() -> bool:
        found[:] = sorted({one.pid for one in trial.history.executions if not one.end and is_alive(one.pid)})
        return bool(found) or not child.running

    wait_until(look, 30.0)
    return trial.rng.choice(found) if found else None


def strike(trial: Trial, child: Child, times: int) -> None:
    """Kill workers in the middle of user code, a few times in one run."""
    for _ in range(times):
        trial.wait_for_lines(trial.lines() + trial.rng.randint(1, 12), child)
        pid = busy(trial, child)
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        trial.deaths[pid] = trial.injected()


def test_workers_killed(bench: Bench, dask: dict[str, Any]) -> None:
    """SIGKILL in the middle of user code, several times in each run."""
    for trial in bench.trials("Dask worker SIGKILL mid-batch", short=1, full=25, seconds=240):
        plan = random_plan(trial.rng, width=40, seconds=0.06, persist=True)
        child = trial.start(plan, dask)
        strike(trial, child, trial.rng.randint(2, 7))
        trial.finish(child, 120)
        trial.check(plan)


@pytest.mark.xfail(
    reason="a result that is lost with its worker is not made again on every cluster", strict=True
)
def test_results_lost(bench: Bench, dask: dict[str, Any]) -> None:
    """Workers that hold results which nothing else has are killed: what is needed of them is made again."""
    for trial in bench.trials("Dask worker with results killed", short=0, full=10, seconds=120):
        first = Node("t0", 12, seconds=0.01)
        plan = Plan(
            (first, Node("t1", 1, gather=0, seconds=1.0), Node("t2", 12, source=0), Node("t3", 1, gather=2))
        )
        child = trial.start(plan, dask)
        done = trial.wait_for_lines(25, child)
        holders = sorted(
            {one.pid for one in trial.history.executions if one.name == "t0" and is_alive(one.pid)}
        )
        if done and holders:
            pid = trial.rng.choice(holders)
            os.kill(pid, signal.SIGKILL)
            trial.deaths[pid] = trial.injected()
        trial.finish(child, 120)
        trial.check(plan)


def test_workers_killed_once_only(bench: Bench, dask: dict[str, Any]) -> None:
    """SIGKILL of workers and of the flow's process where nothing may start twice."""
    for trial in bench.trials(
        "Dask workers and flow process killed, rerun_on_loss=False", short=1, full=12, seconds=150
    ):
        plan = random_plan(trial.rng, width=20, seconds=0.06, once=True, persist=True)
        child = trial.start(plan, dask)
        strike(trial, child, trial.rng.randint(1, 3))
        if trial.rng.random() < 0.5:
            trial.kill(child)
        else:
            trial.finish(child, 120)
        trial.to_the_end(plan, dask)
        trial.check(plan)


def test_workers_stopped(bench: Bench, dask: dict[str, Any]) -> None:
    """SIGSTOP of a worker for some seconds, then SIGCONT."""
    for trial in bench.trials("Dask worker SIGSTOP, then SIGCONT", short=0, full=5, seconds=90):
        plan = random_plan(trial.rng, width=30, seconds=0.05, persist=True)
        child = trial.start(plan, dask)
        pid = busy(trial, child)
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            trial.injected()
            child.wait(trial.rng.uniform(1.0, 6.0))
            os.kill(pid, signal.SIGCONT)
        trial.finish(child, 120)
        trial.check(plan)


def test_poison(bench: Bench, dask: dict[str, Any]) -> None:
    """An item that kills its process: once, or each time, and then it ends as Crashed and its neighbours do not."""
    for trial in bench.trials(
        "segfault, os._exit or SIGKILL by an item (Dask)", short=1, full=12, seconds=150
    ):
        way = trial.rng.choice(("segfault", "exit", "kill"))
        always = trial.rng.random() < 0.5
        sick = {trial.rng.randrange(20): f"{'always:' if always else ''}{way}"}
        nodes = (Node("t0", 20, seconds=0.01, sick=sick, retries_on_loss=2), Node("t1", 20, source=0))
        plan = Plan(nodes, persist=True)
        child = trial.start(plan, dask)
        trial.finish(child, 120)
        for _ in range(3 if always else 1):
            trial.injected()
        trial.check(plan)
