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

TABLES = ("run", "node", "journal", "error", "run_history", "log", "limit_", "lease", "remote_writer")


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
