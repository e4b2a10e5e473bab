"""Real processes that run flows: started, watched, killed by their ids, and looked for when they should be gone."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from faultkit import workload

KIT = Path(__file__).resolve().parents[1]
MARK = "MILLRACE_FAULTS_MARK"  # in the environment of a trial's processes and of all that they start

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "faultkit.workload",
        "faultkit.inside",
        "faultkit.engines",
        "orchestration.api.engine",
        "orchestration.api.fingerprints",
        "orchestration.api.inline",
        "orchestration.api.retrying",
        "orchestration.stores.sqlite",
        "orchestration.terminal",
        "coolname",
        "runners.sequential",
        "runners.threads",
    ]
)


def _python_path() -> str:
    return os.pathsep.join([str(KIT), str(KIT.parents[1]), os.environ.get("PYTHONPATH", "")])


def _start_server() -> None:
    """Start the server where it can import what it shall: it does not get this process's `sys.path`."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = _python_path()
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class Child:
    """A process that runs a flow.

    Args:
        fresh: a new interpreter with the trial's mark, as it is needed to find what it has started; else a fork
            of a server that has imported everything, which takes 20 ms instead of half a second.
    """

    def __init__(self, job: dict[str, Any], mark: str, *, fresh: bool) -> None:
        self.output = Path(job["output"])
        self.started = time.monotonic()
        self._popen: subprocess.Popen[bytes] | None = None
        if fresh:
            code = "import json, sys; from faultkit.workload import child; child(json.loads(sys.argv[1]))"
            environ = {**os.environ, "PYTHONPATH": _python_path(), MARK: mark}
            self._popen = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(job)], env=environ, start_new_session=True
            )
            self.pid = self._popen.pid
        else:
            _start_server()
            self._process = _server.Process(target=workload.child, args=(job,), daemon=True)
            self._process.start()
            self.pid = self._process.pid or 0

    def wait(self, timeout: float) -> int | None:
        """Return the exit code, negative for signals; None if it still runs after `timeout` seconds."""
        if self._popen is None:
            self._process.join(timeout)
            return self._process.exitcode
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    @property
    def running(self) -> bool:
        return self.wait(0) is None

    def signal(self, number: int) -> None:
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> float:
        """Kill it, if it runs; return when, by the monotonic clock."""
        at = time.monotonic()
        self.signal(signal.SIGKILL)
        self.wait(30)
        return at

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""


def marked(mark: str) -> dict[int, str]:
    """Return the live processes of a trial: pid and command line."""
    wanted = f"{MARK}={mark}".encode()
    found: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environ = Path(f"/proc/{entry}/environ").read_bytes()
            if wanted not in environ.split(b"\0"):
                continue
            stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            if stat[0] not in "ZX":
                command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ")
                found[int(entry)] = command.decode(errors="replace")[:200]
        except OSError:
            continue
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def is_same(pid: int, then: float) -> bool:
    """Whether a process runs that had this number at a moment of the monotonic clock: numbers are used again."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return told[0] not in "ZX" and int(told[19]) / os.sysconf("SC_CLK_TCK") <= then


def wait_until(condition: Any, seconds: float) -> bool:
    """Wait for what nobody signals: a line in a file, the end of a process that is not ours."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
