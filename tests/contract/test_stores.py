"""All stores keep the store contract."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.core.journal import LOST, AttemptsEnded, Entry, Moved, Roots
from orchestration.core.states import State
from orchestration.stores.base import Store
from orchestration.stores.memory import MemoryStore
from orchestration.stores.postgres import PostgresStore
from orchestration.stores.sqlite import SqliteStore
from orchestration.testing.access_contract import AccessContract
from orchestration.testing.postgres import PrivateServer
from orchestration.testing.store_contract import StoreContract
from orchestration.testing.store_entries import NOW, new_run
from runners.messages import Detail, Outcome, Stored


class TestMemoryStore(StoreContract, AccessContract):
    """In memory."""

    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestSqliteStore(StoreContract, AccessContract):
    """In a file."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = SqliteStore(tmp_path / "records" / "millrace.db")
        yield store
        store.close()


@pytest.mark.postgres
class TestPostgresStore(StoreContract, AccessContract):
    """In a server's database."""

    @pytest.fixture
    def store(self, postgres_url: str) -> Iterator[Store]:
        store = PostgresStore(postgres_url)
        yield store
        store.close()


WIDTH = 10
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3)
INDICES = st.lists(st.integers(0, WIDTH - 1), min_size=1, unique=True) | st.builds(
    range, st.integers(0, 4), st.integers(5, WIDTH)
)
STATES = st.sampled_from(State)
TIMES = st.floats(NOW, NOW + 100)
DETAILS = st.builds(Detail, st.sampled_from(["ValueError", "KeyError"]), TEXTS)
ROOTS = st.none() | st.builds(Roots, st.just(0), st.sampled_from(["one", "other"]), st.just([7]))
NAMES, WORKERS = st.sampled_from(["", "Cached"]), st.sampled_from(["", "w1"])
MOVES = st.builds(Moved, st.just(0), INDICES, STATES, TIMES, TEXTS, NAMES, WORKERS, ROOTS)


@st.composite
def tables(draw: st.DrawFn) -> AttemptsEnded:
    """A batch with any outcome for each item."""
    indices = draw(INDICES)
    n = len(indices)

    def column(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=n, max_size=n))

    return AttemptsEnded(
        node_id=0,
        batch_id=draw(st.integers(0, 9)),
        execution_id="e",
        worker=draw(st.sampled_from(["w1", "w2"])),
        at=draw(TIMES),
        indices=indices,
        attempts=column(st.integers(1, 3)),
        outcomes=bytes(column(st.sampled_from([*Outcome, LOST]))),
        states=bytes(column(STATES)),
        started=array("d", column(TIMES | st.just(0.0))),
        durations=array("d", column(st.floats(0, 9))),
        positions=draw(st.permutations(range(n))),
        details=draw(st.dictionaries(st.integers(0, n - 1), DETAILS)),
        names=draw(st.dictionaries(st.integers(0, n - 1), TEXTS)),
        stored=draw(st.none() | st.builds(Stored, st.just("file:///r"), st.just("abc"))),
        reason=draw(TEXTS),
        submitted_at=draw(TIMES | st.just(0.0)),
        cpu_seconds=draw(st.floats(0, 9)),
    )


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = SqliteStore(tmp_path_factory.mktemp("told") / "millrace.db")
    yield store
    store.close()


@pytest.fixture(scope="module")
def postgres(postgres_server: PrivateServer) -> Iterator[Store]:
    store = PostgresStore(postgres_server.new_database())
    yield store
    store.close()


numbers = itertools.count()


ENTRIES = st.lists(MOVES | tables(), max_size=8)


@settings(deadline=None, max_examples=60)
@given(entries=ENTRIES)
def test_memory_and_sqlite_tell_the_same(sqlite: Store, entries: list[Entry]) -> None:
    """Whatever is appended, even what no coordinator would: what is kept as objects and as bytes reads alike."""
    run_id = f"run-{next(numbers)}"
    assert told(sqlite, run_id, entries) == told(MemoryStore(), run_id, entries)


@pytest.mark.postgres
@settings(deadline=None, max_examples=40)
@given(entries=ENTRIES)
def test_memory_and_postgres_tell_the_same(postgres: Store, entries: list[Entry]) -> None:
    """The same over a server."""
    run_id = f"run-{next(numbers)}"
    assert told(postgres, run_id, entries) == told(MemoryStore(), run_id, entries)


def told(store: Store, run_id: str, entries: list[Entry]) -> tuple[object, ...]:
    """Record a run and return all that can be asked about it."""
    new_run(store, run_id)
    for entry in entries:
        store.append(run_id, 1, [entry])
    histories = [
        [(row.seq, list(row.indices), row.state, row.at, row.reason) for row in store.history(run_id, 0, k)]
        for k in range(WIDTH)
    ]
    return (
        store.task_runs(run_id),
        {state: store.task_runs(run_id, states=frozenset({state})) for state in State},
        [store.attempts(run_id, 0, k) for k in range(WIDTH)],
        [[(b[0] - a[0], *b[1:]) for a, b in itertools.pairwise(rows)] for rows in histories],
        store.recovered(run_id),
        sorted(store.failures(run_id, limit=1000), key=repr),
        store.nodes(run_id),
        store.timing(run_id),
        store.next_ids(run_id),
    )
