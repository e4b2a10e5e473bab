"""The runner contract over the runners of this package."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from runners import SequentialTaskRunner, TaskRunner, ThreadPoolTaskRunner
from runners.contract import RunnerContract


class TestSequential(RunnerContract):
    """The reference."""

    def make_runner(self) -> TaskRunner:
        return SequentialTaskRunner()


class TestThreads(RunnerContract):
    """Several slots in the flow's process."""

    def make_runner(self) -> TaskRunner:
        return ThreadPoolTaskRunner(max_workers=3)


class OptionalContract(RunnerContract):
    """A runner whose engine may be missing on a laptop; CI has all of them."""

    engine: str

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _engine_is_there(cls, require: Any) -> None:
        require(cls.engine, importlib.util.find_spec(cls.engine))

    def load(self, name: str) -> Any:
        return getattr(importlib.import_module("runners"), name)


@pytest.mark.dask
class TestDask(OptionalContract):
    """Worker processes of a local Dask cluster."""

    engine = "distributed"

    def make_runner(self) -> TaskRunner:
        made: TaskRunner = self.load("DaskTaskRunner")(
            cluster_kwargs={"n_workers": 2, "dashboard_address": None}
        )
        return made


@pytest.mark.ray
class TestRay(OptionalContract):
    """Worker processes of a local Ray."""

    engine = "ray"
    chain_depth = 8  # each takes a process, and starting one takes a second

    def make_runner(self) -> TaskRunner:
        made: TaskRunner = self.load("RayTaskRunner")(init_kwargs={"num_cpus": 2, "include_dashboard": False})
        return made


def test_every_runner_of_the_package_is_under_contract(root_runners: Path) -> None:
    """Whoever adds a runner puts it under the contract, too."""
    names = {"sequential", "threads", "dask", "ray"}
    found = set()
    for path in root_runners.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "name: ClassVar[str] = " in text:
            found.add(path.stem)
    assert found == names


@pytest.fixture
def root_runners() -> Path:
    """The folder of the package."""
    return Path(importlib.import_module("runners").__file__ or "").parent
