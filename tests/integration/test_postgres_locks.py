"""Rows that processes lock in a PostgreSQL store: always in one order, so that nobody waits for who waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import psycopg
import pytest

from orchestration.core.journal import LeasesReturned
from orchestration.errors import FencedError
from orchestration.stores.base import LEASE_SECONDS, Grant
from orchestration.stores.postgres import PostgresStore, database
from orchestration.stores.postgres.connection import PostgresConnection
from orchestration.stores.sql import leases
from orchestration.testing.store_entries import NOW, new_run

pytestmark = pytest.mark.postgres
ROUNDS = 60


@pytest.fixture
def stores(postgres_url: str) -> Iterator[tuple[PostgresStore, PostgresStore]]:
    """Two processes' ways to one database."""
    one, other = PostgresStore(postgres_url), PostgresStore(postgres_url)
    yield one, other
    one.close()
    other.close()


@pytest.fixture
def conflicts(monkeypatch: pytest.MonkeyPatch) -> list[psycopg.Error]:
    """Deadlocks and the like, which are repeated: each has cost a second."""
    found: list[psycopg.Error] = []
    real = database.is_conflict

    def noted(error: psycopg.Error) -> bool:
        conflict = real(error)
        found.extend([error] if conflict else [])
        return conflict

    monkeypatch.setattr(database, "is_conflict", noted)
    return found


def ask(store: PostgresStore, run_id: str, *names: str, now: float = NOW, holder: str = "") -> Grant:
    return store.acquire(
        names, holder=holder or f"{run_id}/batch/1", run_id=run_id, epoch=1, label=run_id, slots=1, now=now
    )


def at_once(*actions: Callable[[], Any]) -> None:
    """Do things in threads that begin together."""
    barrier = threading.Barrier(len(actions))

    def do(action: Callable[[], Any]) -> None:
        barrier.wait()
        action()

    threads = [threading.Thread(target=do, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_who_takes_a_slot_waits_for_nobody_who_is_heard_of(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    """A lease has run out while a transaction of its run goes on: it is not ended yet, and nobody hangs."""
    store, _ = stores
    store.set_limit("db", 1)
    late = NOW + LEASE_SECONDS
    new_run(store, "a", heartbeat=NOW)
    assert ask(store, "a", "db").granted
    with psycopg.connect(store.address) as owner:
        owner.execute("SELECT 1 FROM millrace.run WHERE run_id = 'a' FOR UPDATE")
        refused = ask(store, "b", "db", now=late)
        assert not refused.granted
        assert refused.retry_at is not None
        assert refused.retry_at <= late + 1
        assert not store.requests("a", 1).fenced
        owner.execute("DELETE FROM millrace.lease WHERE run_id = 'a'")
    assert ask(store, "b", "db", now=late).granted


def test_slots_are_taken_away_while_their_runs_come_back(
    stores: tuple[PostgresStore, PostgresStore], conflicts: list[psycopg.Error]
) -> None:
    """The end of a silent run's lease, and that run's own word of it, at the same moment: no deadlock."""
    one, other = stores
    for name in ("x", "y"):
        one.set_limit(name, 1)

    def come_back(run_id: str) -> None:
        with suppress(FencedError):
            one.heartbeat(run_id, 1, NOW + LEASE_SECONDS)
            one.append(run_id, 1, [LeasesReturned((f"{run_id}/batch/1",))])

    for k in range(ROUNDS):
        silent, next_ = f"silent-{k}", f"next-{k}"
        new_run(one, silent, heartbeat=NOW)
        assert ask(one, silent, "x", "y").granted
        at_once(
            lambda silent=silent: come_back(silent),
            lambda next_=next_: ask(other, next_, "y", "x", now=NOW + LEASE_SECONDS),
        )
        other.release([f"{next_}/batch/1", f"{silent}/batch/1"])
    assert conflicts == []
    assert one.leases("x", NOW) == one.leases("y", NOW) == []


def test_a_release_and_its_run_in_one_transaction(
    stores: tuple[PostgresStore, PostgresStore], conflicts: list[psycopg.Error]
) -> None:
    """Threads share a transaction that gives back a lease and goes on to its run; another process would end that lease.

    It leaves it to who has the run's row, and waits in the queue.
    """
    one, other = stores
    one.set_limit("db", 1)
    new_run(one, "a", heartbeat=NOW)
    assert ask(one, "a", "db").granted
    asking = threading.Thread(target=lambda: ask(other, "b", "db", now=NOW + LEASE_SECONDS))

    def waits() -> bool:
        found = watcher.execute(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return found.fetchone() is not None

    def shared(connection: PostgresConnection) -> None:
        leases.release(connection, ["a/batch/1"])
        connection.execute("SELECT 1").fetchall()  # by now the server has done it
        if asking.ident is None:
            asking.start()
        while asking.is_alive() and not waits():
            asking.join(0.001)
        connection.execute("SELECT 1 FROM run WHERE run_id = 'a' FOR UPDATE").fetchall()

    with psycopg.connect(one.address, autocommit=True) as watcher:
        one._database.write(shared)
        asking.join()
    assert conflicts == []
    assert [(lease.run_id, lease.held) for lease in one.leases("db", NOW)] == [("b", False)]


def test_several_demands_in_one_transaction(
    stores: tuple[PostgresStore, PostgresStore], conflicts: list[psycopg.Error]
) -> None:
    """Threads share transactions, and the demands in them are in any order: no deadlock with another process."""
    for name in ("x", "y"):
        stores[0].set_limit(name, 2 * ROUNDS)

    def demand(store: PostgresStore, name: str, k: int) -> threading.Thread:
        """Have a demand wait for the store's next transaction."""
        waiting = store._database._waiting
        before, holder = len(waiting), f"{id(store)}/{name}/{k}"
        thread = threading.Thread(target=lambda: ask(store, "r", name, holder=holder))
        thread.start()
        while len(waiting) == before:
            thread.join(0.001)
        return thread

    for k in range(ROUNDS):
        with ExitStack() as held:
            for store in stores:
                held.enter_context(store._database._lock)
            threads = [
                demand(store, name, k)
                for store, names in zip(stores, ("xy", "yx"), strict=True)
                for name in names
            ]
        for thread in threads:
            thread.join()
    assert conflicts == []
    assert [limit.held for limit in stores[0].limits(NOW)] == [2 * ROUNDS] * 2
