"""Other orchestrators as rivals: a process in an environment of its own runs a round when it is told to."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .harness import Case

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent / ".cache" / "peers"
WANTED = HERE / "peers.txt"
INSTALL_SECONDS, START_SECONDS, ROUND_SECONDS = 600.0, 180.0, 180.0


@contextmanager
def peer_cases(runners: Sequence[str]) -> Iterator[tuple[list[Case], list[str]]]:
    """Yield a case for each peer that can be started here, and notes on those that cannot."""
    cases: list[Case] = []
    notes: list[str] = []
    python = peer_python(notes)
    with ExitStack() as stack:
        for name, kind, engine, items in (
            ("Prefect on threads", "prefect", "threads", 100),
            ("Prefect on dask", "prefect", "dask", 20),
            ("Prefect on ray", "prefect", "ray", 20),
            ("Parsl on threads", "parsl", "threads", 500),
        ):
            if python is None or engine not in runners:
                continue
            try:
                peer = stack.enter_context(_Peer(python, kind, engine, items))
            except Exception as error:
                notes.append(f"{name} is left out: {error}")
            else:
                cases.append(Case(name, peer.round, items))
        yield cases, notes


def peer_python(notes: list[str]) -> Path | None:
    """Return the peers' Python; make their environment if it is not there.

    Args:
        notes: where it cannot be made, why not is added there, and None returned.
    """
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "peers.txt"
    if stamp.exists() and stamp.read_text() == WANTED.read_text():
        return python
    uv = shutil.which("uv") or str(HERE.parent / ".cache" / "uv" / "bin" / "uv")
    try:
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
            [uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(WANTED)],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        shutil.copy(WANTED, stamp)
        return python
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        notes.append(f"peers are left out, their environment cannot be made: {' '.join(said)}")
        return None


class _Peer:
    """A process that runs rounds: a line in, a line with seconds out."""

    def __init__(self, python: Path, kind: str, engine: str, items: int) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        env = {
            **os.environ,
            "PREFECT_HOME": self._folder.name,
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(int(START_SECONDS)),
            "PYTHONPATH": "",
        }
        command = [str(python), str(HERE / "peer_process.py"), kind, engine, str(items)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
            cwd=self._folder.name,
            start_new_session=True,
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> _Peer:
        try:
            self._answer(START_SECONDS)
        except Exception:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(ProcessLookupError):  # Prefect's server outlives who has started it
            os.killpg(self._process.pid, signal.SIGKILL)
        self._folder.cleanup()

    def round(self) -> float:
        """Have the process run one round; return its seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._answer(ROUND_SECONDS)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self._answers.put(line)
        self._answers.put("")

    def _answer(self, seconds: float) -> float:
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"it did not answer within {seconds:g} s") from None
        if not line:
            raise RuntimeError("its process ended; run benchmarks/peer_process.py by hand to see why")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return float(answer["seconds"])
