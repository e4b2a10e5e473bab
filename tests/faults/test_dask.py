"""Dask's workers die, stop, leave and are poisoned, in the middle of batches."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faultkit.bench import CANCELLED, Bench
from faultkit.clusters import OtherHost, Proxy, dask_cluster, dask_workers, may_limit_memory, memory_group
from faultkit.plan import Node, Plan, random_plan
from faultkit.processes import is_alive, marked, wait_until

pytestmark = [pytest.mark.timeout(900), pytest.mark.dask]


@pytest.fixture(scope="module")
def dask() -> Iterator[dict[str, Any]]:
    """The runner of a cluster of three worker processes that several trials use one after another."""
    pytest.importorskip("distributed")
    with dask_cluster(3) as (_, runner):
        yield runner


def test_workers_killed(bench: Bench, dask: dict[str, Any]) -> None:
    """SIGKILL in the middle of user code, several times in each run."""
    for trial in bench.trials("Dask worker SIGKILL mid-batch", short=1, full=25, seconds=70):
        plan = random_plan(trial.rng, width=40, seconds=0.06, persist=True)
        child = trial.start(plan, dask)
        trial.strike(child, trial.rng.randint(2, 7))
        trial.finish(child, 120)
        trial.check(plan)


def test_results_lost(bench: Bench, dask: dict[str, Any]) -> None:
    """Workers that hold results which nothing else has are killed: what is needed of them is made again."""
    for trial in bench.trials("Dask worker with results killed", short=0, full=10, seconds=40):
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
        "Dask workers and flow process killed, rerun_on_loss=False", short=1, full=12, seconds=40
    ):
        plan = random_plan(trial.rng, width=20, seconds=0.06, once=True, persist=True)
        child = trial.start(plan, dask)
        trial.strike(child, trial.rng.randint(1, 3))
        if trial.rng.random() < 0.5:
            trial.kill(child)
        else:
            trial.finish(child, 120)
        trial.to_the_end(plan, dask)
        trial.check(plan)


def test_workers_stopped(bench: Bench, dask: dict[str, Any]) -> None:
    """SIGSTOP of a worker for some seconds, then SIGCONT."""
    for trial in bench.trials("Dask worker SIGSTOP, then SIGCONT", short=0, full=5, seconds=40):
        plan = random_plan(trial.rng, width=30, seconds=0.05, persist=True)
        child = trial.start(plan, dask)
        trial.suspend(child, trial.rng.uniform(1.0, 6.0))
        trial.finish(child, 120)
        trial.check(plan)


def test_workers_stopped_for_a_minute(bench: Bench, dask: dict[str, Any]) -> None:
    """SIGSTOP of a worker for 60 s, then SIGCONT: longer than anybody takes a silent process for alive."""
    for trial in bench.trials("Dask worker SIGSTOP 60 s, then SIGCONT", short=0, full=1, seconds=90):
        plan = Plan((Node("t0", 30, seconds=0.1), Node("t1", 30, source=0, seconds=0.1)), persist=True)
        child = trial.start(plan, dask)
        trial.suspend(child, 60.0)
        trial.finish(child, 120)
        trial.check(plan)


def test_events_lie(bench: Bench, dask: dict[str, Any]) -> None:
    """Live events and tables are lost, repeated, late and out of order between Dask and the coordinator."""
    for trial in bench.trials("events lost, repeated, reordered, late (Dask)", short=0, full=20, seconds=40):
        plan = random_plan(trial.rng, seconds=0.004, once=trial.rng.random() < 0.2)
        child = trial.start(plan, dask, inject=trial.lies())
        trial.finish(child, 120)
        trial.check(plan)


def test_poison(bench: Bench, dask: dict[str, Any]) -> None:
    """An item that kills its process: once, or each time, and then it ends as Crashed and its neighbours do not."""
    for trial in bench.trials(
        "segfault, os._exit or SIGKILL by an item (Dask)", short=1, full=12, seconds=40
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


def test_a_worker_retires(bench: Bench, dask: dict[str, Any]) -> None:
    """A worker is told to leave in the middle of a run, as by an adaptive cluster: its results move, its work ends."""
    from distributed import Client

    for trial in bench.trials("Dask worker retires gracefully", short=0, full=8, seconds=40):
        plan = random_plan(trial.rng, width=30, seconds=0.05)
        with Client(dask["address"], set_as_default=False) as client:
            before = set(client.scheduler_info(n_workers=-1)["workers"])
            with dask_workers(dask["address"], 1):
                added = set(client.scheduler_info(n_workers=-1)["workers"]) - before
                child = trial.start(plan, dask)
                trial.wait_for_lines(trial.rng.randint(4, 15), child)
                client.retire_workers(sorted(added))
                trial.injected()
            trial.finish(child, 120)
            trial.check(plan)


def test_the_scheduler_is_killed(bench: Bench) -> None:
    """SIGKILL of a foreign cluster's scheduler: the run ends and says why, and is resumed on another cluster."""
    for trial in bench.trials("Dask scheduler killed", short=0, full=5, seconds=40):
        plan = random_plan(trial.rng, width=30, seconds=0.05, persist=True)
        with dask_cluster(2) as (scheduler, first):
            child = trial.start(plan, first)
            trial.wait_for_lines(trial.rng.randint(2, 20), child)
            os.killpg(scheduler.process.pid, signal.SIGKILL)
            trial.injected()
            if trial.finish(child, 120) and "BackendError" not in child.text:
                trial.violations.append(f"it is not said why the run has ended:\n{child.text[-1500:]}")
        with dask_cluster(2) as (_, second):
            trial.to_the_end(plan, second)
            trial.check(plan)


def test_the_connection_is_cut(bench: Bench, dask: dict[str, Any]) -> None:
    """The client's connection to the scheduler is cut, once or twice: it is made again and the run goes on."""
    for trial in bench.trials("connection to the Dask scheduler cut", short=0, full=10, seconds=40):
        plan = random_plan(trial.rng, width=30, seconds=0.05)
        with Proxy(dask["address"]) as proxy:
            child = trial.start(plan, {**dask, "address": proxy.address})
            for _ in range(trial.rng.randint(1, 2)):
                if trial.wait_for_lines(trial.lines() + trial.rng.randint(2, 10), child):
                    proxy.cut()
                    trial.injected()
            trial.finish(child, 120)
            trial.check(plan)


def test_memory_runs_out(bench: Bench, require: Callable[[str, object], None]) -> None:
    """The kernel kills a worker whose memory an item has used up (a cgroup)."""
    for trial in bench.trials("out-of-memory kill of a Dask worker", short=0, full=5, seconds=30):
        require("root and cgroups of version 1", may_limit_memory())
        sick = {trial.rng.randrange(10): "memory"}
        plan = Plan((Node("t0", 10, seconds=0.02, sick=sick), Node("t1", 10, source=0)))
        with (
            memory_group(f"millrace-{trial.seed}", megabytes=600) as join,
            dask_cluster(1) as (_, runner),
        ):
            join(worker_processes(runner))
            child = trial.start(plan, runner)
            trial.injected()
            trial.finish(child, 120)
            trial.check(plan)


def worker_processes(runner: dict[str, Any]) -> list[int]:
    """Return a cluster's worker processes, and those that start new ones in their place."""
    from distributed import Client

    def find() -> list[int]:
        return [os.getppid(), os.getpid()]

    with Client(runner["address"], set_as_default=False) as client:
        return [pid for pids in client.run(find).values() for pid in pids]


def test_the_flow_process_with_its_own_cluster_is_killed(bench: Bench) -> None:
    """SIGKILL of a flow's process that has started its cluster itself: nothing of it is left, and it is resumed."""
    own = {
        "kind": "dask",
        "cluster_kwargs": {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None},
    }
    for trial in bench.trials("flow process with an own Dask cluster killed", short=0, full=5, seconds=40):
        plan = random_plan(trial.rng, width=20, seconds=0.05, persist=True)
        child = trial.start(plan, own, fresh=True)
        if trial.wait_for_lines(trial.rng.randint(1, 15), child):
            trial.kill(child)
            if not wait_until(lambda mark=trial.mark: not marked(mark), 20.0):
                trial.violations.append(f"left behind: {marked(trial.mark)}")
        trial.to_the_end(plan, own, fresh=True)
        trial.check(plan)


@pytest.mark.netns
def test_a_partition(bench: Bench, require: Callable[[str, object], None]) -> None:
    """For some seconds nothing gets through from the workers' host to the scheduler's, or the other way."""
    for trial in bench.trials("one-way partition between hosts (Dask)", short=0, full=4, seconds=40):
        require("root", os.geteuid() == 0)
        require("iproute2", shutil.which("ip") and shutil.which("tc"))
        plan = random_plan(trial.rng, width=30, seconds=0.05)
        with OtherHost() as host, dask_cluster(2, host=host.here, prefix=host.inside) as (_, runner):
            child = trial.start(plan, runner)
            trial.wait_for_lines(trial.rng.randint(2, 15), child)
            with host.cut(trial.rng.choice(("to", "from"))):
                trial.injected()
                child.wait(trial.rng.uniform(1.0, 8.0))
            trial.finish(child, 120)
            trial.check(plan)


def test_hanging_code_times_out(bench: Bench, dask: dict[str, Any]) -> None:
    """Code that hangs on a worker, in Python, in `time.sleep` or in C, with a timeout of a fifth of a second."""
    for trial in bench.trials("code hangs on a Dask worker, with a timeout", short=0, full=5, seconds=40):
        sick = {trial.rng.randrange(8): f"always:{trial.rng.choice(('spin', 'sleep', 'c'))}"}
        first = Node("t0", 8, seconds=0.01, sick=sick, timeout=0.2)
        plan = Plan((first, Node("t1", 8, source=0)), persist=True)
        child = trial.start(plan, dask)
        trial.injected()
        trial.finish(child, 120)
        trial.check(plan)


def test_cancellation_races(bench: Bench, dask: dict[str, Any]) -> None:
    """A run is cancelled while task runs complete and wait for retries: each ends in one way or the other."""
    for trial in bench.trials("cancel races completion and retry (Dask)", short=0, full=12, seconds=30):
        plan = random_plan(trial.rng, width=20, seconds=0.05)
        child = trial.start(plan, dask)
        trial.cancel(child)
        trial.finish(child, 120)
        trial.check(plan, **CANCELLED)


def test_results_that_cannot_be_moved(bench: Bench, dask: dict[str, Any]) -> None:
    """A result that cannot be pickled, and one of some dozen megabytes: only the former's item fails."""
    for trial in bench.trials("unpicklable and huge results (Dask)", short=1, full=8, seconds=30):
        odd, huge = trial.rng.sample(range(10), 2)
        sick = {odd: "always:unpicklable", huge: "always:huge"}
        plan = Plan((Node("t0", 10, sick=sick), Node("t1", 10, source=0)), persist=trial.rng.random() < 0.5)
        child = trial.start(plan, dask)
        trial.injected()
        trial.injected()
        trial.finish(child, 120)
        trial.check(plan)
