"""The store that a server keeps is a store like the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.stores.base import Store
from orchestration.stores.remote import RemoteStore
from orchestration.stores.sqlite import SqliteStore
from orchestration.testing.server import ServerProcess
from orchestration.testing.store_contract import StoreContract
from orchestration.testing.store_entries import new_run

TABLES = (
    "run",
    "node",
    "journal",
    "error",
    "failure",
    "run_history",
    "log",
    "limit_",
    "lease",
    "remote_writer",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, SqliteStore]]:
    """A server, and its store without it."""
    path = tmp_path_factory.mktemp("served") / "millrace.db"
    with ServerProcess(str(path), sure=True) as server:
        direct = SqliteStore(path)
        yield server, direct
        direct.close()


class TestRemoteStore(StoreContract):
    """By way of a server in another process."""

    @pytest.fixture
    def store(
        self, served: tuple[ServerProcess, SqliteStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Store]:
        monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
        server, direct = served
        direct._write(lambda connection: [connection.execute(f"DELETE FROM {name}") for name in TABLES])
        store = RemoteStore(server.url)
        yield store
        store.close()

    def test_what_a_person_asks_is_in_the_audit_trail(
        self, store: Store, served: tuple[ServerProcess, SqliteStore]
    ) -> None:
        """Not what processes record of their runs: that is the record itself."""
        before = [row.seq for row in served[1].audit(limit=1)]
        run = new_run(store)
        store.set_limit("db", 1)
        store.request(run, cancel=True)
        store.request(run, pause=True)
        store.remove_limit("db")
        told = [(row.action, row.target, row.outcome) for row in served[1].audit() if [row.seq] > before]
        assert told == [
            ("limit.remove", "db", "200 OK"),
            ("run.pause", run, "200 OK"),
            ("run.cancel", run, "200 OK"),
            ("limit.set", "db", "200 OK"),
        ]
