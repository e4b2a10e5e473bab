"""Every page, at both widths and in both themes: whole, readable, without a word from the browser's console."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import OpenPage, Site

LOOKS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
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
    "logs": ("/runs/{ingest}/logs", ".log li"),
    "errors": ("/runs/{ingest}/errors", "text=page 5 is empty"),
    "item": ("/runs/{ingest}/items/0/5", "text=What happened"),
    "failed": ("/runs/{broken}", "text=no connection to the warehouse"),
    "nowhere": ("/nowhere", "text=There is no such page"),
}


@pytest.fixture(scope="module")
def ids(site: Site) -> dict[str, str]:
    """The first run of each flow, which comes last in the list."""
    with urllib.request.urlopen(f"{site.url}/api/runs?limit=100", timeout=20) as answer:
        return {run["flow"]: run["id"] for run in json.load(answer)["items"]}


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(name: str, open_page: OpenPage, ids: dict[str, str]) -> None:
    """What the page is about is there, and nothing sticks out at the side. With MILLRACE_SCREENSHOTS it is kept."""
    path, awaited = PAGES[name]
    for width, theme in LOOKS:
        page = open_page(path.format_map(ids), width, theme)
        page.wait_for_selector(awaited)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        if folder := os.environ.get("MILLRACE_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{name}-{width}-{theme}.png", full_page=True)
