"""The server asks its store once for all who want to know at that time, whoever comes while the answer does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orchestration.stores.memory import MemoryStore
from orchestration.web import callers
from orchestration.web.asking import Question
from orchestration.web.callers import ANYBODY, Callers
from orchestration.web.reach import Reach


async def one_comes_while_the_answer_does(
    question: Question[Any], ask: Callable[[], Awaitable[object]]
) -> None:
    """Ask, and ask again when the answer is there and has not been taken yet."""
    first = asyncio.ensure_future(ask())
    while question._asking is None or not question._asking.done():
        await asyncio.sleep(0)
    assert not first.done()
    second = asyncio.ensure_future(ask())
    await asyncio.sleep(0)  # it has begun to ask, so that the store is asked anew
    assert await first == await second


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run in a thread of its own: that of the tests may have a loop already."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


def test_whether_a_token_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one used to take the second one's answer, before there was any: an error, once in a while."""
    monkeypatch.setattr(callers, "KNOWN_SECONDS", -1.0)
    asked = Callers(MemoryStore(), needed=False, cookie="c")
    run(one_comes_while_the_answer_does(asked._question, lambda: asked.still(ANYBODY)))


def test_whether_the_store_can_be_reached() -> None:
    asked = Reach(MemoryStore())
    run(one_comes_while_the_answer_does(asked._question, asked.trouble))
