"""A `millrace server start` in a process of its own, which tests kill, stop and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import TracebackType

_START = "import sys; from orchestration.cli import main; sys.exit(main())"
# Contracts tell the time: a server's own would make their runs dead, and one that has just begun takes none for dead.
_START_SURE = (
    "from orchestration.web import app, presence; presence.HEARD_WITHIN_SECONDS = 0.0; app.REAP_SECONDS = 1e9; "
    + _START
)


class ServerProcess:
    """A server over a store; it keeps its port when it is started again.

    Args:
        store: as `--store`.
        sure: it takes silence for death from its first moment on, but only when asked to look.
    """

    def __init__(self, store: str, *, sure: bool = False) -> None:
        self._store = store
        self._sure = sure
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and return when it takes requests."""
        environ = {name: value for name, value in os.environ.items() if name != "MILLRACE_API_URL"}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _START_SURE if self._sure else _START),
                *("server", "start", "--port", str(self._port), "--store", self._store),
            ],
            env=environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("dashboard"):
            raise RuntimeError(line + self._process.stdout.read())
        self.url = line.split()[1]
        self._port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """End it without a chance to do anything."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def suspend(self) -> None:
        """Let it neither hear nor answer, with its connections open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
