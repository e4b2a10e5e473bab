"""Several processes on one store: no errors, nothing lost, no limit exceeded."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration import flow, task
from orchestration.core.states import RunState, State
from orchestration.stores import open_store
from orchestration.stores.sqlite import SqliteStore
from orchestration.testing.postgres import PrivateServer
from runners import ThreadPoolTaskRunner

RECORD = """
import sys
from orchestration.core.journal import Counted, LogWritten, Moved, RunMoved, WidthLearned
from orchestration.core.states import RunState, State
from orchestration.stores import open_store
from orchestration.testing.store_entries import NOW, counts, ended, new_run
from runners.messages import LogLine

store, run_id = open_store(sys.argv[1]), f"run-{sys.argv[2]}"
new_run(store, run_id)
store.append(run_id, 1, [WidthLearned(0, 500)])
for k in range(100):
    indices = range(k * 5, k * 5 + 5)
    store.append(run_id, 1, [Moved(0, indices, State.SUBMITTED, NOW)])
    line = LogLine(0, 0, 0, NOW, 20, "user", f"batch {k}")
    store.append(run_id, 1, [
        ended(0, indices, batch_id=k),
        LogWritten(0, [k * 5], [1], [line]),
        Counted(0, counts(pending=495 - 5 * k, completed=5 * k + 5)),
    ])
    if k % 20 == 0:
        store.heartbeat(run_id, 1, NOW + k)
        store.reap(NOW)
        store.task_runs(run_id, limit=10)
store.append(run_id, 1, [RunMoved(RunState.COMPLETED, NOW)])
"""

STOP = """
import os, signal, sys
from orchestration.stores import open_store

store = open_store(sys.argv[1])
store._write(lambda connection: os.kill(os.getpid(), signal.SIGSTOP))
"""

HOLD = """
import os, random, sys, time
from orchestration.stores import open_store

store, me, path = open_store(sys.argv[1]), sys.argv[2], sys.argv[3]
history = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
for k in range(15):
    holder = f"{me}/{k}"
    while not store.acquire(["db"], holder=holder, run_id=me, epoch=1, label=holder, slots=1, now=time.time()).granted:
        time.sleep(0.002)
    os.write(history, f"+{holder}\\n".encode())
    time.sleep(random.random() * 0.004)
    os.write(history, f"-{holder}\\n".encode())
    store.release([holder])
"""


FLOW = """
import sys
from orchestration import flow, task
from runners import SequentialTaskRunner

@task
def double(x):
    return 2 * x

@flow(task_runner=SequentialTaskRunner(), store=sys.argv[1])
def many(n):
    return sum(double.map(range(n)).result())

assert many(5000) == 24_995_000
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where processes share a store that does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/millrace.db"
    server: PrivateServer = request.getfixturevalue("postgres_server")
    return server.new_database()


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    quiet = {**os.environ, "MILLRACE_DISPLAY": "off"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet)


def finish(processes: list[subprocess.Popen[str]], seconds: float = 60) -> None:
    for process in processes:
        output, errors = process.communicate(timeout=seconds)
        assert process.returncode == 0, errors
        assert (output, errors) == ("", "")


@pytest.mark.timeout(90)
def test_eight_processes_share_a_store(url: str) -> None:
    """8 flow processes record 500 task runs each into a store that does not exist before."""
    finish([start(RECORD, url, k) for k in range(8)])
    store = open_store(url)
    for k in range(8):
        run_id = f"run-{k}"
        assert store.run(run_id).counts[State.COMPLETED] == 500
        rows = store.task_runs(run_id, limit=1000)
        assert [row.index for row in rows] == list(range(500))
        assert {row.state for row in rows} == {State.COMPLETED}
        assert [line.message for line in store.logs(run_id)] == [f"batch {n}" for n in range(100)]
    if isinstance(store, SqliteStore):
        with store._database.read() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()


@pytest.mark.timeout(180)
def test_sixteen_flows_share_a_store(url: str) -> None:
    """16 flow processes at once, each a map of 5,000: nobody meets a lock, and all that ran is recorded once."""
    finish([start(FLOW, url) for _ in range(16)], seconds=150)
    store = open_store(url)
    runs = store.runs()
    assert [(run.state, run.counts[State.COMPLETED]) for run in runs] == [(RunState.COMPLETED, 5000)] * 16
    for run in runs:
        rows = store.task_runs(run.run_id, limit=6000)
        assert [(row.index, row.attempts) for row in rows] == [(k, 1) for k in range(5000)]
        assert store.logs(run.run_id) == []
    store.close()


@pytest.mark.timeout(90)
def test_a_limit_holds_across_processes(url: str, tmp_path: Path) -> None:
    """6 processes under a limit of 2: an outside history, appended while the lease is held, never shows 3."""
    history = tmp_path / "history"
    store = open_store(url)
    store.set_limit("db", 2)
    finish([start(HOLD, url, f"p{k}", history) for k in range(6)])
    inside: set[str] = set()
    most, lines = 0, history.read_text().splitlines()
    for line in lines:
        (inside.add if line[0] == "+" else inside.discard)(line[1:])
        most = max(most, len(inside))
    assert len(lines) == 6 * 15 * 2
    assert most == 2
    assert store.leases("db", 0.0) == []
    store.close()


APPEND = """
import sys
from orchestration.stores import open_store
from orchestration.testing.store_entries import ended, new_run

store = open_store(sys.argv[1])
new_run(store, "killed")
k = 0
while True:
    store.append("killed", 1, [ended(0, range(k * 10, k * 10 + 10), batch_id=k)])
    k += 1
    print(k, flush=True)
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("acknowledged", [1, 50, 400])
def test_what_was_acknowledged_survives_a_kill(url: str, acknowledged: int) -> None:
    """kill -9 in the middle of appends: all that had returned is there, the rest is whole batches."""
    process = start(APPEND, url)
    assert process.stdout is not None
    while int(process.stdout.readline()) < acknowledged:
        pass
    process.kill()
    told = acknowledged + process.stdout.read().count("\n")
    process.wait()
    process.communicate()
    store = open_store(url)
    rows = store.task_runs("killed", states=frozenset({State.COMPLETED}), limit=10**6)
    assert len(rows) in (told * 10, told * 10 + 10)
    assert [row.index for row in rows] == list(range(len(rows)))
    store.append("killed", 1, [])
    store.close()


class Answer(logging.Handler):
    """Does something at the first line that says that the run waits, and keeps what was said."""

    def __init__(self, answer: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self._answer = answer

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        if len(self.said) == 1:
            self._answer()


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="only Linux tells who holds a lock")
def test_a_process_is_suspended_while_it_writes(millrace_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait, are told which process it is and how to let it go on, and go on themselves when it does."""
    store = open_store(None)
    assert isinstance(store, SqliteStore)
    writers: list[subprocess.Popen[bytes]] = []
    answer = Answer(lambda: writers[0].send_signal(signal.SIGCONT))
    driver = logging.getLogger("millrace.driver")
    driver.addHandler(answer)

    @task
    def suspend_another() -> int:
        writers.append(subprocess.Popen([sys.executable, "-c", STOP, store.url]))
        _, status = os.waitpid(writers[0].pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        monkeypatch.setattr(store._database, "_timeout", 0.05)
        return 1

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def work() -> int:
        return suspend_another.submit().result()

    try:
        assert work() == 1
    finally:
        driver.removeHandler(answer)
        for writer in writers:
            writer.send_signal(signal.SIGCONT)
    assert writers[0].wait(30) == 0
    pid = writers[0].pid
    assert f"Process {pid} has held" in answer.said[0]
    assert f"kill -CONT {pid}" in answer.said[0]
    assert store.runs()[0].state is RunState.COMPLETED
