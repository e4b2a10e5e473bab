"""Running async user code from the thread that runs the items of a batch.

All items of a batch share one event loop, because making one costs more than a short item. Nothing of an item
stays behind in it: what its code has started and not awaited is cancelled when the item ends.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from .context import current_item
from .execution import Execution


def run_async(execution: Execution, make: Callable[[], Any]) -> Any:
    """Await what `make` returns: a coroutine, or an async generator, which is collected into a list.

    An interrupt of the item cancels the code at its next await and is then raised here.
    """
    if execution.guest_loop is not None:
        return _run_as_guest(execution, make, execution.guest_loop)
    work: list[asyncio.Task[Any]] = []
    loop = execution.event_loop()

    def cancel() -> None:
        for task in work:
            task.cancel()

    with execution.listening(lambda: loop.call_soon_threadsafe(cancel)):
        work.append(loop.create_task(drain(make)))
        try:
            return loop.run_until_complete(work[0])
        finally:
            _leave_nothing(loop, work[0])


def _run_as_guest(execution: Execution, make: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> Any:
    """Run user code in the loop of the thread that called the task, so that it may share what lives there."""
    item = current_item.get()

    async def main() -> Any:
        current_item.set(item)
        return await drain(make)

    work = asyncio.run_coroutine_threadsafe(main(), loop)
    with execution.listening(work.cancel):
        return work.result()


async def drain(make: Callable[[], Any]) -> Any:
    """Await a coroutine; collect an async generator into a list."""
    made = make()
    if not inspect.isasyncgen(made):
        return await made
    async with aclosing(made):
        return [value async for value in made]


def _leave_nothing(loop: asyncio.AbstractEventLoop, work: asyncio.Task[Any]) -> None:
    if work.done() and not work.cancelled():
        work.exception()  # else asyncio complains that nobody asked, where SystemExit stopped the loop
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
