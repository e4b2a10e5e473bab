"""How fast pages of a large run are. Figures are printed and not judged: `python -m benchmarks dashboard` does that."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from benchmarks.recorded import record
from benchmarks.site import SEEN, first_paint, frame_lengths, serving
from orchestration.stores import open_store

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ITEMS = 100_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server over a store with a run of 100,000 task runs: its URL and the run's id."""
    pytest.importorskip("orchestration.web", reason="needs the server")
    url = f"sqlite:///{tmp_path_factory.mktemp('large') / 'store.db'}"
    store = open_store(url)
    run_id = record(store, 1, ITEMS, created=time.time() - 3600)
    store.close()
    with serving(url) as site:
        yield site, run_id


@pytest.mark.parametrize("page", SEEN)
def test_a_page_of_100_000_task_runs_is_drawn(page: str, browser: Browser, large: tuple[str, str]) -> None:
    """Its subject is on the screen, not only the frame around it."""
    seconds = [first_paint(browser, *large, page) for _ in range(3)]
    print(f"first paint of {page} at {ITEMS:,} task runs: {statistics.median(seconds) * 1000:.0f} ms")
    assert len(seconds) == 3


def test_100_000_cells_are_drawn_while_they_are_scrolled(browser: Browser, large: tuple[str, str]) -> None:
    """Each step of the wheel draws other cells."""
    site, run_id = large
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{site}/runs/{run_id}/nodes/0")
    cells = page.locator(".cells")
    cells.locator("canvas").wait_for()
    for _ in range(3):
        page.get_by_role("button", name="Zoom in").click()
    before = cells.screenshot()
    cells.hover()
    page.mouse.wheel(0, 3000)
    lengths = sorted(frame_lengths(page, 1.0))
    print(f"{len(lengths)} frames a second, the longest {lengths[-1] * 1000:.0f} ms")
    assert cells.screenshot() != before
    page.close()
