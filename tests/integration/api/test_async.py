"""Async flows and tasks; futures that are awaited; resources that belong to a loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestration import flow, task
from runners.base import TaskRunner


@task
async def adouble(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


@task
def double(x: int) -> int:
    return 2 * x


@task
async def afail() -> None:
    await asyncio.sleep(0)
    raise ValueError("async")


def test_async_tasks_in_a_sync_flow(runner: TaskRunner) -> None:
    """Async tasks may be submitted and mapped like others."""

    @flow(task_runner=runner)
    def sync() -> Any:
        return adouble.submit(1), adouble.map([2, 3])

    assert sync() == (2, [4, 6])


def test_async_flow(runner: TaskRunner) -> None:
    """An async flow is awaited; futures and lists of futures can be awaited in it."""

    @flow(task_runner=runner)
    async def main() -> Any:
        one = adouble.submit(1)
        many = double.map([1, 2, 3])
        gathered = await asyncio.gather(*(adouble.submit(n) for n in range(5)))
        return await one, await many, gathered

    assert asyncio.run(main()) == (2, [2, 4, 6], [0, 2, 4, 6, 8])


def test_awaited_failures(runner: TaskRunner) -> None:
    """Awaiting a failed future or calling a failing async task raises its exception."""

    @flow(task_runner=runner)
    async def main() -> str:
        with pytest.raises(ValueError, match="async"):
            await afail.submit()
        with pytest.raises(ValueError, match="async"):
            await afail()
        return "on"

    assert asyncio.run(main()) == "on"


def test_state_of_an_async_flow(local_runner: TaskRunner, record: Any) -> None:
    """Failures of async flows are recorded, and `return_state` works."""

    @flow(task_runner=local_runner)
    async def main() -> None:
        await afail()

    state = asyncio.run(main(return_state=True))
    assert state.is_failed()
    assert record.run().state.title == "Failed"


def test_called_async_tasks_share_the_flows_loop(runner: TaskRunner, record: Any) -> None:
    """Async tasks that are called run on the flow's own loop, so they may share its locks and connections."""

    @flow(task_runner=runner)
    async def main() -> Any:
        lock, loop = asyncio.Lock(), asyncio.get_running_loop()
        inside: list[int] = []

        @task
        async def guarded(n: int) -> int:
            assert asyncio.get_running_loop() is loop
            async with lock:
                inside.append(n)
                await asyncio.sleep(0)
                assert inside[-1] == n
            return n

        return await asyncio.gather(*(guarded(n) for n in range(5)))

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]
    assert record.counts() == {"Completed": 5}


def test_many_called_async_tasks_at_once(local_runner: TaskRunner) -> None:
    """Async tasks that wait for each other all get going, however many there are."""

    @flow(task_runner=local_runner)
    async def main() -> int:
        barrier = asyncio.Barrier(60)

        @task
        async def meet() -> int:
            await barrier.wait()
            return 1

        return sum(await asyncio.gather(*(meet() for _ in range(60))))

    assert asyncio.run(main()) == 60


def test_many_awaited_futures_at_once(local_runner: TaskRunner) -> None:
    """Awaiting hundreds of futures does not starve the loop."""

    @flow(task_runner=local_runner)
    async def main() -> int:
        ticks = 0
        waiting = asyncio.gather(*(double.submit(n) for n in range(200)))
        while not waiting.done():
            ticks += 1
            await asyncio.sleep(0.001)
        assert ticks
        return sum(waiting.result())

    assert asyncio.run(main()) == 199 * 200


def test_flow_in_an_existing_loop(local_runner: TaskRunner) -> None:
    """A sync flow may be run in a thread of an asyncio program, beside an async one."""

    @flow(task_runner=local_runner)
    def sync(n: int) -> Any:
        return double.submit(n)

    @flow(task_runner=local_runner)
    async def other(n: int) -> Any:
        return await double.submit(n)

    async def main() -> Any:
        return await asyncio.gather(asyncio.to_thread(sync, 1), other(2), other(3))

    assert asyncio.run(main()) == [2, 4, 6]


def test_the_loop_is_not_blocked_by_the_flow(local_runner: TaskRunner) -> None:
    """While an async flow starts, waits and ends, other coroutines go on."""

    @flow(task_runner=local_runner)
    async def main() -> Any:
        return await double.map(range(50))

    async def beside() -> int:
        ticks, running = 0, asyncio.ensure_future(main())
        while not running.done():
            ticks += 1
            await asyncio.sleep(0)
        assert running.result() == [2 * n for n in range(50)]
        return ticks

    assert asyncio.run(beside()) > 3


def test_awaiting_inside_an_async_task(runner: TaskRunner) -> None:
    """An async task may submit tasks and await their futures, and call async tasks."""

    @task
    async def outer(n: int) -> int:
        own = await adouble.submit(n)
        both = await asyncio.gather(adouble.submit(1), double.submit(2))
        return own + sum(both) + await adouble(n)

    @flow(task_runner=runner)
    def main() -> Any:
        # one at a time: on Ray a task run that awaits keeps its CPU
        return outer.submit(1).result(), outer.submit(2).result()

    assert main() == (10, 14)
