"""A million recorded task runs: what people list is found by an index, on both databases."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.recorded import record
from orchestration.core.states import RunState, State
from orchestration.stores import open_store
from orchestration.stores.base import Store
from orchestration.stores.postgres.connection import PostgresConnection
from orchestration.stores.sqlite.database import SqliteConnection

RUNS, ITEMS = 1000, 1000
LARGE = 20_000  # items of one more run
START = 1_700_000_000.0

Statement = tuple[str, tuple[Any, ...]]
LISTS: dict[str, Callable[[Store, str], object]] = {
    "runs": lambda store, run: store.runs(limit=50),
    "a later page of runs": lambda store, run: store.runs(limit=50, before=(START + 500, "")),
    "runs by state": lambda store, run: store.runs(states=frozenset({RunState.FAILED, RunState.RUNNING})),
    "runs of a flow": lambda store, run: store.runs(flow_name="flow-3", before=(START + 500, "")),
    "runs of a flow by state": lambda store, run: store.runs(
        flow_name="flow-3", states=frozenset({RunState.FAILED})
    ),
    "subflows": lambda store, run: store.runs(parent_run_id=run),
    "a run by its name": lambda store, run: store.run("run-7"),
    "a run by the beginning of its id": lambda store, run: store.run(run[:12]),
    "nodes": lambda store, run: store.nodes(run),
    "task runs": lambda store, run: store.task_runs(run, limit=50),
    "task runs far behind": lambda store, run: store.task_runs(run, after=(0, LARGE - 100), limit=50),
    "task runs by state, far behind": lambda store, run: store.task_runs(
        run, states=frozenset({State.FAILED}), after=(0, LARGE - 3000), limit=50
    ),
    "one task run": lambda store, run: store.attempts(run, 0, LARGE - 1),
    "logs": lambda store, run: store.logs(run, after=5),
    "failures": lambda store, run: store.failures(run),
    "the timeline goes on": lambda store, run: store.timeline(run, after=300),
}

SORTED = {"failures", "the timeline goes on"}  # what is found by index is put in another order by PostgreSQL


def fill(store: Store, runs: int) -> str:
    """Record runs, the newest of which is a large one; return its id."""
    for number in range(runs):
        record(store, number, ITEMS, created=START + number, batch=100)
    return record(store, runs, LARGE, created=START + runs, batch=100)


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """A SQLite store with a million task runs in 1,001 runs."""
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('million') / 'store.db'}")
    began = time.perf_counter()
    run_id = fill(store, RUNS)
    print(f"{RUNS * ITEMS + LARGE:,} task runs were recorded in {time.perf_counter() - began:.1f} s")
    yield store, run_id
    store.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Statement]:
    """The statements that read, as they are sent to a database."""
    sent: list[Statement] = []
    for kind in (SqliteConnection, PostgresConnection):
        real = kind.execute

        def execute(self: Any, statement: str, values: Any = (), *, real: Any = real) -> Any:
            if isinstance(statement, str) and statement.lstrip().startswith("SELECT"):
                sent.append((statement, tuple(values)))
            return real(self, statement, values)

        monkeypatch.setattr(kind, "execute", execute)
    return sent


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_a_million_task_runs_go_by_index(
    name: str, million: tuple[Store, str], asked: list[Statement]
) -> None:
    """SQLite neither goes through a table nor sorts what it has found; the medians are the benchmark's affair."""
    store, run_id = million
    assert LISTS[name](store, run_id) is not None
    assert asked
    with sqlite3.connect(store.url.removeprefix("sqlite:///")) as other:
        for statement, values in asked:
            plan = [row[3] for row in other.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
            touched = [line for line in plan if line.startswith(("SCAN", "SEARCH", "USE"))]
            if name == "failures":  # the few kinds of one run are sorted by how often there were
                touched = [
                    line for line in touched if not line.startswith(("SCAN (", "SCAN grouped", "USE TEMP"))
                ]
            assert all(line.startswith("SEARCH") and "USING" in line for line in touched), plan


def test_the_same_statements_go_by_index_on_postgresql(postgres_url: str, asked: list[Statement]) -> None:
    """Where the tables are large enough for an index to be worth it, which is said here instead of waited for."""
    store = open_store(postgres_url)
    run_id = fill(store, 30)
    with psycopg.connect(postgres_url) as other:
        other.execute("SET search_path TO millrace; SET enable_seqscan = off; SET enable_bitmapscan = off")
        for name, ask in LISTS.items():
            asked.clear()
            ask(store, run_id)
            for statement, values in asked:
                plan = _explained(other, statement, values)
                assert "Seq Scan" not in plan, f"{name}: {plan}"
                assert name in SORTED or "Sort" not in plan, f"{name}: {plan}"
    store.close()


def _explained(other: psycopg.Connection[Any], statement: str, values: tuple[Any, ...]) -> str:
    lines = other.execute(f"EXPLAIN {statement.replace('?', '%s')}", values).fetchall()
    return "\n".join(line for (line,) in lines)


def test_pages_by_cursor_tell_each_task_run_once(million: tuple[Store, str], tmp_path: Path) -> None:
    """The failed ones of the large run, a few at a time, wherever a page ends."""
    store, run_id = million
    seen, after = list[int](), None
    while page := store.task_runs(run_id, states=frozenset({State.FAILED}), after=after, limit=3):
        seen += [row.index for row in page]
        after = page[-1].node_id, page[-1].index
    assert seen == [index for index in range(LARGE) if index % 997 == 996]
