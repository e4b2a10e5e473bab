"""Limits shared by many flow processes that die and hang: what an outside history says of them.

Each execution appends its start and its end to a file; the checker knows nothing of stores. LIMIT_KILLS=200 makes the
test of random kills longer, LIMIT_SEED=7 chooses others.
"""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.core.states import RunState, State
from orchestration.stores import open_store
from orchestration.stores.base import DEAD_AFTER_SECONDS, LEASE_SECONDS, Store

PROCESSES, SLOTS = 20, 3
KILLS = int(os.environ.get("LIMIT_KILLS", "10"))
ITEMS = max(6, KILLS)  # of each process: enough that there is always somebody to kill
SEED = int(os.environ.get("LIMIT_SEED", "1"))

STORES: dict[str, Callable[[Path, pytest.FixtureRequest], str]] = {
    "sqlite": lambda folder, request: f"sqlite:///{folder / 'millrace.db'}",
    "postgres": lambda folder, request: request.getfixturevalue("postgres_server").new_database(),
}

HEAD = """
import os, random, sys, time
from orchestration import concurrency, flow, task
from orchestration.errors import FencedError, RunNotFoundError
from runners import ThreadPoolTaskRunner

url, path, name, items, seconds = sys.argv[1:6]
history = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def note(sign, item):
    os.write(history, f"{sign} {time.monotonic()!r} {os.getpid()} {name}/{item}\\n".encode())

def rest():
    for _ in range(10):  # between which it can be interrupted
        time.sleep(float(seconds) * (0.5 + random.random()) / 10)

threads = ThreadPoolTaskRunner(max_workers=2)
results = dict(persist_results=True, result_storage=path + ".results")
options = dict(flow_run_name=name, store=url, task_runner=threads, **results)
"""

# Items are named by the limits that they are under.
ONE_LIMIT = """
@task(tags={"db"})
def use(item):
    note("+", item)
    rest()
    note("-", item)

@flow(**options)
def work():
    use.map(range(int(items)))
"""

ALL_MEET = """
@task(tags={"db"})
def use(item):
    note("+", item)
    end = time.monotonic() + 60
    while open(path).read().count("+ ") < int(items):
        assert time.monotonic() < end, "the others do not come"
        time.sleep(0.01)
    note("-", item)

@flow(**options)
def work():
    use.submit(0).result()
"""

SEVERAL_LIMITS = """
def inside(limits, item):
    note("+", f"{limits}-{item}")
    rest()
    note("-", f"{limits}-{item}")

@task(tags={"x", "y"})
def tagged(item):
    inside("xy", f"tagged-{item}")

@task(max_concurrency=2)  # who waits in a block keeps a thread, and those inside of tasks need one
def blocks(item):
    with concurrency(["y", "x"] if item % 2 else ["x", "y"]):
        inside("xy", f"block-{item}")

@task(tags={"y"})
def inner(item):
    inside("y", f"inner-{item}")

@task(tags={"x"})
def outer(item):
    note("+", f"x-outer-{item}")
    inner.submit(item).result()
    note("-", f"x-outer-{item}")

@task(max_concurrency=1)
def lonely(item):
    inside("", f"lonely-{item}")

@flow(**{**options, "task_runner": ThreadPoolTaskRunner(max_workers=4)})
def work():
    for each in (outer, blocks, tagged, lonely):
        each.map(range(int(items)))
"""

TAIL = """
try:
    try:
        work.resume(name)
    except RunNotFoundError:
        work()
except FencedError:
    note("!", "fenced")
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store that processes share."""
    store = open_store(STORES[request.param](tmp_path, request))
    yield store
    store.close()


class Processes:
    """Flow processes by the names of their runs, and the history that they write."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.history = folder / "history"
        self.history.touch()
        self.output = (folder / "output").open("wb")
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: dict[int, float] = {}  # pid -> when

    def start(
        self, name: str, *, work: str = ONE_LIMIT, items: int = ITEMS, seconds: float = 0.02
    ) -> subprocess.Popen[bytes]:
        code = HEAD + work + TAIL
        command = [sys.executable, "-c", code, self.store.url, self.history, name, items, seconds]
        quiet = {**os.environ, "MILLRACE_DISPLAY": "off"}
        process = subprocess.Popen(list(map(str, command)), stdout=self.output, stderr=self.output, env=quiet)
        self.running[name] = process
        return process

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        self.killed[process.pid] = time.monotonic()
        process.kill()
        process.wait()

    def events(self) -> list[tuple[float, str, int, str]]:
        """Return (time, sign, pid, item) of all starts and ends, in the order of their times."""
        found = []
        for line in self.history.read_text().splitlines():
            sign, at, pid, item = line.split()
            found.append((float(at), sign, int(pid), item))
        return sorted(found)

    def inside(self) -> set[int]:
        """Return the processes that hold the limit now."""
        open_: dict[tuple[int, str], None] = {}
        for _, sign, pid, item in self.events():
            if sign == "+":
                open_[pid, item] = None
            else:
                open_.pop((pid, item), None)
        return {pid for pid, _ in open_}

    def most_at_once(self, since: float = 0.0, among: Callable[[str], bool] = lambda item: True) -> int:
        """Return how many executions overlapped at most; what a killed process had begun ended with it.

        Args:
            since: leave out what had ended or begun before.
            among: which items to count.
        """
        edges: list[tuple[float, int]] = []
        begun: dict[tuple[int, str], float] = {}
        for at, sign, pid, item in self.events():
            if not among(item):
                continue
            if sign == "+":
                begun[pid, item] = at
            else:
                edges += [(begun.pop((pid, item)), 1), (at, -1)]
        for (pid, _), at in begun.items():
            edges += [(at, 1), (max(at, self.killed.get(pid, math.inf)), -1)]
        now = most = 0
        for at, change in sorted(edges):
            now += change
            if at >= since:
                most = max(most, now)
        return most

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()
        self.output.close()


@pytest.fixture
def processes(store: Store, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(store, tmp_path)
    yield made
    made.close()


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.timeout(60 + 3 * PROCESSES + 5 * KILLS)
def test_holders_that_are_killed(store: Store, processes: Processes) -> None:
    """20 flow processes under a limit of 3, holders killed at random and resumed: never 4, and all work is done."""
    store.set_limit("db", SLOTS)
    names = [f"worker-{k}" for k in range(PROCESSES)]
    run_and_kill(processes, names, KILLS)
    assert processes.most_at_once() <= SLOTS  # all at once only now and then: waits are longer than the work
    ended = {item for _, sign, _, item in processes.events() if sign == "-"}
    assert ended == {f"{name}/{item}" for name in names for item in range(ITEMS)}
    assert {store.run(name).state for name in names} == {RunState.COMPLETED}
    assert store.leases("db", store.now()) == []


def run_and_kill(processes: Processes, names: list[str], kills: int, **options: Any) -> None:
    """Run flows to their ends in processes of their own; kill holders of limits at random, and resume their runs."""
    chance = random.Random(SEED)
    for name in names:
        processes.start(name, **options)
    while processes.running:
        for name in [name for name, process in processes.running.items() if process.poll() is not None]:
            assert processes.running.pop(name).returncode == 0, Path(processes.output.name).read_text()
        inside = processes.inside()
        holders = [name for name, process in processes.running.items() if process.pid in inside]
        if kills and holders and chance.random() < 0.2:
            kills -= 1
            victim = chance.choice(holders)
            processes.kill(victim)
            processes.start(victim, **options)
        time.sleep(0.01)
    assert not kills, "there was nobody left to kill"


@pytest.mark.slow
@pytest.mark.timeout(180 + 5 * KILLS)
def test_several_limits_nested_tasks_and_kills(store: Store, processes: Processes) -> None:
    """Two limits by tags and by blocks in either order, tasks in tasks, `max_concurrency`; holders are killed: no
    deadlock, and never over a limit."""
    slots = {"x": 2, "y": 1}
    for name, number in slots.items():
        store.set_limit(name, number)
    names = [f"worker-{k}" for k in range(6)]
    items = max(4, KILLS // 4)
    run_and_kill(processes, names, KILLS, work=SEVERAL_LIMITS, items=items)

    def kind(item: str) -> list[str]:
        return item.partition("/")[2].split("-")

    for limit, number in slots.items():
        assert processes.most_at_once(among=lambda item, limit=limit: limit in kind(item)[0]) <= number
    for name in names:
        lonely = f"{name}/-lonely"
        assert processes.most_at_once(among=lambda item, lonely=lonely: item.startswith(lonely)) == 1
    ended = {item for _, sign, _, item in processes.events() if sign == "-"}
    kinds = ("x-outer", "y-inner", "xy-block", "xy-tagged", "-lonely")
    assert ended == {f"{name}/{kind}-{n}" for name in names for kind in kinds for n in range(items)}
    assert {store.run(name).state for name in names} == {RunState.COMPLETED}
    assert [store.leases(limit, store.now()) for limit in slots] == [[], []]


def test_all_slots_are_used(store: Store, processes: Processes) -> None:
    """Those who get in stay until as many are inside as the limit lets in: that many have to come, and no more."""
    store.set_limit("db", SLOTS)
    names = [f"worker-{k}" for k in range(SLOTS + 2)]
    for name in names:
        processes.start(name, work=ALL_MEET, items=SLOTS)
    for name in names:
        assert processes.running[name].wait(90) == 0, Path(processes.output.name).read_text()
    assert processes.most_at_once() == SLOTS


def test_waiters_that_are_killed(store: Store, processes: Processes) -> None:
    """Those who stood first in the queue are dead; who comes after them does not wait for them."""
    store.set_limit("db", 1)
    grant = store.acquire(
        ["db"], holder="test", run_id="test", epoch=1, label="test", slots=1, now=store.now()
    )
    assert grant.granted
    for name in ("first", "second"):
        before = len(waiting(store))
        processes.start(name, items=1)
        until(lambda before=before: len(waiting(store)) > before)
    processes.kill("first")
    store.release(["test"])
    assert processes.running["second"].wait(30) == 0
    assert store.run("second").state is RunState.COMPLETED


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
def test_a_holder_that_was_suspended(store: Store, processes: Processes, noticed: bool) -> None:
    """Its slot goes to another when its lease has run out, with a note. When it wakes its code is interrupted, nothing
    more begins, and what it does changes nothing: whether or not somebody has looked for dead runs meanwhile."""
    store.set_limit("db", 1)
    process = processes.start("sleeper", items=3, seconds=20)
    until(processes.inside)
    # What it writes at the start is written: one that is suspended in the middle of a write holds up a SQLite store.
    until(lambda: State.RUNNING in states_of(store, "sleeper") and waiting(store))
    os.kill(process.pid, signal.SIGSTOP)
    try:
        now = store.now()

        def take(after: float) -> bool:
            asked = {"holder": "test", "run_id": "test", "epoch": 1, "label": "test"}
            return store.acquire(["db"], **asked, slots=1, now=now + after).granted

        if noticed:
            assert store.reap(now + DEAD_AFTER_SECONDS + 1) == [store.run("sleeper").run_id]
        assert not take(DEAD_AFTER_SECONDS + 2)
        assert take(LEASE_SECONDS + 6)  # a heartbeat may have come just before
        assert store.run("sleeper").state is RunState.CRASHED
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert process.wait(30) == 0
    assert [(sign, item) for _, sign, _, item in processes.events()] == [
        ("+", "sleeper/0"),
        ("!", "sleeper/fenced"),
    ]
    assert [lease.holder for lease in store.leases("db", now)] == ["test"]
    (note,) = [line.message for line in store.logs(store.run("sleeper").run_id, min_level=30)]
    assert "possibly overbooked" in note


def test_a_limit_that_changes_while_it_is_waited_for(store: Store, processes: Processes) -> None:
    """From 3 to 1 to 5, then none: as many are let in as the limit says, and all work is done."""
    store.set_limit("db", 3)
    names = [f"worker-{k}" for k in range(6)]
    for name in names:
        processes.start(name, items=15, seconds=0.05)
    until(lambda: len(processes.inside()) == 3 and len(waiting(store)) >= 3)
    store.set_limit("db", 1)
    until(lambda: len(store.leases("db", store.now())) - len(waiting(store)) <= 1)
    lowered, before = time.monotonic(), len(processes.events())
    until(lambda: len(processes.events()) > before + 8)
    assert processes.most_at_once(lowered) == 1
    store.set_limit("db", 5)
    until(lambda: processes.most_at_once(lowered) == 5)
    raised, before = time.monotonic(), len(processes.events())
    until(lambda: len(processes.events()) > before + 20)
    assert processes.most_at_once(raised) <= 5
    assert store.remove_limit("db")
    for name in names:
        assert processes.running[name].wait(60) == 0
        assert store.run(name).state is RunState.COMPLETED
    assert processes.most_at_once(raised) > 5
    store.set_limit("db", 1)
    assert store.leases("db", store.now()) == []


def states_of(store: Store, name: str) -> list[State]:
    return [row.state for row in store.task_runs(store.run(name).run_id)]


def waiting(store: Store) -> list:
    return [lease for lease in store.leases("db", store.now()) if not lease.held]
