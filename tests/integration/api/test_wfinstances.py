"""Recorded workflows are replayed: a lost, repeated or misrouted dependency changes the last hash."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestration import TaskRunFuture, flow, task
from runners.base import TaskRunner

ROOT = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("MILLRACE_SHARED") or ROOT.parent / "shared")
FOLDER = SHARED / "data" / "wfinstances"
NAMES = [
    "1000genome-chameleon-2ch-100k-001",
    "epigenomics-chameleon-hep-1seq-100k-001",
    "montage-chameleon-dss-05d-001",
    "seismology-chameleon-100p-001",
]
WORK_SECONDS = 0.5  # what all runtimes of a workflow are scaled down to

Plan = list[tuple[str, list[str], float]]


def plan_of(name: str) -> Plan:
    """Return (id, parents, seconds) of a workflow's tasks, parents first."""
    file = FOLDER / f"{name}.json"
    if not file.exists():
        pytest.skip(f"there is no {file}: set MILLRACE_SHARED to the folder of shared data")
    workflow = json.loads(file.read_text())["workflow"]
    parents = {t["id"]: list(t["parents"]) for t in workflow["specification"]["tasks"]}
    seconds = {t["id"]: float(t["runtimeInSeconds"]) for t in workflow["execution"]["tasks"]}
    scale = WORK_SECONDS / sum(seconds.values())
    ordered: dict[str, None] = {}
    while len(ordered) < len(parents):
        ready = [i for i, up in parents.items() if i not in ordered and all(p in ordered for p in up)]
        assert ready, "the workflow has a circle"
        ordered.update(dict.fromkeys(ready))
    return [(i, parents[i], seconds.get(i, 0.0) * scale) for i in ordered]


def digest(task_id: str, parents: Sequence[str]) -> str:
    return hashlib.sha256("\n".join([task_id, *sorted(parents)]).encode()).hexdigest()


def reference(plan: Plan) -> dict[str, str]:
    """Return the hash of every task, without any engine."""
    hashes: dict[str, str] = {}
    for task_id, parents, _ in plan:
        hashes[task_id] = digest(task_id, [hashes[p] for p in parents])
    return hashes


@task
def step(task_id: str, parents: Sequence[str], seconds: float) -> str:
    time.sleep(seconds)
    return digest(task_id, parents)


@pytest.mark.parametrize("name", NAMES)
def test_replay(runner: TaskRunner, record: Any, name: str) -> None:
    """Each task hashes its id with its parents' hashes; all hashes are those of plain Python."""
    plan = plan_of(name)

    @flow(task_runner=runner)
    def replay() -> Mapping[str, Any]:
        futures: dict[str, TaskRunFuture] = {}
        for task_id, parents, seconds in plan:
            futures[task_id] = step.submit(task_id, [futures[p] for p in parents], seconds)
        return futures

    assert replay() == reference(plan)
    assert record.counts() == {"Completed": len(plan)}
    ends = {row.node_id: row.started + row.seconds for row in record.task_runs()}
    starts = {row.node_id: row.started for row in record.task_runs()}
    for node in record.nodes():
        assert all(starts[node.node_id] >= ends[up] - 0.01 for up in node.upstream)
