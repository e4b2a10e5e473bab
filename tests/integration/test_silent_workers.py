"""Code in C that holds the interpreter: no thread of its worker runs, so only the flow's process can see it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from orchestration import flow, task
from runners import DaskTaskRunner, RayTaskRunner


@task(timeout_seconds=1.0)
def work(n: int) -> int:
    if n == 0:
        re.match(r"(a+)+$", "a" * 40 + "b")  # for hours
    return n


@flow
def main() -> tuple[str, str, list[str]]:
    silent, others = work.submit(0), work.map(range(1, 5))
    others.wait()
    silent.wait()
    return silent.state.name, silent.state.message, [state.name for state in others.states]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "runner",
    [
        pytest.param(
            lambda: DaskTaskRunner(cluster_kwargs={"n_workers": 2}), marks=pytest.mark.dask, id="dask"
        ),
        pytest.param(lambda: RayTaskRunner(init_kwargs={"num_cpus": 2}), marks=pytest.mark.ray, id="ray"),
    ],
)
def test_it_times_out_and_its_worker_is_ended(runner: Any) -> None:
    """The others complete, on workers that are still there; nothing of it is left running."""
    name, message, others = main.with_options(task_runner=runner())()
    assert name == "TimedOut"
    assert "its worker was ended" in message
    assert others == ["Completed"] * 4
