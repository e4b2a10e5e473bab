"""Clusters that are started by commands, as their users start them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Dask itself must not start what died with its worker: as it is for clusters that a flow makes.
DASK_CONFIG = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}


class Command:
    """A command that runs until it is ended, and what it says."""

    def __init__(self, *command: str, prefix: tuple[str, ...] = ()) -> None:
        environ = {**os.environ, **DASK_CONFIG, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [*prefix, *command],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self._lines.append(line)
                self._said.notify_all()

    def said(self, pattern: str, times: int = 1, timeout: float = 60.0) -> re.Match[str]:
        """Wait until the command has said something so often; return the last."""

        def found() -> list[re.Match[str]]:
            return [match for line in self._lines if (match := re.search(pattern, line))]

        with self._said:
            assert self._said.wait_for(lambda: len(found()) >= times, timeout), "".join(self._lines)
            return found()[-1]

    def end(self) -> None:
        """End the command and all that it has started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                continue
        self._reader.join(10)


@contextmanager
def dask_scheduler(*arguments: str, host: str = "127.0.0.1", **options: Any) -> Iterator[str]:
    """Run `dask scheduler`; yield its address."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", host, "--port", "0"]
    scheduler = Command(*command, "--no-dashboard", *arguments, **options)
    try:
        yield scheduler.said(r"Scheduler at:\s+(\S+)").group(1)
    finally:
        scheduler.end()


@contextmanager
def dask_workers(address: str, number: int, *arguments: str, **options: Any) -> Iterator[Command]:
    """Run `dask worker` with so many processes of one thread, whose nannies start them again when they die."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nworkers", str(number)]
    workers = Command(
        *command, "--nthreads", "1", "--no-dashboard", "--memory-limit", "0", *arguments, **options
    )
    try:
        workers.said("Registered to", number)
        yield workers
    finally:
        workers.end()
