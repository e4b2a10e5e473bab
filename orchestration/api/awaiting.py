"""Blocking calls from asyncio. Not in the loop's own executor: its few threads might all wait for each other."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any


async def in_thread(call: Callable[[], Any], *, to_the_end: bool = False) -> Any:
    """Run a blocking call in a thread of its own and return its value.

    Args:
        to_the_end: on cancellation, wait for the call before being cancelled.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = copy_context()

    def work() -> None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = context.run(call), None
        except BaseException as error:  # of the caller, whatever it is
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, ended, outcome)

    threading.Thread(target=work, name="millrace-await", daemon=True).start()
    try:
        value, error = await asyncio.shield(ended)
    except asyncio.CancelledError:
        if to_the_end:
            await asyncio.shield(ended)
        raise
    if error is not None:
        raise error
    return value


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


async def told(tell: Callable[[Callable[[Any], Any]], Any]) -> None:
    """Wait for a callback: `tell` gets what is to be called, from any thread."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def wake(_: Any) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, ended, None)

    tell(wake)
    await ended
