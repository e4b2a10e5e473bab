"""Starting flows for the API: the command line in a process of its own, which outlives the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from ..errors import UserError
from ..stores.base import Store
from ..stores.liveness import this_host

_SCHEMA = """
import json, sys
from orchestration.api.entrypoints import load_flow
from orchestration.api.parameters import schema
answer = json.dumps(schema(load_flow(sys.argv[1]).fn))
sys.stdout.write(chr(10) + answer)  # on a line of its own, whatever the file has printed
"""
START_SECONDS = 20.0  # for a process to have recorded its run
LOOK_SECONDS = 0.05
_MILLRACE = "import sys; from orchestration.cli import main; sys.exit(main())"  # with this server's packages
TOLD = 2000  # characters of what a process that failed has said


class Launcher:
    """Starts processes and waits until their runs are in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._children: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()

    def run_flow(self, entrypoint: str, parameters: Mapping[str, Any]) -> str:
        """Run a flow; return the id of its run.

        Raises:
            UserError: it did not come to a run; the message has what its process said.
        """
        with tempfile.TemporaryFile() as given:  # nameless: it goes however this process ends
            given.write(json.dumps(dict(parameters)).encode())
            given.seek(0)
            return self.start(["run", entrypoint, "--params-json", "@-", "--quiet"], given=given)

    def schema(self, entrypoint: str) -> dict[str, Any]:
        """Return the JSON schema of a flow's parameters, read in a process of its own.

        Raises:
            UserError: it cannot be had; the message has the last that its process said.
        """
        try:
            done = subprocess.run(
                [sys.executable, "-c", _SCHEMA, entrypoint],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=START_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"importing {entrypoint} took more than {START_SECONDS:g} s") from None
        if done.returncode:
            raise UserError(
                done.stderr.strip().rpartition("\n")[2][-TOLD:] or f"{entrypoint} cannot be imported"
            )
        found: dict[str, Any] = json.loads(done.stdout.rpartition("\n")[2])
        return found

    def start(
        self, arguments: Sequence[str], expect: str | None = None, given: IO[bytes] | None = None
    ) -> str:
        """Start `millrace` with arguments; return the id of the run that its process has begun.

        Args:
            expect: the id of the run that it takes over; None: it makes a new one.
            given: its standard input.

        Raises:
            UserError: as `run_flow`.
        """
        self._forget_ended()
        with tempfile.TemporaryFile() as said:
            child = subprocess.Popen(
                [sys.executable, "-c", _MILLRACE, *arguments],
                env=os.environ | {"MILLRACE_STORE": self._store.address},
                stdin=given or subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
            with self._lock:
                self._children.append(child)
            deadline = time.monotonic() + START_SECONDS
            while True:
                ended = child.poll() is not None
                found = self._run_of(child.pid, expect)
                if found is not None:
                    return found
                if ended:
                    said.seek(0)
                    words = said.read().decode(errors="replace").strip()[-TOLD:]
                    raise UserError(words or f"its process ended with {child.returncode} before it had a run")
                if time.monotonic() > deadline:
                    raise UserError(f"process {child.pid} has no run after {START_SECONDS:g} s; it goes on")
                time.sleep(LOOK_SECONDS)

    def _run_of(self, pid: int, expect: str | None) -> str | None:
        rows = [self._store.run(expect)] if expect else self._store.runs(limit=20)
        here = this_host()
        return next(
            (row.run_id for row in rows if row.pid == pid and row.host == here and row.parent_run_id is None),
            None,
        )

    def _forget_ended(self) -> None:
        with self._lock:
            self._children = [child for child in self._children if child.poll() is None]
