"""Both stores keep the store contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.stores.base import Store
from orchestration.stores.memory import MemoryStore
from orchestration.stores.sqlite import SqliteStore
from orchestration.testing.store_contract import StoreContract


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
