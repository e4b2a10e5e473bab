"""`max_concurrent_runs`: flow runs that take turns, in one process and in several."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestration import flow, stores
from orchestration.core.states import RunState
from orchestration.errors import CancelledRunError, UserError
from orchestration.stores import open_store
from orchestration.stores.base import RunRow, Store
from runners import ThreadPoolTaskRunner

SCRIPT = """
import sys, time
from pathlib import Path
from orchestration import flow, stores

url, folder, name = sys.argv[1:4]
inside = Path(folder) / f"inside-{name}"

@flow(flow_run_name=name, store=url, max_concurrent_runs=1)
def turn():
    inside.touch()
    print(len(list(Path(folder).glob("inside-*"))), flush=True)
    while name == "holder":
        time.sleep(1)
    inside.unlink()

turn()
"""


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def store(
    millrace_home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    if request.param == "PostgreSQL":
        monkeypatch.setenv("MILLRACE_STORE", request.getfixturevalue("postgres_url"))
    monkeypatch.setattr(stores, "_open", {})  # of another test, whose database is empty again
    store = open_store(None)
    yield store
    store.close()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def named(store: Store, name: str) -> RunRow | None:
    return next((row for row in store.runs() if row.name == name), None)


def waits(store: Store, name: str) -> bool:
    row = named(store, name)
    return row is not None and row.state_name == "AwaitingLimit"


def test_processes_take_turns(store: Store, tmp_path: Path) -> None:
    """The holder is killed: the next one has its place at once. One that waits ends by Ctrl-C, and is forgotten."""
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in ("holder", "first", "second", "third"):
            command = [sys.executable, "-c", SCRIPT, store.address, str(tmp_path), name]
            pipe = subprocess.PIPE
            processes[name] = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
            until(lambda name=name: waits(store, name) or (tmp_path / f"inside-{name}").exists())
        row = named(store, "third")
        assert row is not None
        assert (row.state, row.message) == (
            RunState.PENDING,
            "waits for limit flow:turn, held by flow run holder and 2 more",
        )
        processes["first"].send_signal(signal.SIGINT)
        processes["first"].communicate(timeout=30)
        assert processes["first"].returncode != 0
        processes["holder"].kill()
        processes["holder"].wait()
        (tmp_path / "inside-holder").unlink()
        for name in ("second", "third"):
            output, errors = processes[name].communicate(timeout=30)
            assert (processes[name].returncode, output) == (0, "1\n"), errors
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    states = {row.name: row.state for row in store.runs()}
    assert states == {
        "holder": RunState.CRASHED,
        "first": RunState.CANCELLED,
        "second": RunState.COMPLETED,
        "third": RunState.COMPLETED,
    }
    first = named(store, "first")
    assert first is not None
    assert first.message == "cancelled while it waited for its turn"
    assert store.leases("flow:turn", store.now()) == []


def test_runs_of_one_process_take_turns(store: Store) -> None:
    """Threads of one process, and the number that the code says counts as of the newest start."""
    now, most = [0], []
    lock = threading.Lock()

    @flow(max_concurrent_runs=2, task_runner=ThreadPoolTaskRunner(max_workers=1))
    def turn() -> None:
        with lock:
            now[0] += 1
            most.append(now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1

    threads = [threading.Thread(target=turn) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(most) == 6
    assert max(most) <= 2
    turn.with_options(max_concurrent_runs=5)()
    assert [limit.slots for limit in store.limits(store.now())] == [5]


def test_a_run_inside_a_run_of_its_flow(store: Store) -> None:
    """It runs in the place of the one that waits for it, also with another flow between them."""

    @flow(max_concurrent_runs=1)
    def walk(depth: int) -> int:
        return 0 if depth == 0 else 1 + between(depth - 1)

    @flow
    def between(depth: int) -> int:
        return walk(depth)

    assert walk(3) == 3


def test_a_run_that_waits_can_be_cancelled(store: Store) -> None:
    """By a request, as `millrace runs cancel` makes it, and by the cancellation of an async flow; no place is left."""
    assert store.acquire(
        ["flow:turn"], holder="t", run_id="t", epoch=1, label="t", slots=1, now=store.now()
    ).granted
    store.set_limit("flow:turn", 1)
    assert store.acquire(
        ["flow:turn"], holder="t", run_id="t", epoch=1, label="t", slots=1, now=store.now()
    ).granted
    began: list[str] = []

    @flow(name="turn", flow_run_name="asked", max_concurrent_runs=1)
    def turn() -> None:
        began.append("sync")

    def ask() -> None:
        until(lambda: waits(store, "asked"))
        store.request(store.run("asked").run_id, cancel=True)

    asker = threading.Thread(target=ask)
    asker.start()
    with pytest.raises(CancelledRunError, match="flow:turn"):
        turn()
    asker.join()

    @flow(name="turn", flow_run_name="async", max_concurrent_runs=1)
    async def turn_async() -> None:
        began.append("async")

    async def main() -> None:
        running = asyncio.ensure_future(turn_async())
        while not waits(store, "async"):
            await asyncio.sleep(0.005)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert {row.state for row in store.runs()} == {RunState.CANCELLED}
    until(lambda: [lease.holder for lease in store.leases("flow:turn", store.now())] == ["t"])
    assert began == []


def test_what_is_no_number_of_runs() -> None:
    """It is refused where it is written."""
    with pytest.raises(UserError, match="max_concurrent_runs"):
        flow(max_concurrent_runs=0)(os.getpid)
