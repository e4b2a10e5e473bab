"""A process that was stopped, was taken for dead, and comes back when another has resumed its run."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestration import flow
from orchestration.stores.base import Requests
from orchestration.stores.memory import MemoryStore
from runners import SequentialTaskRunner
from runners.base import Sink

FLOW = """
import os, time
from orchestration import flow, task

@task(batch=1)
def step(n, folder):
    with open(os.path.join(folder, "ran"), "a") as file:
        file.write(f"{n}\\n")
    time.sleep(0.05)  # what takes less than 5 ms waits at the runner already, where it may begin before that knows
    while n == 1 and not os.path.exists(os.path.join(folder, "open")):
        time.sleep(0.01)
    return n

@flow(persist_results=True, task_runner="sequential", flow_run_name="stopped")
def steps(folder: str):
    return sum(step.map(range(4), folder=folder).result())
"""

MILLRACE = [sys.executable, "-c", "from orchestration.cli import main; main()"]


def resume(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [*MILLRACE, "runs", "resume", "stopped"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.timeout(150)
def test_a_stopped_process_finds_its_run_taken_over(tmp_path: Path) -> None:
    """It starts nothing more, writes nothing and says why; the record is the other's. Resuming again is refused."""
    script, ran, home = tmp_path / "flows.py", tmp_path / "ran", tmp_path / "home"
    script.write_text(FLOW)
    env = {**os.environ, "MILLRACE_HOME": str(home), "MILLRACE_DISPLAY": "off"}
    command = [*MILLRACE, "run", f"{script}:steps", "-p", f"folder={tmp_path}"]
    first = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not ran.exists() or len(ran.read_text().split()) < 2:
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.send_signal(signal.SIGSTOP)
        alive = resume(env)
        assert alive.returncode != 0
        assert "is Running" in alive.stderr
        with sqlite3.connect(home / "millrace.db") as store:  # half a minute passes
            store.execute("UPDATE run SET heartbeat = heartbeat - 60")
        store.close()
        (tmp_path / "open").touch()
        second = resume(env)
        assert second.returncode == 0, second.stderr
        first.send_signal(signal.SIGCONT)
        _, words = first.communicate(timeout=60)
    finally:
        first.kill()
        first.wait()
    assert first.returncode != 0
    assert "taken over" in words
    assert sorted(ran.read_text().split()) == ["0", "1", "1", "2", "3"]
    third = resume(env)
    assert third.returncode != 0
    assert "has completed" in third.stderr


def test_a_run_is_not_silent_while_its_runner_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that takes minutes to start must not have its run marked as Crashed meanwhile."""
    beaten = threading.Event()
    heartbeat = MemoryStore.heartbeat

    def beat(store: MemoryStore, run_id: str, epoch: int, now: float) -> Requests:
        beaten.set()
        return heartbeat(store, run_id, epoch, now)

    class LateRunner(SequentialTaskRunner):
        def start(self, sink: Sink) -> None:
            assert beaten.wait(30), "no heartbeat before the runner is there"
            super().start(sink)

    monkeypatch.setattr(MemoryStore, "heartbeat", beat)

    @flow(store="memory", task_runner=LateRunner())
    def patient() -> str:
        return "started"

    assert patient() == "started"
