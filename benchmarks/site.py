"""A server over a store, and Chromium that looks at its pages: what the benchmarks and tests of speed share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MILLRACE = [sys.executable, "-c", "import sys; from orchestration.cli import main; sys.exit(main())"]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# As root Chromium needs --no-sandbox; the rest keeps it from asking hosts that nobody answers for.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

# What stands for a page being there: the row of a node, or pixels on the canvas that is the page's subject.
SEEN = {
    "overview": ("", "!!document.querySelector('main table a')"),
    "items": ("/nodes/0", "drawn('.cells canvas')"),
    "timeline": ("/timeline", "drawn('.lanes-view canvas')"),
}
_PAINTED = """
function drawn(selector) {
  const canvas = document.querySelector(selector);
  if (!canvas || !canvas.width || canvas.height < 8) return false;
  const { data } = canvas.getContext("2d").getImageData(0, 4, canvas.width, 1);
  return data.some((value) => value > 0);
}
function look() {
  if (!(%s)) return requestAnimationFrame(look);
  requestAnimationFrame(() => setTimeout(() => {  // the frame is out
    document.documentElement.dataset.painted = performance.now();
  }));
}
requestAnimationFrame(look);
"""
# The lengths of frames in milliseconds, as long as asked for.
_FRAMES = """(milliseconds) => new Promise((done) => {
  const lengths = [], began = performance.now();
  let before = began;
  requestAnimationFrame(function frame(now) {
    lengths.push(now - before);
    before = now;
    if (now - began < milliseconds) requestAnimationFrame(frame);
    else done(lengths.slice(1));
  });
})"""


def chromium() -> str | None:
    """Return the path of the browser; Playwright brings none of its own."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def browsing() -> Iterator[Browser]:
    """Start Chromium for a block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=OPTIONS)
        yield browser
        browser.close()


@contextmanager
def serving(store: str) -> Iterator[str]:
    """Serve a store from a process of its own for a block; give the URL."""
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [*MILLRACE, "server", "start", "--port", "0", "--store", store]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        if "http://" not in first:
            raise RuntimeError(first + process.stdout.read())
        yield first.split()[1]
    finally:
        process.terminate()
        process.communicate(timeout=10)


def read(url: str, path: str) -> Any:
    """Return the JSON of an answer."""
    with urllib.request.urlopen(url + path, timeout=60) as answer:
        return json.load(answer)


def first_paint(browser: Browser, url: str, run_id: str, page: str) -> float:
    """Open one of the pages in SEEN with nothing cached; return the seconds until it shows what it is about."""
    path, seen = SEEN[page]
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        opened = context.new_page()
        opened.add_init_script(_PAINTED % seen)
        opened.goto(f"{url}/runs/{run_id}{path}", wait_until="commit")
        shown = opened.wait_for_selector("html[data-painted]", state="attached")
        return float(shown.get_attribute("data-painted")) / 1000
    finally:
        context.close()


def frame_lengths(page: Page, seconds: float) -> list[float]:
    """Return the seconds between the frames that a page draws from now on."""
    return [length / 1000 for length in page.evaluate(_FRAMES, seconds * 1000)]
