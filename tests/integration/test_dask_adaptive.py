"""Dask clusters that grow and shrink with the work."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import LocalCluster

from orchestration import as_completed, flow, task
from runners import DaskTaskRunner
from runners.dask_adapt import check_adapt
from runners.errors import UserError

pytestmark = pytest.mark.dask


def test_it_grows_with_the_work_and_shrinks_and_nothing_is_lost() -> None:
    """Short task runs make it two workers; the idle one goes while the other works, and its results do not."""

    @task
    def work(number: int) -> tuple[int, int]:
        import os
        import time

        time.sleep(0.1)
        return number, os.getpid()

    @task(timeout_seconds=60)
    def outlive(pids: set[int]) -> None:
        import os

        import psutil

        (other,) = pids - {os.getpid()}
        psutil.Process(other).wait()

    @task
    def read(worked: tuple[int, int]) -> int:
        return worked[0]

    adapt = {"minimum": 1, "maximum": 2, "interval": "100ms"}

    @flow(store="memory", task_runner=DaskTaskRunner(adapt_kwargs=adapt))
    def main() -> tuple[list[int], list[int]]:
        pids, done = set(), []
        worked = work.map(range(200))
        for future in as_completed(worked):
            done.append(future)
            pids.add(future.result()[1])
            if len(pids) == 2:
                break
        worked.cancel()
        outlive.submit(pids).result()
        return [future.index for future in done], [read.submit(future).result() for future in done]

    indices, numbers = main()
    assert numbers == indices


class OtherCluster:
    """As a class of a cluster manager of its own."""

    def adapt(self, minimum: int | None = None, maximum: int | None = None) -> None: ...


@pytest.mark.parametrize(
    ("make", "adapt", "words"),
    [
        (
            LocalCluster,
            {"min": 1},
            r"'min'.*LocalCluster\.adapt.*mean minimum\? It takes maximum, .*interval",
        ),
        (LocalCluster, {"max_workers": 1}, "mean maximum"),
        (LocalCluster, {"n": 1}, "'n'"),
        (OtherCluster, {"maximum_jobs": 1}, r"mean maximum\? It takes maximum, minimum\."),
        (LocalCluster, {"maximum": "2"}, "maximum in adapt_kwargs is '2'.*number of workers"),
        (LocalCluster, {"minimum": -1}, "minimum in adapt_kwargs is -1"),
        (LocalCluster, {"maximum": 0}, "at least 1"),
        (LocalCluster, {"minimum": 3, "maximum": 2}, "at least 3, the minimum"),
    ],
)
def test_what_cannot_be_right(make: Any, adapt: dict[str, Any], words: str) -> None:
    """Dask takes any name and number, and complains of them in its log when workers should go."""
    with pytest.raises(UserError, match=words):
        check_adapt(make, adapt)


@pytest.mark.parametrize(
    ("make", "adapt"),
    [
        (LocalCluster, {}),
        (LocalCluster, {"minimum": 0, "maximum": math.inf, "interval": "1s", "wait_count": 2}),
        (LocalCluster, {"minimum_cores": 1, "maximum_memory": "1GB", "target_duration": "5s"}),
        (OtherCluster, {"minimum": None, "maximum": 3}),
        (lambda: LocalCluster(), {"whatever": 1}),
    ],
)
def test_what_can_be_right(make: Callable[..., Any], adapt: dict[str, Any]) -> None:
    """A cluster of another kind may take other names."""
    check_adapt(make, adapt)


def test_wrong_names_are_refused_before_a_cluster_is_made() -> None:
    """Of an existing cluster, too, before anything is done."""

    class Made(LocalCluster):
        def __init__(self) -> None:
            raise AssertionError("it was made")

    with pytest.raises(UserError, match="mean minimum"):
        DaskTaskRunner(cluster_class=Made, adapt_kwargs={"min": 1}).start(SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="mean minimum"):
        DaskTaskRunner(cluster=OtherCluster(), adapt_kwargs={"min": 1}).start(SimpleNamespace())  # type: ignore[arg-type]
