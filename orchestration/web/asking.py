"""A question that is asked once at a time, however many want to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Question(Generic[T]):
    """What many requests want to know of the store, asked in a thread of its own."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._asking: asyncio.Task[T] | None = None

    async def answer(self, seconds: float | None) -> asyncio.Task[T] | None:
        """Return the task that has the answer, or None if it takes longer than this."""
        asking = self._asking  # kept: when the answer is there, somebody else may have asked anew already
        if asking is None or asking.done():
            asking = self._asking = asyncio.create_task(asyncio.to_thread(self._ask))
        done, _ = await asyncio.wait({asking}, timeout=seconds)
        return asking if done else None
