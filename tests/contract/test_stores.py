"""Both stores keep the store contract."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.core.journal import LOST, AttemptsEnded, Entry, Moved
from orchestration.core.states import State
from orchestration.stores.base import Store
from orchestration.stores.memory import MemoryStore
from orchestration.stores.sqlite import SqliteStore
from orchestration.testing.store_contract import StoreContract
from orchestration.testing.store_entries import NOW, new_run
from runners.messages import Detail, Outcome, Stored


class TestMemoryStore(StoreContract):
    """In memory."""

    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestSqliteStore(StoreContract):
    """In a file."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = SqliteStore(tmp_path / "records" / "millrace.db")
        yield store
        store.close()


WIDTH = 10
INDICES = st.lists(st.integers(0, WIDTH - 1), min_size=1, unique=True) | st.builds(
    range, st.integers(0, 4), st.integers(5, WIDTH)
)
STATES = st.sampled_from(State)
TIMES = st.floats(NOW, NOW + 100)
DETAILS = st.builds(Detail, st.sampled_from(["ValueError", "KeyError"]), st.text(max_size=3))
MOVES = st.builds(
    Moved, st.just(0), INDICES, STATES, TIMES, st.text(max_size=3), st.sampled_from(["", "Cached"])
)


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
        names=draw(st.dictionaries(st.integers(0, n - 1), st.text(max_size=3))),
        stored=draw(st.none() | st.builds(Stored, st.just("file:///r"), st.just("abc"))),
        reason=draw(st.text(max_size=3)),
        submitted_at=draw(TIMES | st.just(0.0)),
        cpu_seconds=draw(st.floats(0, 9)),
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    sqlite = SqliteStore(tmp_path_factory.mktemp("both") / "millrace.db")
    yield MemoryStore(), sqlite
    sqlite.close()


numbers = itertools.count()


@settings(deadline=None, max_examples=60)
@given(entries=st.lists(MOVES | tables(), max_size=8))
def test_both_stores_tell_the_same(both: tuple[Store, Store], entries: list[Entry]) -> None:
    """Whatever is appended, even what no coordinator would: what is kept as objects and as bytes reads alike."""
    run_id, told = f"run-{next(numbers)}", []
    for store in both:
        new_run(store, run_id)
        for entry in entries:
            store.append(run_id, 1, [entry])
        history = [
            [
                (row.seq, list(row.indices), row.state, row.at, row.reason)
                for row in store.history(run_id, 0, k)
            ]
            for k in range(WIDTH)
        ]
        failed = {state: store.task_runs(run_id, states=frozenset({state})) for state in State}
        told.append(
            (
                store.task_runs(run_id),
                failed,
                [store.attempts(run_id, 0, k) for k in range(WIDTH)],
                [[(b[0] - a[0], *b[1:]) for a, b in itertools.pairwise(rows)] for rows in history],
                store.recovered(run_id),
                sorted(store.errors(run_id), key=repr),
                store.nodes(run_id),
                store.timing(run_id),
                store.next_ids(run_id),
            )
        )
    assert told[0] == told[1]
