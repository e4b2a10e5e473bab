"""What is drawn can be reached without seeing it and without a mouse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from conftest import OpenPage
    from playwright.sync_api import Page


def of_first_run(open_page: OpenPage, tab: str) -> Page:
    """Open a tab of the run of `ingest`."""
    page = open_page("/runs?flow=ingest")
    page.locator("table.runs tbody a").first.click()
    page.get_by_role("navigation", name="Parts of this run").get_by_role("link", name=tab).click()
    return page


def test_arrows_lead_from_cell_to_cell_and_enter_opens(open_page: OpenPage) -> None:
    """The grid's label says which item is marked and in which state it is."""
    page = of_first_run(open_page, "Items")
    page.get_by_label("Task", exact=True).select_option(label="fetch × 40")
    cells = page.locator(".cells")
    cells.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(cells).to_have_attribute("aria-label", "fetch[5]: Failed")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/items/0/5$"))


def test_a_click_opens_the_item_under_the_mouse(open_page: OpenPage) -> None:
    page = of_first_run(open_page, "Items")
    page.get_by_label("Task", exact=True).select_option(label="fetch × 40")
    page.locator(".cells canvas").click(position={"x": 3 * 16 + 8, "y": 8})
    expect(page).to_have_url(re.compile(r"/items/0/3$"))


def test_the_timeline_tells_each_attempt(open_page: OpenPage) -> None:
    """An item that was tried twice is two attempts."""
    page = of_first_run(open_page, "Timeline")
    canvas = page.locator(".lanes-view canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile(r"^80 attempts on \d+ workers?;"))
    canvas.focus()
    page.keyboard.press("ArrowRight")
    expect(canvas).to_have_attribute("aria-label", re.compile(r"^(fetch|clean)\[\d+\]: .+ after "))


def test_the_graph_leads_to_the_items(open_page: OpenPage) -> None:
    page = of_first_run(open_page, "Graph")
    page.get_by_role("link", name=re.compile("^fetch: ")).click()
    expect(page).to_have_url(re.compile(r"/nodes/0$"))
    expect(page.locator(".cells canvas")).to_be_visible()
