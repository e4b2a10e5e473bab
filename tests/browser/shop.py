"""Flows that the tests in a browser run, in processes of their own."""

from __future__ import annotations

import time
from typing import Any

from orchestration import flow, get_run_logger, task


@task(retries=1)
def fetch(page: int) -> int:
    get_run_logger().info("fetched page %d", page)
    if page == 5:
        raise ValueError("page 5 is empty")
    return page


@task
def clean(page: int) -> int:
    return page * 2


@task(tags=["database"])
def insert(row: int) -> int:
    time.sleep(0.02)
    return row


@task
def wait_for(gate: str) -> str:
    with open(gate, encoding="utf-8") as pipe:  # a named pipe: opens when the test opens its other end
        return pipe.read()


@flow
def ingest(pages: int = 40, source: str = "web", fast: bool = False) -> int:
    """Fetch pages, one of which is empty."""
    get_run_logger().warning("starting with %d pages from %s", pages, source)
    return len(clean.map(fetch.map(range(pages))))


@flow
def nightly(rows: int = 10) -> int:
    """Insert rows one after another, so that there is time to look."""
    return sum(one.result() for one in insert.map(range(rows)))


@flow
def gated(gate: str) -> str:
    """Run until the test opens the gate."""
    return wait_for.submit(gate).result()


@task(persist_results=True)
def price(page: int) -> dict[str, float]:
    return {"euros": page * 1.5}


@task(persist_results=True)
def table(pages: int) -> Any:
    import pandas as pd

    days = pd.date_range("2026-01-01", periods=pages, freq="D")
    columns = {"day": days, "page": range(pages), "title": "Tea & <b>biscuits</b>", "euros": 1.5}
    return pd.DataFrame(columns, index=days.day_name())


@task(persist_results=True)
def grid(pages: int) -> Any:
    import numpy as np

    return np.linspace(0, 1, pages * 20).reshape(pages, 20)


@flow
def priced() -> None:
    """Keep what a task returns."""
    price.submit(3).wait()
    table.submit(1200).wait()
    grid.submit(30).wait()


@flow
def broken() -> None:
    """Fail without a task."""
    raise RuntimeError("no connection to the warehouse")
