"""`timeout_seconds` of tasks and flows."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from orchestration import flow, runtime, task
from orchestration.errors import FlowTimeoutError
from runners.base import TaskRunner
from runners.errors import TaskTimeoutError


def spin(seconds: float = 30) -> None:
    """Stay busy where an interrupt can land."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.002)


@task
def busy() -> None:
    spin()


@task
def quick(x: int = 1) -> int:
    return x


def test_task_timeout(runner: TaskRunner, record: Any) -> None:
    """A task run that takes too long is stopped; its state is Failed, named TimedOut."""

    @flow(task_runner=runner)
    def waits() -> Any:
        future = busy.with_options(timeout_seconds=0.2).submit()
        with pytest.raises(TaskTimeoutError, match=r"0\.2 s"):
            future.result(timeout=20)
        with pytest.raises(TimeoutError):
            future.result()
        return future.state.type, future.state.name

    assert waits() == ("Failed", "TimedOut")
    assert record.outcomes("busy") == ["TIMED_OUT"]


@task
async def asleep() -> None:
    await asyncio.sleep(30)


@pytest.mark.parametrize(("code", "line"), [(busy, "    spin()"), (asleep, "    await asyncio.sleep(30)")])
def test_a_timeout_shows_the_users_own_line(runner: TaskRunner, code: Any, line: str) -> None:
    """On each runner the last line of code is the user's, and below it stands which limit that was."""

    @flow(task_runner=runner)
    def waits() -> Any:
        error = code.with_options(timeout_seconds=0.3).submit().exception(timeout=20)
        return str(error.__cause__).splitlines()

    lines = waits()
    assert lines[-1] == "runners.errors.TaskTimeoutError: ran longer than its timeout of 0.3 s"
    assert line in lines
    assert all(__file__ in text for text in lines if text.startswith('  File "'))


def test_timeout_of_each_attempt(runner: TaskRunner, record: Any) -> None:
    """A timeout is a failure that is retried, and each attempt has the whole time."""

    @task(retries=1, timeout_seconds=0.5)
    def slow_at_first() -> int:
        if runtime.task_run.attempt == 1:
            spin()
        return 7

    @flow(task_runner=runner)
    def waits() -> Any:
        return slow_at_first.submit()

    assert waits() == 7
    assert record.outcomes("slow_at_first") == ["TIMED_OUT", "COMPLETED"]


def test_timeout_of_one_item(runner: TaskRunner) -> None:
    """One item of a map that takes too long does not touch the others."""

    @task(timeout_seconds=0.5)
    def some(n: int) -> int:
        if n == 1:
            spin()
        return n

    @flow(task_runner=runner)
    def waits() -> Any:
        futures = some.map(range(4))
        futures.wait()
        return [state.name for state in futures.states]

    assert waits() == ["Completed", "TimedOut", "Completed", "Completed"]


def test_timeout_of_an_async_task(runner: TaskRunner) -> None:
    """An async task is cancelled at its timeout, and may clean up."""

    @task(timeout_seconds=0.2)
    async def sleeps() -> None:
        await asyncio.sleep(30)

    @flow(task_runner=runner)
    def waits() -> Any:
        future = sleeps.submit()
        future.wait(20)
        return future.state.name

    assert waits() == "TimedOut"


def test_timeout_of_a_called_task(runner: TaskRunner) -> None:
    """A task that is called has its timeout, too."""

    @flow(task_runner=runner)
    def waits() -> Any:
        with pytest.raises(TaskTimeoutError):
            busy.with_options(timeout_seconds=0.2)()
        return "on"

    assert waits() == "on"


def test_flow_timeout_while_it_waits(runner: TaskRunner, record: Any) -> None:
    """A flow that waits for its task runs is stopped at its timeout, and so are they."""

    @flow(task_runner=runner, timeout_seconds=0.5)
    def slow() -> None:
        busy.submit().result()

    with pytest.raises(FlowTimeoutError, match=r"0\.5 s"):
        slow()
    row = record.run()
    assert (row.state.title, row.state_name) == ("Failed", "TimedOut")
    assert record.states() == ["Cancelled"]


def test_flow_timeout_in_its_own_code(local_runner: TaskRunner, record: Any) -> None:
    """A flow that is busy itself is stopped at its timeout."""

    @flow(task_runner=local_runner, timeout_seconds=0.2)
    def slow() -> None:
        spin()

    with pytest.raises(FlowTimeoutError):
        slow()
    assert record.run().state_name == "TimedOut"


def test_flow_timeout_while_task_runs_are_left(local_runner: TaskRunner) -> None:
    """The time of task runs that the flow does not wait for counts as well."""

    @flow(task_runner=local_runner, timeout_seconds=0.3)
    def slow() -> str:
        busy.submit()
        return "done"

    with pytest.raises(FlowTimeoutError):
        slow()


def test_flow_timeout_in_another_thread(local_runner: TaskRunner, record: Any) -> None:
    """Timeouts of flows work outside of the main thread: in own code and while waiting."""

    @flow(task_runner=local_runner, timeout_seconds=0.2)
    def slow(wait: bool) -> None:
        if wait:
            busy.submit().result()
        spin()

    states: list[Any] = []
    for wait in (True, False):
        began = time.monotonic()
        thread = threading.Thread(target=lambda w=wait: states.append(slow(w, return_state=True)))
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        assert time.monotonic() - began < 10
    assert [state.name for state in states] == ["TimedOut", "TimedOut"]


def test_timeout_of_an_async_flow(local_runner: TaskRunner, record: Any) -> None:
    """An async flow is stopped at its timeout, its own awaits and those of futures, and the loop lives on."""

    @flow(task_runner=local_runner, timeout_seconds=0.2)
    async def slow(wait: bool) -> None:
        if wait:
            await busy.submit()
        await asyncio.sleep(30)

    async def both() -> list[Any]:
        return [await slow(wait, return_state=True) for wait in (True, False)] + [
            await asyncio.sleep(0, "on")
        ]

    states = asyncio.run(both())
    assert [states[0].name, states[1].name, states[2]] == ["TimedOut", "TimedOut", "on"]


def test_timeout_of_a_subflow(local_runner: TaskRunner, record: Any) -> None:
    """The timeout of a subflow is its own: the flow around it can go on, and keeps its own timeout."""

    @flow(task_runner=local_runner, timeout_seconds=0.2)
    def inner() -> None:
        spin()

    @flow(task_runner=local_runner, timeout_seconds=1.0)
    def outer() -> str:
        with pytest.raises(FlowTimeoutError):
            inner()
        quick.submit().result()
        spin()
        return "never"

    began = time.monotonic()
    state = outer(return_state=True)
    assert state.name == "TimedOut"
    assert time.monotonic() - began < 10
    assert {row.flow_name: row.state_name for row in record.runs()} == {
        "inner": "TimedOut",
        "outer": "TimedOut",
    }


def test_a_timeout_that_is_not_reached(local_runner: TaskRunner) -> None:
    """A flow that is quick enough is not touched, nor is what runs after it."""
    import signal

    before = signal.getsignal(signal.SIGALRM)

    @flow(task_runner=local_runner, timeout_seconds=30)
    def fast() -> Any:
        return quick.submit(3)

    assert fast() == 3
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] in (0.0, pytest.approx(60, abs=61))
