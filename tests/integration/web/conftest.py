"""A server in a process of its own, over a store with runs that flows have made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

FLOWS = """
import time
from orchestration import flow, get_run_logger, task

@task(retries=1)
def check(n):
    if n % 10 == 3:
        raise ValueError(f"no {n}")
    return n

@task
def pause(n, seconds):
    get_run_logger().info("item %s", n)
    time.sleep(seconds)
    return n

@flow
def checks(n: int = 30):
    futures = check.map(range(n))
    futures.wait()
    return sum(future.state.is_completed() for future in futures)

@task
def follow(n):
    return n

@flow
def chained(n: int = 30):
    follow.map(check.with_options(retries=0).map(range(n))).wait()

@task(persist_results=True)
def keep(n):
    return {"kept": n}

@flow
def keeping():
    keep.map(range(3)).wait()

@flow
def slow(n: int = 4, seconds: float = 0.05):
    return sum(pause.map(range(n), seconds).result())
"""

START = "import sys; from orchestration.cli import main; sys.exit(main())"


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    url: str
    flows: Path
    home: Path

    def get(self, path: str, **params: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", params=params or None, timeout=30)

    def read(self, path: str, **params: Any) -> Any:
        """Return the JSON of an answer that has to be a good one."""
        answer = self.get(path, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def do(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        asked = {"Millrace-Request": "1"} | headers
        return httpx.request(method, f"{self.url}{path}", json=body, headers=asked, timeout=60)

    def run(self, flow: str, **parameters: Any) -> str:
        """Run a flow to its end in a process of its own; return the id of its run."""
        env = os.environ | {"MILLRACE_HOME": str(self.home)}
        given = ["--params-json", json.dumps(parameters), "--json"]
        done = subprocess.run(
            [sys.executable, "-c", START, "run", f"{self.flows}:{flow}", *given],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        return str(json.loads(done.stdout)["id"])


def start_server(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START, "server", "start", "--port", "0", *arguments],
        env=os.environ | {"MILLRACE_HOME": str(home), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that all tests share."""
    folder = tmp_path_factory.mktemp("served")
    home, flows = folder / "home", folder / "flows.py"
    home.mkdir()
    flows.write_text(FLOWS)
    process = start_server(home)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("dashboard"), line + process.stdout.read()
    yield Served(process, line.split()[1], flows, home)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
