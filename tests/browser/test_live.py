"""What a person does with the pages while flows run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from conftest import OpenPage, Site
    from playwright.sync_api import Route


expect.set_options(timeout=60_000)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A named pipe that a run waits at."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def test_a_run_shows_itself_and_ends_on_an_open_page(open_page: OpenPage, site: Site, gate: Path) -> None:
    """The list and the run's page follow without being loaded again."""
    listed = open_page("/runs?flow=gated")
    listed.wait_for_selector("text=No run matches")
    site.begin("shop:gated", "-p", f"gate={gate}")
    row = listed.locator("table.runs tbody tr").first
    expect(row).to_contain_text("Running")
    row.locator("a").first.click()
    head = listed.locator("header.stack")
    expect(head).to_contain_text("Running")
    gate.write_text("go", encoding="utf-8")
    expect(head).to_contain_text("Completed")


def test_from_the_list_to_the_traceback(open_page: OpenPage) -> None:
    """Four clicks, each by what a person reads."""
    page = open_page("/runs?flow=ingest")
    page.locator("table.runs a").last.click()
    page.get_by_role("link", name="Errors", exact=True).click()
    page.get_by_role("link", name="fetch[5]").first.click()
    error = page.get_by_role("region", name="Error")
    expect(error).to_contain_text("Traceback (most recent call last)")
    expect(error).to_contain_text("ValueError: page 5 is empty")
    expect(page.get_by_role("region", name="Attempts").locator("tbody tr")).to_have_count(2)


def test_a_stored_result_is_shown(open_page: OpenPage, site: Site) -> None:
    """On the page of the task run that returned it: as text, or how the table or array begins."""
    assert site.millrace("run", "shop:priced", "--quiet") == 0
    page = open_page("/runs?flow=priced")
    page.locator("table.runs tbody a").first.click()
    result = page.get_by_role("region", name="Result")
    for task, said, rows in (
        ("price", "{'euros': 4.5}", 0),
        ("table", "DataFrame, 1,200 rows and 4 columns; here are the first 10 rows", 10),
        ("grid", "ndarray of float64, 30 × 20; here are the first 10 rows, the first 12 columns", 10),
    ):
        page.get_by_role("link", name="Task runs", exact=True).click()
        page.get_by_role("region", name="Task runs").get_by_role("link", name=task, exact=True).click()
        expect(result).to_contain_text(said)
        expect(result.locator("tbody tr")).to_have_count(rows)
        page.go_back()


def test_cancel_asks_first_and_then_cancels(open_page: OpenPage, site: Site) -> None:
    """A slip of the hand cancels nothing."""
    page = open_page("/runs?flow=nightly&state=Running")
    site.begin("shop:nightly", "-p", "rows=5000")
    page.locator("table.runs tbody a").first.click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Let it run").click()
    expect(page.locator("header.stack")).to_contain_text("Running")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator("header.stack .badge").first).to_have_text(re.compile("Cancelled"))


def test_retry_leads_to_the_new_run(open_page: OpenPage) -> None:
    """Retry makes a run of its own, and the page goes there."""
    page = open_page("/runs?flow=broken&state=Failed")
    page.locator("table.runs a").first.click()
    page.wait_for_selector("header.stack")
    before = page.url
    page.get_by_role("button", name="Retry", exact=True).click()
    page.wait_for_url(lambda url: url != before)
    expect(page.locator("header.stack .badge").first).to_have_text(re.compile("Failed"))


def test_a_limit_is_made_changed_and_removed(open_page: OpenPage) -> None:
    """All of it by the form, the answer of the server on the page."""
    page = open_page("/limits")
    page.get_by_role("button", name="New limit").click()
    page.get_by_label("Name, as in a task's tags").fill("mail")
    page.get_by_label("Slots: how many at once").fill("3")
    page.get_by_role("button", name="Save").click()
    card = page.get_by_role("region", name="Limit mail")
    expect(card).to_contain_text("0 of 3 held")
    card.get_by_role("button", name="Change").click()
    page.get_by_label("Slots: how many at once").fill("7")
    page.get_by_role("button", name="Save").click()
    expect(card).to_contain_text("0 of 7 held")
    card.get_by_role("button", name="Change").click()
    page.get_by_role("button", name="Remove").click()
    expect(card).to_have_count(0)


def test_filters_live_in_the_address(open_page: OpenPage) -> None:
    """A link to a filtered list shows the same list to somebody else."""
    page = open_page("/runs")
    page.get_by_label("Search runs").fill("warehouse")
    page.wait_for_url("**/runs?search=warehouse")
    page.get_by_role("group", name="States").get_by_role("button", name="Failed").click()
    page.wait_for_url("**/runs?search=warehouse&state=Failed")
    page.reload()
    expect(page.get_by_label("Search runs")).to_have_value("warehouse")
    expect(page.locator("table.runs tbody tr").first).to_contain_text("broken")
    expect(page.locator("table.runs tbody")).not_to_contain_text("ingest")


def test_task_runs_are_searched_and_the_address_says_so(open_page: OpenPage) -> None:
    """By item, error or worker, together with the other filters, which choosing a task keeps."""
    page = open_page("/runs?flow=ingest")
    page.locator("table.runs a").last.click()
    page.get_by_role("link", name="Task runs", exact=True).click()
    page.get_by_label("State", exact=True).select_option("Failed")
    field = page.get_by_label("Search task runs")
    field.fill("page 5 is empty")
    field.press("Enter")
    page.wait_for_url("**/tasks?state=Failed&search=page+5+is+empty")
    rows = page.get_by_role("region", name="Task runs").locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("fetch[5]")
    page.get_by_label("Task", exact=True).select_option(label="fetch")
    page.wait_for_url("**/tasks?state=Failed&search=page+5+is+empty&node=0")
    page.reload()
    expect(rows).to_have_count(1)
    expect(field).to_have_value("page 5 is empty")
    field.fill("nobody says this")
    expect(page.get_by_text("No task run matches")).to_be_visible()
    page.get_by_role("link", name="Show all").click()
    expect(field).to_have_value("")
    expect(page.get_by_role("link", name="fetch[5]", exact=True)).to_be_visible()


def test_a_search_that_has_found_nothing_yet_goes_on(open_page: OpenPage) -> None:
    """The server looks at some 5,000 task runs for an answer; the page offers the next ones."""
    page = open_page("/runs?flow=ingest")
    page.locator("table.runs a").last.click()
    page.wait_for_selector("header.stack")
    page.route(
        re.compile(r"/task-runs\?"),
        lambda route: (
            route.continue_()
            if "cursor" in route.request.url
            else route.fulfill(json={"items": [], "next": "0-4", "searched": 5000})
        ),
    )
    page.goto(page.url + "/tasks?search=fetch%5B5%5D")
    expect(page.get_by_text("No match among the first 5,000 task runs")).to_be_visible()
    page.get_by_role("button", name="Search on").click()
    expect(page.get_by_role("link", name="fetch[5]", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Search on")).to_have_count(0)


def test_a_search_of_runs_that_has_found_nothing_yet_goes_on(open_page: OpenPage) -> None:
    """The server looks at 5,000 runs for an answer, and counts as many; the page says so and offers the next ones."""
    page = open_page("/limits")
    page.route(
        re.compile(r"/api/runs\?"),
        lambda route: (
            route.continue_()
            if "cursor" in route.request.url
            else route.fulfill(json={"items": [], "next": f"{2**40}-0", "searched": 5000})
        ),
    )
    summary = {"states": {"Failed": 3}, "of_newest": 5000}
    page.route(re.compile(r"/api/runs/summary"), lambda route: route.fulfill(json=summary))
    page.goto(page.url.replace("/limits", "/runs?search=broken"))
    expect(page.get_by_text("No match among the newest 5,000 runs")).to_be_visible()
    expect(page.get_by_role("group", name="States")).to_contain_text("of the newest 5,000 runs")
    page.get_by_role("button", name="Search on").click()
    expect(page.locator("table.runs tbody tr").first).to_contain_text("broken")


def test_a_server_that_was_away_is_told_of_and_found_again(open_page: OpenPage, site: Site) -> None:
    """The banner comes by itself and goes by itself; what is shown stays."""
    page = open_page("/runs")
    page.wait_for_selector("table.runs a")
    site.stop()
    expect(page.get_by_role("alert")).to_contain_text("millrace server start")
    expect(page.locator("table.runs a").first).to_be_visible()
    site.start()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(".live").first).to_have_text("live")


def test_theme_and_help_by_keyboard(open_page: OpenPage) -> None:
    """The chosen theme is kept; `?` lists the keys; `g l` goes to the limits."""
    page = open_page("/runs")
    page.wait_for_selector("table.runs a")
    page.keyboard.press("t")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.wait_for_selector("table.runs a")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page.locator("h1")).to_have_text("Limits")


def test_a_flow_is_started_by_its_form(open_page: OpenPage) -> None:
    """The form knows the signature, refuses what does not fit, and leads to the run."""
    page = open_page("/flows/ingest")
    page.get_by_role("button", name="Set parameters").click()
    pages = page.get_by_role("textbox", name="pages")
    expect(pages).to_have_value("40")
    pages.fill("two")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_have_text("pages wants a whole number.")
    pages.fill("3")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/runs/*")
    expect(page.get_by_role("region", name="Parameters")).to_contain_text("pages = 3")
    expect(page.locator("header.stack .badge").first).to_have_text(re.compile("Completed"))


def test_a_flow_is_started_once_however_often_one_clicks(open_page: OpenPage) -> None:
    """The start of its process takes a while, and the button says so."""
    page = open_page("/flows/ingest")
    held: list[Route] = []
    page.route("**/api/runs", lambda route: held.append(route))
    page.get_by_role("button", name="Set parameters").click()
    page.get_by_role("textbox", name="pages").press("Enter")
    button = page.get_by_role("button", name="Starting…")
    expect(button).to_be_disabled()
    page.get_by_role("textbox", name="pages").press("Enter")
    button.click(force=True)
    held[0].fulfill(status=422, json={"error": {"type": "UserError", "message": "It cannot be started."}})
    expect(page.get_by_role("alert")).to_have_text("It cannot be started.")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_enabled()
    assert len(held) == 1
