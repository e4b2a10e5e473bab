"""Looks at the store that fail: pages hear of it, and of the run again when the cause is gone."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestration.stores.sqlite import SqliteStore
from orchestration.testing.store_entries import new_run
from orchestration.web.streams import Page, Watches


def damage(path: Path, counts: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE run SET counts = ?", (counts,))


async def told(page: Page, name: str) -> dict[str, Any]:
    """Wait until a page is told something by this name; return all that it was told with it."""
    while True:
        async with asyncio.timeout(30):
            await page.news.wait()
        events = dict(page.events())
        if name in events:
            return events


def test_a_fault_that_nobody_has_thought_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A row that somebody has damaged: one line in the log, a banner on the page; mended, the page goes on."""
    path = tmp_path / "millrace.db"
    store = SqliteStore(path)
    run_id = new_run(store)
    with closing(sqlite3.connect(path)) as connection:
        ((whole,),) = connection.execute("SELECT counts FROM run").fetchall()

    async def watch() -> tuple[str, dict[str, Any]]:
        watches = Watches(store)
        watch = await watches.of(run_id)
        page = Page()
        watch.join(page, None)
        await told(page, "run")
        damage(path, "[1, 2")
        problem = await told(page, "problem")
        await told(page, "problem")  # the second look fails, too, and is not logged
        damage(path, whole)
        again = await told(page, "reset")
        watches.close()
        return problem["problem"], again

    # in another thread: browser tests leave a loop running in this one
    with caplog.at_level(logging.ERROR, "millrace.server"), ThreadPoolExecutor(1) as pool:
        problem, again = pool.submit(lambda: asyncio.run(watch())).result()
    store.close()
    assert "JSONDecodeError" in problem
    assert "tries again" in problem
    assert "reset" in again
    (record,) = [one for one in caplog.records if one.name == "millrace.server"]
    assert record.exc_info is not None
