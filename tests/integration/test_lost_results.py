"""Results that vanish after their task runs have completed: whoever needs them gets them all the same."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration import flow, task, unmapped
from orchestration.api.sessions import current_session
from orchestration.errors import CrashedRunError
from orchestration.stores import open_store
from runners import DaskTaskRunner, RayTaskRunner
from runners.base import TaskRunner
from runners.errors import ResultLostError

LARGE = 300_000  # bytes; smaller results Ray keeps in the flow's process


class DaskWorkers:
    """A Dask cluster whose results can be deleted."""

    def __init__(self) -> None:
        self.runner: TaskRunner = DaskTaskRunner(
            cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        )

    def lose_results(self) -> None:
        """Have Dask forget all that it holds of the flow's results, without a word to the flow."""
        runner = engine_of_this_flow()
        runner._desk.client.cancel([kept.future for kept in runner._desk.kept.values()], force=True)

    def close(self) -> None:
        pass


class RayNodes:
    """A Ray cluster whose node with the workers can be replaced by another."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self._node = self._cluster.add_node(num_cpus=2)
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")
        self.runner: TaskRunner = RayTaskRunner()

    def lose_results(self) -> None:
        """A node dies, with the results on it; another one comes."""
        gone, self._node = self._node, self._cluster.add_node(num_cpus=2)
        self._cluster.remove_node(gone, allow_graceful=False)

    def close(self) -> None:
        import ray

        ray.shutdown()
        self._cluster.shutdown()


@pytest.fixture(
    params=[pytest.param("dask", marks=pytest.mark.dask), pytest.param("ray", marks=pytest.mark.ray)]
)
def engine(request: pytest.FixtureRequest) -> Iterator[DaskWorkers | RayNodes]:
    found = DaskWorkers() if request.param == "dask" else RayNodes()
    yield found
    found.close()


def note(trace: str, word: object) -> None:
    with open(trace, "a", encoding="utf-8") as file:
        file.write(f"{word}\n")


@task
def make(n: int, trace: str) -> bytes:
    note(trace, n)
    return bytes([n]) * LARGE


@task(rerun_on_loss=False)
def make_once(n: int, trace: str) -> bytes:
    note(trace, n)
    return bytes([n]) * LARGE


@task
def first_bytes(parts: list[bytes]) -> list[int]:
    return [part[0] for part in parts]


def engine_of_this_flow() -> Any:
    session = current_session.get()
    assert session is not None
    return session.driver.runner


def ran(trace: Path) -> list[int]:
    return sorted(map(int, trace.read_text(encoding="utf-8").split()))


def test_results_are_made_again_for_readers_and_for_the_flow(
    engine: DaskWorkers | RayNodes, tmp_path: Path, millrace_home: Path
) -> None:
    """All results are deleted twice: before a task reads some, and before the flow asks for others."""
    trace = tmp_path / "trace"

    @flow(task_runner=engine.runner, flow_run_name="forgetful")
    def forgetful() -> Any:
        parts = make.map(range(1, 5), trace=str(trace))
        parts.wait()
        engine.lose_results()
        assert first_bytes.submit(parts[1:3]).result() == [2, 3]
        assert ran(trace) == [1, 2, 2, 3, 3, 4]
        engine.lose_results()
        assert [part[:2] for part in parts.result()] == [bytes([n]) * 2 for n in range(1, 5)]
        return parts.states.counts

    assert forgetful() == {"Completed": 4}
    assert ran(trace) == [1, 1, 2, 2, 2, 3, 3, 3, 4, 4]
    run_id = open_store(None).run("forgetful").run_id
    assert [row.attempts for row in open_store(None).task_runs(run_id, node_id=0)] == [2, 3, 3, 2]


def test_what_must_not_run_twice_crashes_its_readers(
    engine: DaskWorkers | RayNodes, tmp_path: Path, millrace_home: Path
) -> None:
    """The result of a payment is gone: nobody pays again; who needs it is told whose result it was."""
    trace = tmp_path / "trace"

    @flow(task_runner=engine.runner)
    def careful() -> Any:
        parts = make_once.map(range(1, 3), trace=str(trace))
        parts.wait()
        engine.lose_results()
        reader = first_bytes.submit(parts)
        with pytest.raises(CrashedRunError, match=r"make_once\[\d\] was lost .*rerun_on_loss=False"):
            reader.result()
        with pytest.raises(ResultLostError, match="rerun_on_loss=False"):
            parts[0].result()
        return parts.states.counts

    assert careful() == {"Completed": 2}
    assert ran(trace) == [1, 2]


@task(batch=2)
def make_or_wait(gate: str, trace: str) -> tuple[int, str]:
    note(trace, os.getpid())
    while os.path.exists(gate):
        signal.sigtimedwait([], 0.01)
    return os.getpid(), "made"


@task
def second(pair: tuple[int, str]) -> str:
    return pair[1]


@pytest.mark.dask
def test_a_dask_worker_dies_with_a_batch_that_dask_must_not_compute_again(
    tmp_path: Path, millrace_home: Path
) -> None:
    """A batch had a cancelled item, so Dask may not repeat it: its other item is made again, the cancelled one not."""
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    gate.touch()

    @flow(task_runner=DaskWorkers().runner)
    def interrupted() -> Any:
        pair = make_or_wait.map([str(tmp_path / "open"), str(gate)], trace=str(trace))
        while pair[1].state.name != "Running":
            pair[1].wait(0.05)
        pair[1].cancel()
        pair.wait()
        os.kill(ran(trace)[0], signal.SIGKILL)
        return second.submit(pair[0]).result()

    assert interrupted() == "made"
    assert len(ran(trace)) == 3


@task
def make_unless(gate: str, n: int, trace: str) -> bytes:
    """Make a part, but wait first while there is a file: for 20 s at most."""
    until = time.monotonic() + 20.0
    while os.path.exists(gate) and time.monotonic() < until:
        signal.sigtimedwait([], 0.01)
    note(trace, n)
    return bytes([n]) * LARGE


@pytest.mark.dask
def test_a_dask_worker_dies_with_results_that_are_in_storage(tmp_path: Path, millrace_home: Path) -> None:
    """They are read from there, by tasks and by the flow; what Dask has begun to compute again is stopped."""
    trace, gate = tmp_path / "trace", tmp_path / "gate"

    @flow(task_runner=DaskWorkers().runner, persist_results=True)
    def kept() -> Any:
        parts = make_unless.map(unmapped(str(gate)), range(1, 7), trace=str(trace))
        parts.wait()
        gate.touch()
        os.kill(next(iter(engine_of_this_flow()._desk.client.run(os.getpid).values())), signal.SIGKILL)
        assert first_bytes.submit(parts[:3]).result() == [1, 2, 3]
        return [part[0] for part in parts.result()]

    assert kept() == [1, 2, 3, 4, 5, 6]
    assert ran(trace) == [1, 2, 3, 4, 5, 6]


@pytest.mark.dask
def test_what_has_a_place_that_has_gone_runs_elsewhere() -> None:
    """A result that is wanted while no worker is there is computed by those that come, wherever it had been."""
    from distributed import LocalCluster

    @task(batch=1)
    def one(x: int) -> int:
        return x + 1

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:

        @flow(task_runner=DaskTaskRunner(cluster=cluster))
        def main() -> Any:
            first = [one.submit(n) for n in range(4)]
            second = [one.submit(future) for future in first]
            for future in second:
                future.wait()
            cluster.scale(0)
            for _ in range(1000):
                if any(t.state == "no-worker" for t in list(cluster.scheduler.tasks.values())):
                    break
                time.sleep(0.02)
            else:
                pytest.fail("no result was wanted while no worker was there")
            cluster.scale(2)
            return [future.result() for future in second]

        assert main() == [2, 3, 4, 5]
