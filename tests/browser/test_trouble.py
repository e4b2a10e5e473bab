"""What a page shows while things break, and that it recovers without being loaded again."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from orchestration.testing.postgres import PrivateServer, server_programs

from .conftest import Site

if TYPE_CHECKING:
    from conftest import OpenPage
    from playwright.sync_api import Browser, Page, Route

expect.set_options(timeout=60_000)


def begun(open_page: OpenPage, site: Site, rows: int) -> Page:
    """Start a run of `nightly` and open its page."""
    page = open_page("/runs?flow=nightly&state=Running")
    site.begin("shop:nightly", "-p", f"rows={rows}")
    page.locator("table.runs tbody a").first.click()
    expect(page.locator("header.stack")).to_contain_text("Running")
    return page


def test_a_run_is_paused_and_goes_on(open_page: OpenPage, site: Site) -> None:
    """By buttons. While it is paused nothing runs and nothing is on its way to run."""
    page = begun(open_page, site, 600)
    page.get_by_role("button", name="Pause").click()
    state = page.locator("header.stack .badge").first
    expect(state).to_have_text(re.compile("Paused"))
    page.get_by_role("link", name="Items", exact=True).click()
    chips = page.get_by_role("group", name="States")
    expect(chips.get_by_role("button", name=re.compile("Paused"))).to_be_visible()
    for busy in ("Running", "Submitted", "Ready"):
        expect(chips.get_by_role("button", name=re.compile(busy))).to_have_count(0)
    page.get_by_role("button", name="Resume").click()
    expect(state).to_have_text(re.compile("Completed"))
    expect(chips.get_by_role("button", name=re.compile("Completed"))).to_have_text(re.compile("600"))


def test_a_run_that_is_killed_is_shown_as_crashed_and_resumed(open_page: OpenPage, site: Site) -> None:
    """Within the 30 s after which a silent run counts as dead; on this host its end is known at once."""
    page = begun(open_page, site, 600)
    site.runs[-1].send_signal(signal.SIGKILL)
    expect(page.locator("header.stack .badge").first).to_have_text(re.compile("Crashed"), timeout=30_000)
    expect(page.locator("header.stack")).to_contain_text("ended without a word")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("header.stack .badge").first).to_have_text(re.compile("Completed"))
    expect(page.locator("header.stack")).to_contain_text("600 of 600")


def test_a_server_that_is_killed_harms_no_run(open_page: OpenPage, site: Site) -> None:
    """The run ends as if nothing had been; the page tells so as soon as there is a server again."""
    page = begun(open_page, site, 600)
    site.stop()
    expect(page.get_by_role("alert")).to_be_visible()
    assert site.runs[-1].wait(60) == 0
    site.start()
    expect(page.locator("header.stack .badge").first).to_have_text(re.compile("Completed"))
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.fixture
def on_postgres(
    require: Callable[[str, object], None], tmp_path: Path
) -> Iterator[tuple[Site, PrivateServer]]:
    """A server over a PostgreSQL database of its own with one run in it."""
    require("PostgreSQL's server programs", server_programs())
    with PrivateServer() as database:
        made = Site(tmp_path, database.new_database())
        made.millrace("run", "shop:broken", "--quiet")
        made.start()
        yield made, database
        made.stop()


@pytest.mark.postgres
def test_a_database_that_is_gone_is_told_of_and_found_again(
    browser: Browser, on_postgres: tuple[Site, PrivateServer]
) -> None:
    """The banner is about the store, not the server; what was shown stays; it goes when the database is back."""
    site, database = on_postgres
    page = browser.new_page()
    page.goto(f"{site.url}/runs")
    row = page.locator("table.runs a").first
    row.wait_for()
    database.stop()
    banner = page.get_by_role("alert")
    expect(banner).to_be_visible()
    expect(banner).to_have_class(re.compile("bad"))
    expect(row).to_be_visible()
    database.start()
    expect(banner).to_have_count(0)
    site.millrace("run", "shop:broken", "--quiet")
    expect(page.locator("table.runs tbody tr")).to_have_count(2)
    page.close()


def test_requests_that_break_off_are_made_again(open_page: OpenPage) -> None:
    """A browser breaks off all that is under way when the network changes: no page may rest on one answer."""
    page = open_page("/runs?flow=broken")
    broken = set[str]()

    def once(route: Route) -> None:
        path = urlsplit(route.request.url).path
        if path in broken or path.endswith("/stream"):
            route.continue_()
        else:
            broken.add(path)
            route.abort("connectionreset")

    page.route("**/api/**", once)
    page.reload()
    page.locator("table.runs a").first.click()
    expect(page.get_by_role("button", name="Retry", exact=True)).to_be_visible()
    page.get_by_role("link", name="Task runs", exact=True).click()
    expect(page.get_by_role("region", name="Task runs")).to_contain_text("Failed")
    assert {"/api/me", "/api/runs"} < broken
    expect(page.get_by_role("alert")).to_have_count(0)
