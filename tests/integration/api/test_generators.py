"""Generator functions as tasks and flows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from orchestration import flow, task
from runners.base import TaskRunner


@task
def count(n: int) -> Iterator[int]:
    yield from range(n)


@task
async def acount(n: int) -> AsyncIterator[int]:
    for k in range(n):
        await asyncio.sleep(0)
        yield k


@task
def double(x: int) -> int:
    return 2 * x


@task
def broken(n: int) -> Iterator[int]:
    yield n
    raise ValueError("half way")


def test_generator_tasks_give_lists(runner: TaskRunner) -> None:
    """What a generator task yields is collected into a list, which can be mapped over."""

    @flow(task_runner=runner)
    def main() -> Any:
        return count.submit(3), double.map(count.submit(3)), count.map([1, 2])

    assert main() == ([0, 1, 2], [0, 2, 4], [[0], [0, 1]])


def test_async_generator_tasks(runner: TaskRunner) -> None:
    """Async generators are collected, too."""

    @flow(task_runner=runner)
    def main() -> Any:
        return acount.submit(3), double.map(acount.submit(2))

    assert main() == ([0, 1, 2], [0, 2])


def test_called_generator_tasks(runner: TaskRunner) -> None:
    """A generator task that is called gives its list."""

    @flow(task_runner=runner)
    def main() -> Any:
        return count(3)

    assert main() == [0, 1, 2]


def test_called_async_generator_task(local_runner: TaskRunner) -> None:
    """A called async generator task is awaited for its list."""

    @flow(task_runner=local_runner)
    async def main() -> Any:
        return await acount(3)

    assert asyncio.run(main()) == [0, 1, 2]


def test_a_generator_that_fails_half_way(runner: TaskRunner) -> None:
    """An exception in a generator fails the task run."""

    @flow(task_runner=runner)
    def main() -> Any:
        future = broken.submit(1)
        future.wait()
        return future.state.type, str(future.exception())

    assert main() == ("Failed", "half way")


def test_generator_flows(local_runner: TaskRunner) -> None:
    """What a generator flow yields is its result, as a list; futures in it are resolved."""

    @flow(task_runner=local_runner)
    def main() -> Iterator[Any]:
        for n in range(3):
            yield double.submit(n)

    assert main() == [0, 2, 4]


def test_async_generator_flows(local_runner: TaskRunner) -> None:
    """An async generator flow is awaited for its list."""

    @flow(task_runner=local_runner)
    async def main() -> AsyncIterator[Any]:
        for n in range(3):
            yield await double.submit(n)

    assert asyncio.run(main()) == [0, 2, 4]
