"""How soon is the death of a worker seen? From SIGKILL to the loss of its batch at the runner's sink."""

from __future__ import annotations

import itertools
import os
import signal
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from runners import codec
from runners.arguments import Arguments, Column
from runners.base import QueueSink, TaskRunner
from runners.body import TaskBody
from runners.context import RunContext
from runners.messages import Batch, BatchLost, BatchStarted, Stage

from .harness import Case, Report, measure

RUNNERS = ("dask", "ray")
SECONDS = 60.0  # for which an item runs, unless its worker dies
PATIENCE_SECONDS = 60.0

_batch_ids = itertools.count(1)


def run(*, repeats: int = 20, runner: str | None = None) -> Report:
    """Measure on clusters of two workers on this machine that the runners have started."""
    with ExitStack() as stack:
        cases = []
        for name in [runner] if runner else RUNNERS:
            started = stack.enter_context(_runner(name))
            cases.append(Case(f"{name}, a worker is killed", partial(_kill_and_hear, started)))
        return measure("Losses: from SIGKILL of a worker to the loss of its batch", cases, repeats=repeats)


def _runner(name: str) -> TaskRunner:
    from runners import DaskTaskRunner, RayTaskRunner

    if name == "ray":
        return RayTaskRunner(init_kwargs={"num_cpus": 2, "object_store_memory": 100_000_000})
    return DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None})


def _kill_and_hear(runner: TaskRunner) -> float:
    stage = Stage(
        1,
        "sleep",
        codec.dump_payload(TaskBody(time.sleep, "sleep"), cached=True),
        codec.dump_payload(Arguments((Column((SECONDS,)),))),
        (1,),
    )
    context = codec.dump_payload(RunContext("losses", "losses", "losses"), cached=True)
    runner.submit([Batch("losses", next(_batch_ids), (0,), (stage,), context)])
    started = _until(runner, BatchStarted)
    killed = time.perf_counter()
    os.kill(int(started.worker.split(":")[1]), signal.SIGKILL)
    _until(runner, BatchLost)
    return time.perf_counter() - killed


def _until(runner: TaskRunner, kind: type) -> Any:
    sink = runner.sink
    assert isinstance(sink, QueueSink)
    while not isinstance(event := sink.get(PATIENCE_SECONDS), kind):
        pass
    return event
