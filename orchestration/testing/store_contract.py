"""The contract of a store. A store of your own is tested by a subclass with a `store` fixture:

class TestMyStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return MyStore(tmp_path / "records")
"""

from __future__ import annotations

import pytest

from ..stores.base import Store
from .journal_contract import JournalContract
from .limit_contract import LimitContract
from .resume_contract import ResumeContract
from .run_contract import RunContract
from .timing_contract import TimingContract


class StoreContract(RunContract, JournalContract, ResumeContract, LimitContract, TimingContract):
    """What every store does."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError("a subclass gives the store")
