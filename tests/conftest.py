"""What every tier of tests shares."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from orchestration import stores
from orchestration.testing.postgres import PrivateServer, server_programs

Require = Callable[[str, object], None]


def _require(name: str, available: object) -> None:
    if available:
        return
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(f"{name} is missing, and with CI=true nothing may be skipped", pytrace=False)
    pytest.skip(f"needs {name}")


# Who starts a test run in the background may have made Ctrl-C be ignored, which child processes inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about what else the machine does. CI's own profile stays: it picks no new ones.
settings.register_profile(
    "patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

# Quick and pure tests first; last the tests of the API, which keep a Dask and a Ray alive in this process.
ORDER = ("unit", "simulation", "meta", "contract", "faults", "integration", "integration/api")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the suites in ORDER, whatever order they were named in."""
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parent.as_posix() if item.path.is_relative_to(here) else ""
        return ORDER.index(folder) if folder in ORDER else len(ORDER)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def require() -> Require:
    """`require("ip", shutil.which("ip"))` skips the test on a laptop and fails it where CI=true."""
    return _require


@pytest.fixture(scope="session")
def postgres_server(require: Require) -> Iterator[PrivateServer]:
    """A PostgreSQL server that all tests share; those that restart it start one of their own."""
    require("PostgreSQL's server programs", server_programs())
    with PrivateServer() as server:
        yield server


@pytest.fixture(scope="session")
def _postgres_database(postgres_server: PrivateServer) -> str:
    return postgres_server.new_database()


@pytest.fixture
def postgres_url(postgres_server: PrivateServer, _postgres_database: str) -> str:
    """The URL of an empty database."""
    opened = stores._open.pop(
        _postgres_database, None
    )  # by another test: it would not look at the schema again
    if opened is not None:
        opened.close()
    # A tenth of the time that a new database takes.
    postgres_server.execute("DROP SCHEMA IF EXISTS millrace CASCADE", _postgres_database)
    return _postgres_database


@pytest.fixture
def millrace_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty MILLRACE_HOME, so that a test neither sees nor touches the records of its user."""
    home = tmp_path / "millrace-home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("MILLRACE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MILLRACE_HOME", str(home))
    return home
