"""Ray's workers, nodes and head die, in the middle of batches."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest
from faultkit.bench import MODE, Bench, Trial
from faultkit.clusters import RayCluster
from faultkit.plan import Node, Plan, random_plan
from faultkit.processes import Child, is_alive, wait_until

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.ray,
    pytest.mark.skipif(MODE == "short", reason="a Ray takes long to start: make faults"),
]


@pytest.fixture(scope="module")
def ray() -> Iterator[RayCluster]:
    """A Ray that several trials use one after another."""
    pytest.importorskip("ray")
    with ray_cluster() as cluster:
        yield cluster


def ray_cluster() -> RayCluster:
    return RayCluster(tempfile.mkdtemp(prefix="mr", dir="/tmp"))


def strike(trial: Trial, child: Child, times: int) -> None:
    """Kill workers in the middle of user code, a few times in one run."""
    for _ in range(times):
        trial.wait_for_lines(trial.lines() + trial.rng.randint(1, 12), child)
        found: list[int] = []

        def look(found: list[int] = found) -> bool:
            running = [one.pid for one in trial.history.executions if not one.end]
            found[:] = sorted({pid for pid in running if is_alive(pid)})
            return bool(found) or not child.running

        wait_until(look, 30.0)
        if not found:
            return
        pid = trial.rng.choice(found)
        os.kill(pid, signal.SIGKILL)
        trial.deaths[pid] = trial.injected()


def test_workers_killed(bench: Bench, ray: RayCluster) -> None:
    """SIGKILL in the middle of user code, several times in each run, some with `rerun_on_loss=False`."""
    for trial in bench.trials("Ray worker SIGKILL mid-batch", short=0, full=15, seconds=80):
        once = trial.rng.random() < 0.3
        plan = random_plan(trial.rng, width=40, seconds=0.06, persist=True, once=once)
        child = trial.start(plan, ray.lend(trial.environ))
        strike(trial, child, trial.rng.randint(2, 5))
        trial.finish(child, 120)
        trial.check(plan)


def test_poison(bench: Bench, ray: RayCluster) -> None:
    """An item that kills its worker process, once or each time: its neighbours complete."""
    for trial in bench.trials("segfault, os._exit or SIGKILL by an item (Ray)", short=0, full=6, seconds=40):
        way, always = trial.rng.choice(("segfault", "exit", "kill")), trial.rng.random() < 0.5
        sick = {trial.rng.randrange(20): f"{'always:' if always else ''}{way}"}
        nodes = (Node("t0", 20, seconds=0.01, sick=sick, retries_on_loss=2), Node("t1", 20, source=0))
        plan = Plan(nodes, persist=True)
        child = trial.start(plan, ray.lend(trial.environ))
        for _ in range(3 if always else 1):
            trial.injected()
        trial.finish(child, 120)
        trial.check(plan)


def test_flow_process_killed(bench: Bench, ray: RayCluster) -> None:
    """The flow's process is killed while Ray runs its batches; it is resumed on the same Ray."""
    for trial in bench.trials("flow process killed (Ray)", short=0, full=6, seconds=40):
        plan = random_plan(trial.rng, width=20, seconds=0.05, persist=True, once=trial.rng.random() < 0.5)
        child = trial.start(plan, ray.lend(trial.environ))
        if trial.wait_for_lines(trial.rng.randint(1, 15), child, 60.0):
            trial.kill(child)
        trial.to_the_end(plan, ray.runner)
        trial.check(plan)


def test_the_head_is_killed(bench: Bench) -> None:
    """SIGKILL of all processes of a Ray: the run ends and says why, and is resumed on another one."""
    pytest.importorskip("ray")
    for trial in bench.trials("Ray head and node killed", short=0, full=2, seconds=30):
        plan = random_plan(trial.rng, width=20, seconds=0.05, persist=True)
        with ray_cluster() as first:
            child = trial.start(plan, first.lend(trial.environ))
            trial.wait_for_lines(trial.rng.randint(2, 15), child, 60.0)
            first.kill()
            trial.injected()
            if trial.finish(child, 120) and "BackendError" not in child.text:
                trial.violations.append(f"it is not said why the run has ended:\n{child.text[-1500:]}")
        with ray_cluster() as second:
            trial.to_the_end(plan, second.lend(trial.environ))
            trial.check(plan)
        shutil.rmtree(first.folder, ignore_errors=True)
