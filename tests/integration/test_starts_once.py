"""`rerun_on_loss=False`: code that must not start twice, across the death of the flow's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FLOW = """
import os, time
from orchestration import flow, task

@task(rerun_on_loss=False, batch=1)
def pay(n, folder):
    fd = os.open(os.path.join(folder, "paid"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(fd, f"{n}\\n".encode())
    os.close(fd)
    if n >= 2 and not os.path.exists(os.path.join(folder, "second")):
        time.sleep(60)
    return n

@flow(persist_results=True, task_runner="threads")
def payments(folder: str):
    futures = pay.map(range(4), folder=folder)
    futures.wait()
    return [state.type for state in futures.states]
"""


@pytest.mark.timeout(120)
def test_a_payment_that_had_begun_is_not_made_again(tmp_path: Path) -> None:
    """After kill -9 and resume each payment has been started once; those cut short are Crashed."""
    script = tmp_path / "flows.py"
    script.write_text(FLOW)
    paid = tmp_path / "paid"
    env = {**os.environ, "MILLRACE_HOME": str(tmp_path / "home"), "MILLRACE_DISPLAY": "off"}
    millrace = [sys.executable, "-c", "from orchestration.cli import main; main()"]
    command = [*millrace, "run", f"{script}:payments", "-p", f"folder={tmp_path}"]
    with subprocess.Popen(command, env=env) as process:
        deadline = time.monotonic() + 60
        while not paid.exists() or len(paid.read_text().split()) < 4 or not _ends(tmp_path):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    (tmp_path / "second").touch()
    resume = [*millrace, "runs", "resume", "latest"]
    done = subprocess.run(resume, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert sorted(paid.read_text().split()) == ["0", "1", "2", "3"], done.stderr
    assert _states(tmp_path) == ["Completed", "Completed", "Crashed", "Crashed"], done.stderr


def _ends(folder: Path) -> bool:
    """Whether the two short payments are recorded as completed."""
    return _states(folder).count("Completed") == 2


def _states(folder: Path) -> list[str]:
    from orchestration.stores import open_store

    store = open_store(str(folder / "home" / "millrace.db"))
    runs = store.runs(limit=1)
    found = [row.state.title for row in store.task_runs(runs[0].run_id)] if runs else []
    store.close()
    return found
