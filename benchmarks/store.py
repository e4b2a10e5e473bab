"""How many attempts per second does a store take, and what does the journal cost a run?"""

from __future__ import annotations

import itertools
import tempfile
import time
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import runners
from orchestration import flow, task
from orchestration.core.journal import AttemptsEnded, NodeAdded, RunMoved
from orchestration.core.states import RunState, State
from orchestration.stores import open_store
from orchestration.stores.base import RunRow
from orchestration.testing.postgres import PrivateServer, server_programs
from orchestration.testing.server import ServerProcess
from runners.messages import Outcome

from .harness import Case, Report, measure
from .scheduling.engines import running

TURNS = {1: 300, 100: 200, 1_000: 100}  # attempts per transaction, transactions per round
ITEMS = 100_000
SINGLES = 200

nothing = task(lambda x: x, name="nothing")


@flow
def one_by_one(n: int) -> int:
    return sum(nothing.submit(1).result() for _ in range(n))


@flow
def plain_map(n: int) -> int:
    return len(nothing.map(range(n)).result())


def run(*, repeats: int = 5) -> Report:
    """Measure stores by themselves, then the same flow with each."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        stack.enter_context(running(["sequential"]))
        urls = {"SQLite": f"sqlite:///{Path(folder) / 'bench.db'}", "memory": "memory"}
        notes: list[str] = []
        if server_programs() is None:
            notes.append("PostgreSQL is left out: its server programs are not installed")
        else:
            urls["PostgreSQL"] = stack.enter_context(PrivateServer(fsync=True)).new_database()
        served = stack.enter_context(ServerProcess(f"{folder}/served.db"))
        urls["SQLite by way of a server"] = served.url
        cases = [
            Case(f"{name}, {size} attempts a turn", _append(url, size, turns), size * turns)
            for name, url in urls.items()
            for size, turns in TURNS.items()
        ]
        cases += [Case(f"a map on sequential, {name}", _map(url), ITEMS) for name, url in urls.items()]
        cases += [Case(f"single task runs, {name}", _singles(url), SINGLES) for name, url in urls.items()]
        question = "Attempts journalled, and the same map with each store"
        report = measure(question, cases, repeats=repeats, notes=notes)
        for url in urls.values():
            open_store(url).close()
    for name in sorted(urls.keys() - {"memory"}):
        cost = report.of(f"a map on sequential, {name}").each - report.of("a map on sequential, memory").each
        report.notes.append(f"the journal in {name} costs a map {cost * 1e6:.2f} us per task run")
        cost = report.of(f"single task runs, {name}").each - report.of("single task runs, memory").each
        report.notes.append(f"the journal in {name} costs a single task run {cost * 1e3:.2f} ms")
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


def _map(store: str) -> Callable[[], None]:
    shaped = plain_map.with_options(task_runner=runners.SequentialTaskRunner(), store=store)

    def ours() -> None:
        assert shaped(ITEMS) == ITEMS

    return ours


def _singles(store: str) -> Callable[[], None]:
    shaped = one_by_one.with_options(task_runner=runners.SequentialTaskRunner(), store=store)

    def ours() -> None:
        assert shaped(SINGLES) == SINGLES

    return ours
