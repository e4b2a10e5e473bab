"""How long do lists take over a million recorded task runs?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from orchestration.core.states import RunState, State
from orchestration.stores import open_store
from orchestration.stores.base import Store
from orchestration.testing.postgres import PrivateServer, server_programs

from .harness import Case, Report, Target, measure
from .recorded import record

RUNS, ITEMS = 900, 1000
LARGE = 100_000  # items of one more run, whose task runs are listed
START = 1_700_000_000.0
MOST_SECONDS = 0.1
REPEATED = 5  # times in a round, whose mean counts

LISTS: dict[str, Callable[[Store, str], object]] = {
    "newest runs": lambda store, run: store.runs(limit=50),
    "runs far back": lambda store, run: store.runs(limit=50, before=(START + 50, "")),
    "failed runs": lambda store, run: store.runs(limit=50, states=frozenset({RunState.FAILED})),
    "runs of a flow": lambda store, run: store.runs(limit=50, flow_name="flow-3"),
    "runs counted by flow and state": lambda store, run: store.tally(),
    "task runs": lambda store, run: store.task_runs(run, limit=50),
    "task runs far behind": lambda store, run: store.task_runs(run, after=(0, LARGE - 100), limit=50),
    "failed task runs": lambda store, run: store.task_runs(run, states=frozenset({State.FAILED}), limit=50),
    "failed task runs far behind": lambda store, run: store.task_runs(
        run, states=frozenset({State.FAILED}), after=(0, LARGE - 10_000), limit=50
    ),
    "one task run": lambda store, run: (store.attempts(run, 0, 777), store.history(run, 0, 777)),
    "failures": lambda store, run: store.failures(run),
}


def run(*, repeats: int = 7) -> Report:
    """Measure what the API reads for its lists, from a store that is open."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        urls = {"SQLite": f"sqlite:///{Path(folder) / 'bench.db'}"}
        notes = []
        if server_programs() is None:
            notes.append("PostgreSQL is left out: its server programs are not installed")
        else:
            urls["PostgreSQL"] = stack.enter_context(PrivateServer()).new_database()
        cases = []
        for name, url in urls.items():
            store = open_store(url)
            stack.callback(store.close)
            began = time.perf_counter()
            large = _filled(store)
            took = time.perf_counter() - began
            notes.append(f"{RUNS * ITEMS + LARGE:,} task runs were recorded in {name} in {took:.0f} s")
            cases += [Case(f"{listed}, {name}", _timed(store, large, ask)) for listed, ask in LISTS.items()]
        report = measure("Lists over a million recorded task runs", cases, repeats=repeats, notes=notes)
    slowest = max((result for result in report.results), key=lambda result: result.median)
    report.targets.append(
        Target(f"({slowest.name}, the slowest)", slowest.median, MOST_SECONDS, "s", at_most=True)
    )
    return report


def _filled(store: Store) -> str:
    """Record the runs; return the id of the large one, which is the newest."""
    for number in range(RUNS):
        record(store, number, ITEMS, created=START + number)
    return record(store, RUNS, LARGE, created=START + RUNS)


def _timed(store: Store, run_id: str, ask: Callable[[Store, str], object]) -> Callable[[], float]:
    def timed() -> float:
        began = time.perf_counter()
        for _ in range(REPEATED):
            ask(store, run_id)
        return (time.perf_counter() - began) / REPEATED

    return timed
