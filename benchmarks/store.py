"""How many attempts per second does a store take, and what does the journal cost a run?"""

from __future__ import annotations

import itertools
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import runners
from orchestration import flow, task
from orchestration.core.journal import AttemptsEnded, NodeAdded, RunMoved
from orchestration.core.states import RunState, State
from orchestration.stores import open_store
from orchestration.stores.base import RunRow
from runners.messages import Outcome

from .harness import Case, Report, measure
from .scheduling.engines import running

TURNS = {1: 300, 100: 200, 1_000: 100}  # attempts per transaction, transactions per round
ITEMS = 100_000

nothing = task(lambda x: x, name="nothing")


@flow
def plain_map(n: int) -> int:
    return len(nothing.map(range(n)).result())


def run(*, repeats: int = 5) -> Report:
    """Measure stores by themselves, then the same flow with either."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, running(["sequential"]):
        cases: list[Case] = []
        for name, url in (("SQLite", f"sqlite:///{Path(folder) / 'bench.db'}"), ("memory", "memory")):
            for size, turns in TURNS.items():
                cases.append(Case(f"{name}, {size} attempts a turn", _append(url, size, turns), size * turns))
        for name, store in (("SQLite", None), ("memory", "memory")):
            cases.append(Case(f"a map on sequential, {name}", _map(store), ITEMS))
        report = measure("Attempts journalled, and the same map with either store", cases, repeats=repeats)
    cost = report.of("a map on sequential, SQLite").each - report.of("a map on sequential, memory").each
    report.notes.append(f"the journal costs a map {cost * 1e6:.2f} us per task run")
    return report


def _append(url: str, size: int, turns: int) -> Callable[[], float]:
    numbers = itertools.count()

    def append() -> float:
        store = open_store(url)
        try:
            return _turns(store, f"bench-{size}-{next(numbers)}", size, turns)
        finally:
            store.close()

    return append


def _turns(store: Any, run_id: str, size: int, turns: int) -> float:
    width, now, epoch = size * turns, time.time(), 1
    store.create_run(RunRow(run_id, run_id, "bench", created=now, heartbeat=now))
    added = NodeAdded(0, "nothing-0", "nothing", "map", width, now)
    store.append(run_id, epoch, [RunMoved(RunState.RUNNING, now), added])
    began = time.perf_counter()
    for turn in range(turns):
        store.append(run_id, epoch, [_ended(turn, range(turn * size, (turn + 1) * size), now)])
    return time.perf_counter() - began


def _ended(batch_id: int, indices: range, now: float) -> AttemptsEnded:
    n = len(indices)
    return AttemptsEnded(
        0, batch_id, f"x{batch_id}", "host:1", now, indices, array("I", [1]) * n,
        bytes([Outcome.COMPLETED]) * n, bytes([State.COMPLETED]) * n,
        array("d", [now]) * n, array("d", [1e-6]) * n, range(n),
    )  # fmt: skip


def _map(store: str | None) -> Callable[[], None]:
    options: dict[str, Any] = {} if store is None else {"store": store}
    shaped = plain_map.with_options(task_runner=runners.SequentialTaskRunner(), **options)

    def ours() -> None:
        assert shaped(ITEMS) == ITEMS

    return ours
