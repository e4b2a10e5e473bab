"""Flows on every runner: one Dask cluster and one Ray for all tests, a record of its own for each."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestration.stores import open_store
from orchestration.stores.base import AttemptRow, LogRow, NodeRow, RunRow, Store, TaskRunRow
from runners import DaskTaskRunner, RayTaskRunner, SequentialTaskRunner, ThreadPoolTaskRunner
from runners.base import TaskRunner
from runners.messages import Outcome

ALL = 10_000_000


@pytest.fixture(scope="session")
def dask_address() -> Iterator[str]:
    """The address of a cluster with two worker processes."""
    distributed = pytest.importorskip("distributed")
    from runners.dask_connect import keep_nannies

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=0
    ) as cluster:
        keep_nannies(cluster)  # or else tests of killed workers leave none to those that come 15 s later
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray that runners find initialised and leave alone."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local",  # not one that somebody else has running here
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200_000_000,
        logging_level="error",
        log_to_driver=False,
    )
    yield
    ray.shutdown()


def make_runner(name: str, request: pytest.FixtureRequest) -> TaskRunner:
    """Return a runner that starts within milliseconds."""
    if name == "sequential":
        return SequentialTaskRunner()
    if name == "threads":
        return ThreadPoolTaskRunner(max_workers=4)
    if name == "dask":
        return DaskTaskRunner(address=request.getfixturevalue("dask_address"))
    request.getfixturevalue("ray_session")
    return RayTaskRunner()


ENGINES = [
    pytest.param("sequential"),
    pytest.param("threads"),
    pytest.param("dask", marks=pytest.mark.dask),
    pytest.param("ray", marks=pytest.mark.ray),
]


@pytest.fixture(params=ENGINES)
def runner(request: pytest.FixtureRequest) -> TaskRunner:
    """Each of the four runners."""
    return make_runner(request.param, request)


@pytest.fixture(params=ENGINES[:2])
def local_runner(request: pytest.FixtureRequest) -> TaskRunner:
    """The runners of the flow's own process."""
    return make_runner(request.param, request)


@pytest.fixture(params=ENGINES[:3])
def quick_runner(request: pytest.FixtureRequest) -> TaskRunner:
    """The runners that can start a hundred times in a test; on Ray that takes minutes."""
    return make_runner(request.param, request)


@pytest.fixture(params=ENGINES[2:])
def process_runner(request: pytest.FixtureRequest) -> TaskRunner:
    """The runners with worker processes."""
    return make_runner(request.param, request)


@pytest.fixture(params=ENGINES[1:])
def parallel_runner(request: pytest.FixtureRequest) -> TaskRunner:
    """The runners that run several task runs at a time."""
    return make_runner(request.param, request)


@dataclass
class Record:
    """What the store says of the runs of one test."""

    store: Store

    def run(self, flow_name: str | None = None) -> RunRow:
        """Return the newest run, of a flow if one is named."""
        found = self.store.runs(flow_name=flow_name, limit=1)
        assert found, "no run is recorded"
        return found[0]

    def runs(self, flow_name: str | None = None) -> list[RunRow]:
        return self.store.runs(flow_name=flow_name, limit=1000)

    def nodes(self, run: RunRow | None = None) -> list[NodeRow]:
        return self.store.nodes((run or self.run()).run_id)

    def task_runs(self, task_name: str | None = None, run: RunRow | None = None) -> list[TaskRunRow]:
        rows = self.store.task_runs((run or self.run()).run_id, limit=ALL)
        return [row for row in rows if task_name is None or row.task_name == task_name]

    def states(self, task_name: str | None = None, run: RunRow | None = None) -> list[str]:
        """Return states in the order of node and index."""
        return [row.state.title for row in self.task_runs(task_name, run)]

    def counts(self, run: RunRow | None = None) -> dict[str, int]:
        return dict(Counter(self.states(None, run)))

    def attempts(self, task_name: str, index: int = 0, run: RunRow | None = None) -> list[AttemptRow]:
        """Return the attempts of one item of the last node of a task."""
        run = run or self.run()
        node = [node for node in self.nodes(run) if node.task_name == task_name][-1]
        return self.store.attempts(run.run_id, node.node_id, index)

    def outcomes(self, task_name: str, index: int = 0) -> list[str]:
        return [Outcome(row.outcome).name for row in self.attempts(task_name, index)]

    def logs(self, run: RunRow | None = None) -> list[LogRow]:
        return self.store.logs((run or self.run()).run_id, limit=ALL)

    def lines(self, run: RunRow | None = None) -> list[str]:
        return [row.message for row in self.logs(run)]


@pytest.fixture
def record(millrace_home: Path) -> Record:
    """A store of the test's own."""
    return Record(open_store(None))


@pytest.fixture(autouse=True)
def no_thread_left(millrace_home: Path) -> Iterator[None]:
    """Every thread that a run starts ends with it."""
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + 10
    while left := [t for t in threading.enumerate() if t not in before and _ours(t)]:
        assert time.monotonic() < end, f"threads are left: {left}"
        left[0].join(0.1)


def _ours(thread: threading.Thread) -> bool:
    """Whether a run has started it; the monitor serves the whole process."""
    return thread.name.startswith("millrace-") and thread.name != "millrace-monitor"


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for a condition that nobody signals, such as a file or a row; return what it gave."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return value


@pytest.fixture(scope="session", name="until")
def until_fixture() -> Callable[..., Any]:
    return until
