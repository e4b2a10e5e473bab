"""The base class of the contract suite, with its settings and fixtures. The tests are in the mixins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from ..base import TaskRunner
from .bench import Bench
from .calls import CallTests
from .ends import EndTests
from .life import LifeTests
from .live import LiveTests
from .values import ValueTests


class RunnerContract(ValueTests, EndTests, LiveTests, CallTests, LifeTests):
    """Subclass this, name the subclass `Test...`, and override `make_runner`.

    Attributes:
        patience_seconds: how long to wait for any one event before the test fails.
        gate_host: address of this machine as its workers see it. Items connect to it.
        owns_workers: `close` ends the processes of workers that still run something.
        chain_depth: how many task runs may wait for each other in a chain. An engine with one process for
            each may need minutes for 50.
        shares_files: workers see the folders of this machine.
    """

    patience_seconds: ClassVar[float] = 60.0
    gate_host: ClassVar[str] = "127.0.0.1"
    owns_workers: ClassVar[bool] = True
    chain_depth: ClassVar[int] = 50
    shares_files: ClassVar[bool] = True

    def make_runner(self) -> TaskRunner:
        """Return an unstarted runner with few slots, at least one."""
        raise NotImplementedError(f"{type(self).__name__} has to override make_runner")

    @pytest.fixture(scope="class")
    @classmethod
    def shared_bench(cls) -> Iterator[Bench]:
        """One started runner for all tests of the class."""
        bench = Bench(cls().make_runner(), cls.patience_seconds, cls.gate_host)
        try:
            yield bench.start()
        finally:
            bench.runner.close()

    @pytest.fixture
    def bench(self, shared_bench: Bench) -> Iterator[Bench]:
        yield shared_bench
        shared_bench.open_gates()

    @pytest.fixture
    def own_bench(self) -> Iterator[Bench]:
        """A runner for one test alone, not started."""
        bench = Bench(self.make_runner(), self.patience_seconds, self.gate_host)
        try:
            yield bench
        finally:
            bench.open_gates()
            bench.runner.close()
