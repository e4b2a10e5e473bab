"""Workers that die in fused batches, on real engines: no task run is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration import flow, task, unmapped
from runners import DaskTaskRunner, RayTaskRunner
from runners.base import TaskRunner

WIDTH = 60
ENGINES: dict[str, Callable[[], TaskRunner]] = {
    "dask": lambda: DaskTaskRunner(
        cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    ),
    "ray": lambda: RayTaskRunner(init_kwargs={"num_cpus": 2}),
}


@task
def load(x: int) -> int:
    return x


@task
def harden(x: int, spared: str) -> int:
    if x == 20 and not Path(spared).exists():
        Path(spared).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x + 1


@pytest.mark.parametrize("engine", ["dask", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_worker_dies_in_a_later_stage(
    engine: str, tmp_path: Path, millrace_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One item kills its worker once: it and all that was in its batch run again, and all that follows from them."""
    monkeypatch.setattr("orchestration.core.fusing.short", lambda node: True)
    monkeypatch.setattr("orchestration.core.batching.FIRST_SIZE", 16)

    @flow(task_runner=ENGINES[engine]())
    def chain() -> Any:
        loaded = load.map(range(WIDTH))
        hardened = harden.map(loaded, unmapped(str(tmp_path / "spared")))
        last = load.map(hardened)
        last.wait()
        return [futures.states.counts for futures in (loaded, hardened, last)]

    assert chain() == [{"Completed": WIDTH}] * 3
