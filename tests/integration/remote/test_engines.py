"""Whole runs of processes that know nothing but a server's address: on clusters, and with PostgreSQL behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.core.states import RunState, State
from orchestration.stores import open_store
from orchestration.stores.base import RunRow
from orchestration.stores.sql.store import SqlStore
from orchestration.testing.server import ServerProcess

START = "import sys; from orchestration.cli import main; sys.exit(main())"
PATIENCE_SECONDS = 60.0
ITEMS, HELD_FROM, BROKEN = 12, 4, 5
FLOW = f"""
import os, time
from pathlib import Path
from orchestration import flow, get_run_logger, task

HERE = Path(__file__).parent

@task(tags={{"db"}}, retries=1, batch=2)
def load(n):
    with open(os.open(HERE / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND), "w") as notes:
        notes.write(f"{{n}}\\n")
    get_run_logger().info("load %s", n)
    while n >= {HELD_FROM} and not (HERE / "gate").exists():
        time.sleep(0.01)
    if n == {BROKEN} and not (HERE / "mended").exists():
        raise ValueError(f"no {{n}}")
    return n

@task
def keep(n):
    return n

@flow(persist_results=True)
def etl():
    return sum(keep.map(load.map(range({ITEMS}))).result())
"""


class Elsewhere:
    """A folder with a flow, whose processes record by way of a server."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        (folder / "flows.py").write_text(FLOW)
        self._environ = os.environ | {"MILLRACE_API_URL": url}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", START, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self._environ, stdout=pipe, stderr=pipe, text=True
        )

    def notes(self) -> list[int]:
        file = self.folder / "notes"
        return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What is behind the server; the flow's processes do not know it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'millrace.db'}"
    return str(request.getfixturevalue("postgres_server").new_database())


@pytest.fixture
def direct(url: str, millrace_home: Path) -> Iterator[SqlStore]:
    store = open_store(url)
    assert isinstance(store, SqlStore)
    yield store
    store.close()


def begun(process: subprocess.Popen[str], place: Elsewhere, number: int) -> None:
    """Wait until so many items have started."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(place.notes()) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.02)


def check_failed(direct: SqlStore, run: RunRow, *, in_process: bool) -> None:
    """All of a run in which an item has failed is in the record."""
    assert run.state is RunState.FAILED
    assert (run.counts[State.COMPLETED], run.counts[State.FAILED]) == (2 * ITEMS - 2, 1)
    root, never = direct.failures(run.run_id)
    assert (root.error.type_name, root.error.message, root.count) == ("ValueError", f"no {BROKEN}", 1)
    assert (never.state, never.count, never.root) == (State.UPSTREAM_FAILED, 1, (0, BROKEN))
    assert [row.attempt for row in direct.attempts(run.run_id, 0, BROKEN)] == [1, 2]
    said = [line.message for line in direct.logs(run.run_id) if line.node_id == 0]
    assert sorted(said) == sorted(f"load {n}" for n in [*range(ITEMS), BROKEN])
    workers = {row.worker for row in direct.task_runs(run.run_id, node_id=0)}
    assert all((f":{run.pid}:" in worker) is in_process for worker in workers), workers
    assert direct.leases("db", direct.now()) == []


@pytest.mark.parametrize(
    ("runner", "url"),
    [
        pytest.param("dask", "sqlite", marks=[pytest.mark.dask, pytest.mark.slow]),
        pytest.param("ray", "sqlite", marks=[pytest.mark.ray, pytest.mark.slow]),
        pytest.param("threads", "postgres", marks=pytest.mark.postgres),
    ],
    indirect=["url"],
)
def test_a_run_fails_and_is_resumed_by_way_of_a_server(
    url: str, direct: SqlStore, tmp_path: Path, runner: str
) -> None:
    """The server dies in between; states, attempts, log lines, failures, limits and stored results are all there."""
    direct.set_limit("db", 2)
    with ServerProcess(url) as server:
        place, chosen = Elsewhere(tmp_path, server.url), ("--runner", runner, "--workers", "2", "--quiet")
        process = place.start("run", "flows.py:etl", *chosen)
        begun(process, place, HELD_FROM + 1)
        server.kill()
        (tmp_path / "gate").touch()
        server.start()
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 1, err
        (run,) = direct.runs()
        check_failed(direct, run, in_process=runner == "threads")
        (tmp_path / "mended").touch()
        again = place.start("runs", "resume", run.name, "--json", *chosen)
        out, err = again.communicate(timeout=PATIENCE_SECONDS)
        assert again.returncode == 0, err
        assert json.loads(out)["result"] == sum(range(ITEMS))
    assert sorted(place.notes()) == sorted([*range(ITEMS), BROKEN, BROKEN])
    assert direct.run(run.run_id).state is RunState.COMPLETED
    assert direct.problems(direct.now()) == []
