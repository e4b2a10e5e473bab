"""Is a flow done in less than half the time after swapping the runner? A census of code, and calls to a service."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from examples.census.discover import default_roots
from examples.census.flow import MAX_BYTES, census
from orchestration import flow, task, unmapped
from runners import ThreadPoolTaskRunner

from .harness import Case, Report, measure
from .scheduling.engines import Engine, chosen, running

FILES = 600
CUSTOMERS, LATENCY, THREADS = 200, 0.03, 16

SERVICE = f"""
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep({LATENCY})
        body = self.path.rpartition("/")[2].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 256

server = Server(("127.0.0.1", 0), Service)
print(server.server_port, flush=True)
server.serve_forever()
"""


@task
def fetch(customer: int, url: str) -> int:
    with urllib.request.urlopen(f"{url}/customers/{customer}", timeout=30) as answer:
        return int(answer.read())


@task
def refreshed(customer: int) -> int:
    return 2 * customer


@flow
def refresh(url: str, customers: int) -> int:
    """Bring the records of all customers up to date."""
    return sum(refreshed.map(fetch.map(range(customers), unmapped(url))).result())


def run(*, repeats: int = 3, runner: str | None = None) -> Report:
    """Measure both flows on each runner; threads and the engines' start-up are not counted."""
    names = chosen(runner)
    with running(names) as engines, _service() as url:
        cases: list[Case] = []
        for engine in engines:
            shown = f"{THREADS} threads" if engine.name == "threads" else engine.name
            cases += [
                Case(f"census of {FILES} files, {engine.name}", _census(engine), FILES),
                Case(f"{CUSTOMERS} customers, {shown}", _refresh(engine, url), CUSTOMERS),
            ]
        question = "The same flow on each runner: code that computes, and code that waits for a service"
        report = measure(question, cases, repeats=repeats, warmup=1)
    report.want_speed(f"{CUSTOMERS} customers, {THREADS} threads", f"{CUSTOMERS} customers, sequential", 2)
    return report


def _census(engine: Engine) -> Callable[[], None]:
    shaped: Any = census.with_options(task_runner=engine.runner)

    def counts() -> None:
        state = shaped(default_roots(), FILES, MAX_BYTES, return_state=True)
        found = state.result()
        assert found["files"] if isinstance(found, dict) and "files" in found else found

    return counts


def _refresh(engine: Engine, url: str) -> Callable[[], None]:
    runner = ThreadPoolTaskRunner(THREADS) if engine.name == "threads" else engine.runner
    shaped = refresh.with_options(task_runner=runner)

    def refreshes() -> None:
        assert shaped(url, CUSTOMERS) == 2 * sum(range(CUSTOMERS))

    return refreshes


@contextmanager
def _service() -> Iterator[str]:
    """Start an HTTP service with latency in a process of its own; yield its address."""
    words = [sys.executable, "-c", SERVICE]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()
