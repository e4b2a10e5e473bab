"""The same flow on several runners: what each run did, how long it took, and whether all agree."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestration import Flow, State
from orchestration.core.states import State as TaskState
from orchestration.stores import open_store

from .report import digest_of


@dataclass(slots=True)
class RunRecord:
    """One run of the flow, as its durable record tells it.

    Attributes:
        states: by node, the number of task runs by state.
        retried: task runs that needed more than one attempt.
        start_seconds: from the call of the flow to the start of the first task run; starting Dask or Ray is here.
        work_seconds: from the start of the first task run to the end of the last one.
        total_seconds: the whole call, the runner's end included.
        report: None if the run failed.
    """

    runner: str
    run_name: str = ""
    state: str = ""
    message: str = ""
    states: dict[str, dict[str, int]] = field(default_factory=dict)
    retried: int = 0
    start_seconds: float = 0.0
    work_seconds: float = 0.0
    total_seconds: float = 0.0
    digest: str = ""
    report: dict[str, Any] | None = None

    @property
    def task_runs(self) -> int:
        return sum(sum(counts.values()) for counts in self.states.values())

    def count(self, *states: str) -> int:
        """Return how many task runs ended in one of these states."""
        return sum(counts.get(state, 0) for counts in self.states.values() for state in states)

    def described(self) -> dict[str, Any]:
        """Return the run as JSON values, without its report."""
        data = asdict(self)
        del data["report"]
        return {**data, "task_runs": self.task_runs}


def run_on(flow: Flow[Any, Any], runner: Any, label: str, arguments: Sequence[Any]) -> RunRecord:
    """Run a flow on a runner and read its record from the store.

    Args:
        runner: an instance or class of `runners`, or a name: "sequential", "threads", "dask", "ray".

    Raises:
        KeyboardInterrupt: the run was cancelled by Ctrl-C; its record says so.
    """
    started_runs: list[Any] = []
    chosen = flow.with_options(
        task_runner=runner, on_running=[lambda flow, run, state: started_runs.append(run)]
    )
    called, clock = time.time(), time.perf_counter()
    state: State = chosen(*arguments, return_state=True)
    record = RunRecord(label, state=state.type, message=state.message)
    record.total_seconds = time.perf_counter() - clock
    if state.is_cancelled():
        raise KeyboardInterrupt
    _read_record(record, started_runs[0].run_id, called)
    if state.is_completed():
        record.report = state.result()
        record.digest = digest_of(record.report or {})
    return record


def disagreements(records: Sequence[RunRecord]) -> list[str]:
    """Return in words where runs differ from the first one; empty if all agree."""
    found = [
        f"{record.runner}: the run ended {record.state}: {record.message}"
        for record in records
        if record.report is None
    ]
    first, *others = records
    for record in others:
        if record.digest != first.digest:
            found.append(f"{record.runner}: its report differs from that of {first.runner}")
            found += _differences(first.report or {}, record.report or {})
        for node in {**first.states, **record.states}:
            here, there = record.states.get(node), first.states.get(node)
            if here != there:
                found.append(f"{record.runner}: {node} ended {here}, with {first.runner} {there}")
    return found


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _read_record(record: RunRecord, run_id: str, called: float) -> None:
    store = open_store()
    record.run_name = store.run(run_id).name
    nodes = store.nodes(run_id)
    for node in nodes:
        counts = enumerate(node.counts)
        record.states[node.task_name] = {_title(value): n for value, n in counts if n}
        rows = store.task_runs(run_id, node_id=node.node_id, limit=node.width or 0)
        record.retried += sum(row.attempts > 1 for row in rows)
    first = min((node.started for node in nodes if node.started is not None), default=called)
    last = max((node.ended for node in nodes if node.ended is not None), default=first)
    record.start_seconds, record.work_seconds = first - called, last - first


def _title(value: int) -> str:
    return TaskState(value).title


def _differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    keys = Counter([*here, *there])
    return [f"    in {key!r}" for key in keys if here.get(key) != there.get(key)]
