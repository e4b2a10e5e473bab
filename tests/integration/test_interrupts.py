"""Ctrl-C in a terminal: it reaches every process of the foreground, workers too."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.core.states import RunState
from orchestration.stores import open_store

SCRIPT = """
import os, sys, time
import runners
from orchestration import flow, task

@task(batch=1)
def slow(x, mark):
    open(mark, "a").close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(0.01)
    return x

@flow(task_runner=getattr(runners, sys.argv[1])())
def long(mark):
    return slow.map(range(8), mark=mark).result()

if __name__ == "__main__":
    long(sys.argv[2])
"""


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "runner",
    [
        "ThreadPoolTaskRunner",
        pytest.param("DaskTaskRunner", marks=pytest.mark.dask),
        pytest.param("RayTaskRunner", marks=pytest.mark.ray),
    ],
)
def test_an_interrupt_of_the_whole_foreground_cancels_and_leaves_quietly(tmp_path: Path, runner: str) -> None:
    """The run is Cancelled, the exit code says so, no worker complains and none stays."""
    script, mark, home = tmp_path / "script.py", tmp_path / "mark", tmp_path / "home"
    script.write_text(SCRIPT)
    env = {**os.environ, "MILLRACE_HOME": str(home), "MILLRACE_DISPLAY": "plain"}
    command = [sys.executable, str(script), runner, str(mark)]
    with subprocess.Popen(
        command, env=env, start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as process:
        _wait_for(mark.exists, process)
        os.killpg(process.pid, signal.SIGINT)
        _, printed = process.communicate(timeout=90)
    assert process.returncode in (130, -signal.SIGINT), printed
    end = printed[
        printed.index("Traceback") :
    ]  # of the script's KeyboardInterrupt: its own lines, none of ours
    assert [line for line in end.splitlines() if "File" in line] == [
        f'  File "{script}", line 19, in <module>'
    ], printed
    assert end.endswith("KeyboardInterrupt\n"), printed
    assert re.search(r" Cancelled in .*\n(.*\n)+  millrace runs resume \S+\nTraceback", printed), printed
    assert "spawn_main" not in printed
    store = open_store(str(home / "millrace.db"))
    assert store.runs()[0].state is RunState.CANCELLED
    store.close()
    _wait_for(lambda: not _alive_in(process.pid), None)


def _wait_for(condition: object, process: subprocess.Popen[str] | None) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert process is None or process.poll() is None, "the script ended early"
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def _alive_in(session: int) -> list[int]:
    """Processes of the session that the script had, zombies not counted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found
