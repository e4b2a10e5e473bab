"""Do real dependencies cost time? Recorded workflows, scaled, against max(critical path, work / slots).

The rivals are the same workflows on the bare engines: all tasks handed over at once, with futures or refs of
their parents as arguments.

The records are WfCommons' WfInstances: `wfinstances/*.json` in the folder of shared data (`MILLRACE_SHARED`).
Tasks sleep for their scaled runtime.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from orchestration import flow, task

from .harness import Report, measure, stamp
from .scheduling.bounds import Bounded, critical_path, lower_bound, sleep
from .scheduling.engines import Engine, chosen, running

WORK_SECONDS = 4.0  # what all runtimes of a workflow are scaled to
TARGET = 1.15
TARGET_EACH = 0.001  # seconds more for each task


@dataclass(frozen=True, slots=True)
class Workflow:
    """A recorded workflow: its tasks, parents first."""

    name: str
    parents: Mapping[str, Sequence[str]]
    seconds: Mapping[str, float]

    def bound(self, slots: int) -> float:
        return max(critical_path(self.parents, self.seconds), lower_bound(self.seconds.values(), slots))


@task
def step(task_id: str, parents: Sequence[str], seconds: float) -> str:
    sleep(seconds)
    return task_id


@flow
def replay(workflow: Any) -> Any:
    futures: dict[str, Any] = {}
    for name, parents in workflow.parents.items():
        futures[name] = step.submit(name, [futures[p] for p in parents], workflow.seconds[name])
    return futures


def bare_replay(engine: Engine, workflow: Workflow) -> dict[str, str]:
    """Replay a workflow the way that users of the bare engine do."""
    handles: dict[str, Any] = {}
    if engine.name == "dask":
        for name, parents in workflow.parents.items():
            needed = [handles[p] for p in parents]
            handles[name] = engine.bare.submit(step.fn, name, needed, workflow.seconds[name], pure=False)
        return dict(engine.bare.gather(handles))
    assert engine.name == "ray", f"{engine.name} has no bare client"
    remote = engine.bare.remote(_step_after)
    for name, parents in workflow.parents.items():
        handles[name] = remote.remote(name, workflow.seconds[name], *(handles[p] for p in parents))
    return dict(zip(handles, engine.bare.get(list(handles.values())), strict=True))


def _step_after(name: str, seconds: float, *parents: str) -> str:
    return step.fn(name, parents, seconds)


def run(*, repeats: int = 3, runner: str | None = None) -> Report:
    """Replay each workflow on engines that are already there."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("MILLRACE_SHARED") or root.parent / "shared") / "data" / "wfinstances"
    files = sorted(folder.glob("*.json"))
    question = f"Recorded workflows, {WORK_SECONDS:.0f} s of work each"
    if not files:
        note = f"there are no workflows in {folder}: set MILLRACE_SHARED to the folder of shared data"
        return Report(question, [], stamp(), [note])
    bounded = Bounded()
    with running(chosen(runner)) as engines:
        for workflow in map(load, files):
            for engine in engines:
                _add(bounded, workflow, engine)
        return bounded.note(measure(question, bounded.cases, repeats=repeats, warmup=0))


def load(file: Path) -> Workflow:
    """Read a workflow in WfFormat 1.5 and scale its runtimes."""
    body = json.loads(file.read_text())["workflow"]
    parents = {t["id"]: list(t["parents"]) for t in body["specification"]["tasks"]}
    ran = {t["id"]: float(t["runtimeInSeconds"]) for t in body["execution"]["tasks"]}
    order = list(TopologicalSorter(parents).static_order())
    scale = WORK_SECONDS / sum(ran.values())
    seconds = {name: ran.get(name, 0.0) * scale for name in order}
    return Workflow(file.stem.partition("-")[0], {name: parents[name] for name in order}, seconds)


def _add(bounded: Bounded, workflow: Workflow, engine: Engine) -> None:
    shaped = replay.with_options(task_runner=engine.runner, validate_parameters=False)

    def replayed() -> float:
        results = shaped(workflow)
        assert results == {name: name for name in workflow.parents}
        return workflow.bound(engine.slots)

    bounded.add(
        f"{workflow.name}, {engine.name}",
        replayed,
        units=len(workflow.parents),
        factor=TARGET,
        each=TARGET_EACH,
    )
    if engine.bare is None:
        return

    def replayed_bare() -> float:
        assert bare_replay(engine, workflow) == {name: name for name in workflow.parents}
        return workflow.bound(engine.slots)

    bounded.add(f"{workflow.name}, bare {engine.name}", replayed_bare, units=len(workflow.parents))
