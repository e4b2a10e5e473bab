"""How long does a freed slot of a limit stay empty, and what does a limit cost that nobody contends for?"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestration import concurrency, flow, task
from orchestration.stores import open_store
from runners import SequentialTaskRunner

from .harness import Case, Report, Target, measure

WAITERS = 4  # processes that want one slot
TURNS = 25  # of each of them per round
CALLS = 300

WAITER = """
import os, sys, time
from orchestration import flow, task
from runners import ThreadPoolTaskRunner

url, path, turns, ready = sys.argv[1:5]
history = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

@task(tags={"bench"}, batch=1)
def use(n):
    os.write(history, f"+ {time.monotonic()!r}\\n".encode())
    time.sleep(0.02)
    os.write(history, f"- {time.monotonic()!r}\\n".encode())

@task
def begin():
    pass

@flow(store=url, task_runner=ThreadPoolTaskRunner(max_workers=1))
def work():
    begin.submit().result()
    os.write(int(ready), b".")
    sys.stdin.read()  # until all are there
    use.map(range(int(turns)))

work()
"""

tagged = task(lambda x: x, name="tagged", tags={"bench"}, batch=1)
plain = task(lambda x: x, name="plain", batch=1)


@flow
def calls(shaped: Any, n: int) -> float:
    began = time.perf_counter()
    for _ in range(n):
        shaped.submit(1).result()
    return time.perf_counter() - began


@flow
def blocks(name: str, n: int) -> float:
    began = time.perf_counter()
    for _ in range(n):
        with concurrency(name):
            pass
    return time.perf_counter() - began


def run(*, repeats: int = 5) -> Report:
    """Measure hand-over between processes, then leases of one process alone."""
    gaps: dict[str, list[float]] = {}
    with _store() as url, _postgres() as other:
        cases = [
            Case("from release to next start", lambda: _hand_over(url, gaps.setdefault("SQLite", []))),
            Case("submit().result() without a limit", _ours(calls, url, plain), CALLS),
            Case("submit().result() under a limit", _ours(calls, url, tagged), CALLS),
            Case("concurrency() without a limit", _ours(blocks, url, "none"), CALLS),
            Case("concurrency() under a limit", _ours(blocks, url, "bench"), CALLS),
        ]
        if other is not None:
            name = "PostgreSQL"
            hand_over = Case(f"the same on {name}", lambda: _hand_over(other, gaps.setdefault(name, [])))
            cases.insert(1, hand_over)
        report = measure("How long a freed slot stays empty, and what a lease costs", cases, repeats=repeats)
    for store, found in gaps.items():
        middle, most = statistics.median(found), sorted(found)[int(len(found) * 0.99)]
        report.notes.append(
            f"{WAITERS} processes take turns at one slot on {store}; {len(found)} hand-overs: median "
            f"{middle * 1e3:.1f} ms, 99 of 100 within {most * 1e3:.1f} ms"
        )
        wanted = 0.05 if store == "SQLite" else 0.01
        report.targets.append(
            Target(f"from release to next start on {store}", middle, wanted, "s", at_most=True)
        )
    return report


@contextmanager
def _store() -> Iterator[str]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        url = f"sqlite:///{Path(folder) / 'bench.db'}"
        store = open_store(url)
        store.set_limit("bench", 1)
        yield url
        store.close()


@contextmanager
def _postgres() -> Iterator[str | None]:
    """A server of our own, where its programs are there."""
    from orchestration.testing.postgres import PrivateServer, server_programs

    if not server_programs():
        yield None
        return
    with PrivateServer(fsync=True) as server:
        url = server.new_database()
        store = open_store(url)
        store.set_limit("bench", 1)
        yield url
        store.close()


def _ours(work: Any, url: str, what: Any) -> Callable[[], float]:
    return lambda: float(work.with_options(store=url, task_runner=SequentialTaskRunner())(what, CALLS))


def _hand_over(url: str, gaps: list[float]) -> float:
    """Let processes take turns; return the median time from one's end to the next one's start."""
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder) / "history"
        read, write = os.pipe()
        command = [sys.executable, "-c", WAITER, url, str(history), str(TURNS), str(write)]
        env = {**os.environ, "MILLRACE_DISPLAY": "off"}
        waiters = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=[write], env=env
            )
            for _ in range(WAITERS)
        ]
        os.close(write)
        there = b""
        while len(there) < WAITERS:
            there += os.read(read, WAITERS)
        for waiter in waiters:
            assert waiter.stdin is not None
            waiter.stdin.close()
        for waiter in waiters:
            waiter.wait()
            assert waiter.returncode == 0, "a waiter has failed"
        os.close(read)
        edges = [line.split() for line in history.read_text().splitlines()]
    assert [sign for sign, _ in edges] == ["+", "-"] * (WAITERS * TURNS), "the limit of 1 was exceeded"
    times = [float(at) for _, at in edges]
    found = [times[k + 1] - times[k] for k in range(1, len(times) - 1, 2)]
    gaps += found
    return statistics.median(found)
