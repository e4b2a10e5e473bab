"""Ray's workers, nodes and head die, in the middle of batches."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator

import pytest
from faultkit.bench import CANCELLED, MODE, Bench
from faultkit.clusters import OtherHost, RayCluster, may_limit_memory, memory_group
from faultkit.plan import Node, Plan, random_plan
from faultkit.processes import marked

from orchestration.core.remaking import MAX_REMAKES

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


def ray_cluster(host: str = "127.0.0.1") -> RayCluster:
    return RayCluster(tempfile.mkdtemp(prefix="mr", dir="/tmp"), host)


def test_workers_killed(bench: Bench, ray: RayCluster) -> None:
    """SIGKILL in the middle of user code, several times in each run, some with `rerun_on_loss=False`."""
    for trial in bench.trials("Ray worker SIGKILL mid-batch", short=0, full=15, seconds=60):
        once = trial.rng.random() < 0.3
        plan = random_plan(trial.rng, width=40, seconds=0.06, persist=True, once=once)
        child = trial.start(plan, ray.lend(trial.environ))
        trial.strike(child, trial.rng.randint(2, 5))
        trial.finish(child, 120)
        trial.check(plan)


def test_poison(bench: Bench, ray: RayCluster) -> None:
    """An item that kills its worker process, once or each time: its neighbours complete."""
    for trial in bench.trials("segfault, os._exit or SIGKILL by an item (Ray)", short=0, full=6, seconds=30):
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
    for trial in bench.trials("flow process killed (Ray)", short=0, full=6, seconds=30):
        plan = random_plan(trial.rng, width=20, seconds=0.05, persist=True, once=trial.rng.random() < 0.5)
        child = trial.start(plan, ray.lend(trial.environ))
        if trial.wait_for_lines(trial.rng.randint(1, 15), child, 60.0):
            trial.kill(child)
        trial.to_the_end(plan, ray.runner)
        trial.check(plan)


def test_workers_stopped(bench: Bench, ray: RayCluster) -> None:
    """SIGSTOP of a worker for some seconds, then SIGCONT."""
    for trial in bench.trials("Ray worker SIGSTOP, then SIGCONT", short=0, full=4, seconds=30):
        plan = random_plan(trial.rng, width=30, seconds=0.05, persist=True)
        child = trial.start(plan, ray.lend(trial.environ))
        trial.suspend(child, trial.rng.uniform(1.0, 6.0))
        trial.finish(child, 120)
        trial.check(plan)


def test_workers_stopped_for_a_minute(bench: Bench, ray: RayCluster) -> None:
    """SIGSTOP of a worker for 60 s, then SIGCONT: longer than anybody takes a silent process for alive."""
    for trial in bench.trials("Ray worker SIGSTOP 60 s, then SIGCONT", short=0, full=1, seconds=90):
        plan = Plan((Node("t0", 30, seconds=0.1), Node("t1", 30, source=0, seconds=0.1)), persist=True)
        child = trial.start(plan, ray.lend(trial.environ))
        trial.suspend(child, 60.0)
        trial.finish(child, 120)
        trial.check(plan)


def test_results_deleted(bench: Bench, ray: RayCluster) -> None:
    """A result is deleted from Ray's store when a batch that reads it is about to be sent: it is made again."""
    for trial in bench.trials("finished Ray result deleted before use", short=0, full=4, seconds=30):
        nodes = (
            Node("t0", 12, seconds=0.03),
            Node("t1", 1, gather=0),
            Node("t2", 12, source=0),
            Node("t3", 1, gather=2),
        )
        told = trial.folder / "deleted"
        child = trial.start(
            Plan(nodes),
            ray.lend(trial.environ),
            inject=[["delete_results", trial.seed, trial.rng.choice((0.3, 1.0)), MAX_REMAKES, str(told)]],
        )
        trial.finish(child, 120)
        trial.injections += map(float, told.read_text().split())
        trial.check(Plan(nodes))


def test_hanging_code_times_out(bench: Bench, ray: RayCluster) -> None:
    """Code that hangs, in Python, in `time.sleep` or in C, with a timeout of 2 s; or its worker is killed."""
    for trial in bench.trials("code hangs on a Ray worker, with a timeout", short=0, full=4, seconds=40):
        sick = {trial.rng.randrange(8): f"always:{trial.rng.choice(('spin', 'sleep', 'c'))}"}
        first = Node("t0", 8, seconds=0.01, sick=sick, timeout=2.0)
        plan = Plan((first, Node("t1", 8, source=0)), persist=True)
        child = trial.start(plan, ray.lend(trial.environ))
        trial.injected()
        trial.finish(child, 120)
        trial.check(plan)


def test_events_lie(bench: Bench, ray: RayCluster) -> None:
    """Live events and tables are lost, repeated, late and out of order between Ray and the coordinator."""
    for trial in bench.trials("events lost, repeated, reordered, late (Ray)", short=0, full=8, seconds=30):
        plan = random_plan(trial.rng, seconds=0.004, once=trial.rng.random() < 0.2)
        child = trial.start(plan, ray.lend(trial.environ), inject=trial.lies())
        trial.finish(child, 120)
        trial.check(plan)


def test_cancellation_races(bench: Bench, ray: RayCluster) -> None:
    """A run is cancelled while task runs complete and wait for retries: each ends in one way or the other."""
    for trial in bench.trials("cancel races completion and retry (Ray)", short=0, full=5, seconds=30):
        plan = random_plan(trial.rng, width=20, seconds=0.05)
        child = trial.start(plan, ray.lend(trial.environ))
        trial.cancel(child)
        trial.finish(child, 120)
        trial.check(plan, **CANCELLED)


def test_results_that_cannot_be_moved(bench: Bench, ray: RayCluster) -> None:
    """A result that cannot be pickled, and one of some dozen megabytes: only the former's item fails."""
    for trial in bench.trials("unpicklable and huge results (Ray)", short=0, full=4, seconds=30):
        odd, huge = trial.rng.sample(range(10), 2)
        sick = {odd: "always:unpicklable", huge: "always:huge"}
        plan = Plan((Node("t0", 10, sick=sick), Node("t1", 10, source=0)), persist=trial.rng.random() < 0.5)
        child = trial.start(plan, ray.lend(trial.environ))
        trial.injected()
        trial.injected()
        trial.finish(child, 120)
        trial.check(plan)


def test_a_node_retires(bench: Bench) -> None:
    """The second of two nodes is told to leave: it takes nothing more, and what only it has is made again."""
    pytest.importorskip("ray")
    for trial in bench.trials("Ray node retires gracefully", short=0, full=2, seconds=30):
        plan = random_plan(trial.rng, width=40, seconds=0.06, persist=True)
        with ray_cluster() as cluster:
            cluster.add_node()
            child = trial.start(plan, cluster.lend(trial.environ))
            trial.wait_for_lines(trial.rng.randint(5, 25), child, 60.0)
            trial.injected()
            cluster.retire_node()
            trial.finish(child, 120)
            trial.check(plan)
        shutil.rmtree(cluster.folder, ignore_errors=True)


def test_a_node_is_killed(bench: Bench) -> None:
    """SIGKILL of the second of two nodes: what ran there or was kept there is done again on the first."""
    pytest.importorskip("ray")
    for trial in bench.trials("Ray node killed", short=0, full=2, seconds=30):
        plan = random_plan(trial.rng, width=40, seconds=0.06, persist=True)
        with ray_cluster() as cluster:
            cluster.add_node()
            child = trial.start(plan, cluster.lend(trial.environ))
            trial.wait_for_lines(trial.rng.randint(5, 25), child, 60.0)
            cluster.kill_node()
            trial.injected()
            trial.finish(child, 120)
            trial.check(plan)
        shutil.rmtree(cluster.folder, ignore_errors=True)


def test_the_head_of_its_own_ray_is_killed(bench: Bench) -> None:
    """SIGKILL of the head or the raylet of a Ray that the flow has started: another one takes its place."""
    pytest.importorskip("ray")
    own = {"kind": "ray", "init_kwargs": {"num_cpus": 2, "object_store_memory": 100_000_000}}
    for trial in bench.trials("head or raylet of an own Ray killed", short=0, full=3, seconds=40):
        plan = random_plan(trial.rng, width=40, seconds=0.06, persist=True)
        child = trial.start(plan, own, fresh=True)
        if trial.wait_for_lines(trial.rng.randint(1, 20), child, 90.0) and child.running:
            part = trial.rng.choice(("gcs_server", "raylet"))
            trial.injected()
            for pid, command in marked(trial.mark).items():
                if command.split()[0].endswith(f"/{part}"):
                    os.kill(pid, signal.SIGKILL)
        trial.finish(child, 180)
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


def test_memory_runs_out(bench: Bench, require: Callable[[str, object], None]) -> None:
    """The kernel kills a worker whose memory an item has used up (a cgroup)."""
    pytest.importorskip("ray")
    for trial in bench.trials("out-of-memory kill of a Ray worker", short=0, full=2, seconds=40):
        require("root and cgroups of version 1", may_limit_memory())
        sick = {trial.rng.randrange(10): "memory"}
        plan = Plan((Node("t0", 10, seconds=0.02, sick=sick), Node("t1", 10, source=0)))
        with memory_group(f"millrace-{trial.seed}", megabytes=1500) as join:
            with ray_cluster() as cluster:
                join(cluster.of_nodes())
                child = trial.start(plan, cluster.lend(trial.environ))
                trial.injected()
                trial.finish(child, 120)
                trial.check(plan)
            shutil.rmtree(cluster.folder, ignore_errors=True)


@pytest.mark.netns
def test_a_partition(bench: Bench, require: Callable[[str, object], None]) -> None:
    """For some seconds nothing gets through from the second node's host to the head's, or the other way."""
    pytest.importorskip("ray")
    for trial in bench.trials("one-way partition between hosts (Ray)", short=0, full=2, seconds=40):
        require("root", os.geteuid() == 0)
        require("iproute2", shutil.which("ip") and shutil.which("tc"))
        plan = random_plan(trial.rng, width=40, seconds=0.06, persist=True)
        with OtherHost() as host, ray_cluster(host.here) as cluster:
            cluster.add_node(host.there, prefix=host.inside)
            child = trial.start(plan, cluster.lend(trial.environ))
            trial.wait_for_lines(trial.rng.randint(2, 25), child, 60.0)
            with host.cut(trial.rng.choice(("to", "from"))):
                trial.injected()
                child.wait(trial.rng.uniform(1.0, 8.0))
            trial.finish(child, 120)
            trial.check(plan)
        shutil.rmtree(cluster.folder, ignore_errors=True)
