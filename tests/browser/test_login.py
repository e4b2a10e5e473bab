"""Pages of a server that wants a token: logging in, what one may not do, logging out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from orchestration.stores.sqlite import SqliteStore
from orchestration.stores.tokens import Role, mint

from .conftest import Site, log_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture
def page(browser: Browser, closed: tuple[Site, dict[Role, str]]) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()


def test_the_page_that_was_asked_for_comes_after_the_login(
    page: Page, closed: tuple[Site, dict[Role, str]]
) -> None:
    """A wrong token is told; the right one leads on, lasts over a reload, and no script can find it."""
    site, tokens = closed
    page.goto(f"{site.url}/limits")
    log_in(page, "mlr_wrong")
    expect(page.get_by_role("alert")).to_contain_text("unknown, was revoked, or has expired")
    log_in(page, tokens[Role.ADMIN])
    expect(page.get_by_role("heading", name="database")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="New limit")).to_be_visible()
    kept = page.evaluate("document.cookie + JSON.stringify({...localStorage, ...sessionStorage})")
    assert "mlr_" not in kept
    assert "millrace-" not in kept
    assert not any("mlr_" in cookie["value"] for cookie in page.context.cookies())


def test_what_one_may_not_do_is_not_offered(page: Page, closed: tuple[Site, dict[Role, str]]) -> None:
    """A reader looks, who may run retries, an admin changes limits and reads the audit trail."""
    site, tokens = closed
    for role in Role:
        page.goto(f"{site.url}/runs?flow=ingest")
        log_in(page, tokens[role])
        page.locator("table.runs a").first.click()
        page.wait_for_selector("header.stack")
        retry = page.get_by_role("button", name="Retry", exact=True)
        expect(retry).to_have_count(int(role >= Role.RUN))
        page.get_by_role("link", name="Limits").click()
        expect(page.get_by_role("heading", name="database")).to_be_visible()
        expect(page.get_by_role("button", name="Change")).to_have_count(int(role >= Role.ADMIN))
        expect(page.get_by_role("link", name="Audit")).to_have_count(int(role >= Role.ADMIN))
        if role is Role.ADMIN:
            page.get_by_role("link", name="Audit").click()
            expect(page.locator("tbody tr").first).to_contain_text("admin of Ada")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        assert page.context.cookies() == []


def test_a_revoked_token_leads_to_the_login(page: Page, closed: tuple[Site, dict[Role, str]]) -> None:
    """Also on a page that is open."""
    site, _ = closed
    store = SqliteStore(site.folder / "store.sqlite3")
    row, token = mint("short", Role.READ, time.time())
    store.add_token(row)
    page.goto(f"{site.url}/limits")
    log_in(page, token)
    expect(page.get_by_role("heading", name="database")).to_be_visible()
    store.remove_token(row.token_id)
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    store.close()
