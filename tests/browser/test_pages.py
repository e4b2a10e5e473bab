"""Every page, at both widths and in both themes: whole, readable, without a word from the browser's console.

For pictures each width in each theme; else each width and each theme once, as 34 pages take their time.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestration.stores.tokens import Role

from .conftest import Site, log_in

if TYPE_CHECKING:
    from conftest import OpenPage
    from playwright.sync_api import Page

PICTURES = os.environ.get("MILLRACE_SCREENSHOTS")
ALL_LOOKS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
LOOKS = ALL_LOOKS if PICTURES else [(1280, "light"), (390, "dark")]
CUT_TABLES = """[...document.querySelectorAll(".scroll > table")]
  .filter((table) => table.offsetWidth > table.parentElement.clientWidth)
  .map((table) => table.textContent)"""
PAGES = {
    "runs": ("/runs", "table.runs a"),
    "flows": ("/flows", "text=ingest"),
    "flow": ("/flows/ingest", "text=Start a run"),
    "workers": ("/workers", "h1"),
    "limits": ("/limits", "h2:has-text('database')"),
    "run": ("/runs/{ingest}", "table a:has-text('fetch')"),
    "graph": ("/runs/{ingest}/graph", "svg.graph a"),
    "items": ("/runs/{ingest}/nodes/0", ".cells canvas"),
    "timeline": ("/runs/{ingest}/timeline", ".lanes-view canvas"),
    "tasks": ("/runs/{ingest}/tasks", "table a"),
    "tasks-searched": ("/runs/{ingest}/tasks?search=nobody", "text=No task run matches"),
    "logs": ("/runs/{ingest}/logs", ".log li"),
    "errors": ("/runs/{ingest}/errors", "text=page 5 is empty"),
    "item": ("/runs/{ingest}/items/0/5", "text=What happened"),
    "failed": ("/runs/{broken}", "text=no connection to the warehouse"),
    "nowhere": ("/nowhere", "text=There is no such page"),
}
EMPTY = {
    "empty-runs": ("/runs", "text=No run yet"),
    "empty-flows": ("/flows", "text=No flow has run yet"),
    "empty-workers": ("/workers", "text=No worker is busy"),
    "empty-limits": ("/limits", "text=No limit yet"),
}
BUSY = {
    "busy-runs": ("/runs", ".live:not(.off)"),
    "busy-run": ("/runs/{nightly}", ".note time"),
    "busy-logs": ("/runs/{nightly}/logs", "text=Nothing logged"),
    "busy-items": ("/runs/{nightly}/nodes/0", ".cells canvas"),
    "busy-timeline": ("/runs/{nightly}/timeline", ".lanes-view canvas"),
    "busy-workers": ("/workers", "table a"),
    "busy-limits": ("/limits", "text=Held by"),
}


def ids_of(site: Site) -> dict[str, str]:
    """Return the first run of each flow, which comes last in the list."""
    with urllib.request.urlopen(f"{site.url}/api/runs?limit=100", timeout=20) as answer:
        return {run["flow"]: run["id"] for run in json.load(answer)["items"]}


@pytest.fixture(scope="module")
def ids(site: Site) -> dict[str, str]:
    return ids_of(site)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server over a store in which nothing was ever done."""
    made = Site(tmp_path_factory.mktemp("empty"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server over a store with a run that goes on, and a limit that it waits for."""
    made = Site(tmp_path_factory.mktemp("busy"))
    assert made.millrace("limit", "set", "database", "2") == 0
    made.start()
    made.begin("shop:nightly", "-p", "rows=20000")
    yield made
    made.close()


def expect_whole(name: str, awaited: str, look: Callable[[int, str], Page]) -> None:
    """Look at a page in all ways: what it is about is there, nothing sticks out. MILLRACE_SCREENSHOTS keeps it."""
    for width, theme in LOOKS:
        page = look(width, theme)
        page.wait_for_selector(awaited)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert page.evaluate(CUT_TABLES) == []
        if PICTURES:
            page.screenshot(path=Path(PICTURES) / f"{name}-{width}-{theme}.png", full_page=True)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(name: str, open_page: OpenPage, ids: dict[str, str]) -> None:
    path, awaited = PAGES[name]
    expect_whole(name, awaited, lambda width, theme: open_page(path.format_map(ids), width, theme))


@pytest.mark.parametrize("name", EMPTY)
def test_page_of_an_empty_store_is_whole(name: str, open_page: OpenPage, empty: Site) -> None:
    """It says what to do next."""
    path, awaited = EMPTY[name]
    expect_whole(name, awaited, lambda width, theme: open_page(path, width, theme, at=empty))


@pytest.mark.parametrize("name", BUSY)
def test_page_of_what_goes_on_is_whole(name: str, open_page: OpenPage, busy: Site) -> None:
    path, awaited = BUSY[name]
    open_page("/runs", at=busy).wait_for_selector("table.runs a")
    ids = ids_of(busy)
    expect_whole(name, awaited, lambda width, theme: open_page(path.format_map(ids), width, theme, at=busy))


def _set_parameters(page: Page) -> None:
    page.get_by_role("button", name="Set parameters").click()


def _new_limit(page: Page) -> None:
    page.get_by_role("button", name="New limit").click()


def _help(page: Page) -> None:
    page.wait_for_selector("table.runs a")
    page.keyboard.press("?")


def _server_away(page: Page) -> None:
    page.wait_for_selector("table.runs a")
    page.route("**/api/**", lambda route: route.abort())
    page.get_by_role("link", name="Flows").click()


def _store_away(page: Page) -> None:
    page.wait_for_selector("table.runs a")
    error = {"type": "StoreUnavailableError", "message": "The database does not answer. It is asked again."}
    page.route("**/api/**", lambda route: route.fulfill(status=503, json={"error": error}))
    page.get_by_role("link", name="Limits").click()


STEPS: dict[str, tuple[str, Callable[[Page], None], str]] = {
    "launch": ("/flows/ingest", _set_parameters, "form.stack button:has-text('Start')"),
    "limit-form": ("/limits", _new_limit, "dialog input"),
    "keys": ("/runs", _help, "dialog kbd"),
    "server-away": ("/runs", _server_away, ".banner"),
    "store-away": ("/runs", _store_away, ".banner.bad"),
}


@pytest.mark.parametrize("name", STEPS)
def test_page_is_whole_after_a_step(name: str, open_page: OpenPage) -> None:
    path, step, awaited = STEPS[name]

    def look(width: int, theme: str) -> Page:
        page = open_page(path, width, theme)
        step(page)
        return page

    expect_whole(name, awaited, look)


@pytest.mark.parametrize("name", ["login", "audit"])
def test_page_behind_a_token_is_whole(
    name: str, open_page: OpenPage, closed: tuple[Site, dict[Role, str]]
) -> None:
    site, tokens = closed

    def look(width: int, theme: str) -> Page:
        page = open_page("/audit", width, theme, at=site)
        if name == "audit":
            log_in(page, tokens[Role.ADMIN])
        return page

    expect_whole(name, "text=Log in" if name == "login" else "tbody tr", look)
