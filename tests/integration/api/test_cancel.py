"""Cancelling: futures, lists, whole runs; by the flow, by others, by Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestration import flow, task
from orchestration.errors import CancelledRunError
from runners.base import TaskRunner


def wait_for(path: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.005)


@task
def hold(started: Path) -> None:
    started.touch()
    wait_for(started.with_suffix(".never"), 60)


@task
def quick(x: Any = 1) -> Any:
    return x


def test_cancel_a_running_task(runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """A task run that runs is interrupted; what depends on it never runs."""
    started = tmp_path / "started"

    @flow(task_runner=runner)
    def cancels() -> Any:
        future = hold.submit(started)
        after = quick.submit(future)
        wait_for(started)
        assert future.cancel()
        with pytest.raises(CancelledRunError):
            future.result(timeout=20)
        after.wait(20)
        return future.state.type, after.state.type

    assert cancels() == ("Cancelled", "UpstreamFailed")
    assert record.outcomes("hold") == ["CANCELLED"]


def test_cancel_what_waits(runner: TaskRunner, tmp_path: Path) -> None:
    """Items that have not started are cancelled without ever running."""
    ran = tmp_path / "ran"

    @task
    def touch(x: Any) -> None:
        ran.touch()

    @flow(task_runner=runner)
    def cancels() -> Any:
        first = hold.submit(tmp_path / "started")
        waiting = touch.map([1, 2, 3], wait_for=[first])
        waiting.cancel()
        assert waiting.wait(20)
        first.cancel()
        return waiting.states.counts

    assert cancels() == {"Cancelled": 3}
    assert not ran.exists()


def test_cancel_some_items(parallel_runner: TaskRunner, tmp_path: Path) -> None:
    """Cancelling a slice leaves the other items alone."""

    @flow(task_runner=parallel_runner)
    def cancels() -> Any:
        gate = hold.submit(tmp_path / "started")
        items = quick.with_options(trigger=lambda states: True).map(range(6), wait_for=[gate])
        items[::2].cancel()
        assert items[::2].wait(20)
        gate.cancel()
        items.wait(20)
        return [state.type for state in items.states]

    assert cancels() == ["Cancelled", "Completed"] * 3


def test_cancelling_twice_and_late(runner: TaskRunner) -> None:
    """Cancelling what has ended changes nothing."""

    @flow(task_runner=runner)
    def cancels() -> Any:
        futures = quick.map([1, 2])
        futures.wait()
        futures.cancel()
        futures.cancel()
        return futures

    assert cancels() == [1, 2]


def test_returned_cancelled_futures_make_the_run_cancelled(
    parallel_runner: TaskRunner, tmp_path: Path
) -> None:
    """A flow that returns a cancelled future is Cancelled."""

    @flow(task_runner=parallel_runner)
    def cancels() -> Any:
        future = hold.submit(tmp_path / "started")
        future.cancel()
        return [future, quick.submit()]

    state = cancels(return_state=True)
    assert state.type == "Cancelled"
    assert "1/2" in state.message


def test_cancel_a_run_from_outside(runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """Another process can ask for a run to be cancelled: its task runs stop, its record says so."""
    started = tmp_path / "started"

    @flow(task_runner=runner)
    def long() -> None:
        hold.submit(started).result()

    def ask() -> None:
        wait_for(started)
        record.store.request(record.run().run_id, cancel=True)

    asking = threading.Thread(target=ask)
    asking.start()
    state = long(return_state=True)
    asking.join()
    assert state.type == "Cancelled"
    assert record.run().state.title == "Cancelled"
    assert record.states() == ["Cancelled"]


def test_ctrl_c(runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """Ctrl-C cancels what runs; the record says Cancelled; the caller gets the KeyboardInterrupt."""
    started = tmp_path / "started"

    @flow(task_runner=runner)
    def long() -> None:
        hold.submit(started).result()

    def press() -> None:
        wait_for(started)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        long()
    pressing.join()
    assert record.run().state.title == "Cancelled"
    assert record.states() == ["Cancelled"]


def test_second_ctrl_c(record: Any, tmp_path: Path) -> None:
    """A second Ctrl-C does not wait for code that cannot be stopped."""
    from runners import ThreadPoolTaskRunner

    started, free = tmp_path / "started", threading.Event()

    @task
    def deaf() -> None:
        started.touch()
        while not free.wait(60):  # an interrupt cannot reach a thread that waits in C
            pass

    @flow(task_runner=ThreadPoolTaskRunner(2))
    def long() -> None:
        deaf.submit().result()

    def press() -> None:
        main = threading.main_thread().ident
        wait_for(started)
        signal.pthread_kill(main, signal.SIGINT)
        end = time.monotonic() + 20
        while record.run().state.title != "Cancelling" and time.monotonic() < end:
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        long()
    took = time.monotonic() - began
    pressing.join()
    free.set()
    assert took < 8
    assert record.run().state.title in ("Cancelled", "Crashed")
    assert record.states()[0] in ("Cancelled", "Crashed")


def test_an_async_flow_that_its_loop_cancels(local_runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """Cancelling the asyncio task of a flow cancels its task runs, and the record says so."""
    started = tmp_path / "started"

    @flow(task_runner=local_runner)
    async def long() -> None:
        await hold.submit(started)

    async def main() -> None:
        running = asyncio.ensure_future(long())
        await asyncio.to_thread(wait_for, started)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert record.run().state.title == "Cancelled"
    assert record.states() == ["Cancelled"]


def test_cancel_reaches_what_a_task_has_started(parallel_runner: TaskRunner, tmp_path: Path) -> None:
    """A task that waits for others stops waiting when it is cancelled."""
    started = tmp_path / "started"

    @task
    def outer() -> None:
        hold.submit(started).result()

    @flow(task_runner=parallel_runner)
    def nested() -> Any:
        future = outer.submit()
        wait_for(started)
        future.cancel()
        assert future.wait(20)
        started.with_suffix(".never").touch()
        return future.state.type

    assert nested() == "Cancelled"
