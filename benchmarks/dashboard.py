"""How soon is it on the page, how smooth is the page, and what do open pages cost a run?"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import runners
from orchestration import flow, runtime, task
from orchestration.stores import open_store

from .harness import Case, Report, Target, measure
from .recorded import record
from .site import SEEN, browsing, first_paint, frame_lengths, read, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ITEMS = 100_000
SHOWN = 24  # items whose way to the pixel is measured in a round
FRAMES_SECONDS = 4.0
STREAMS = 20
PAGES = 3  # on the machine of the run, each takes a good part of a core: 20 do not even open on two
PACE = 45e-6  # seconds that an item takes: 20,000 a second where the machine has nothing else to do
PACED = 60_000
WINDOW = {"width": 1280, "height": 900}
BASE = "nobody looks on"

# Calls back with the time at which the cell of an item has the colour of one that has completed.
_WATCH_CELLS = """(n) => {
  const canvas = document.querySelector(".cells canvas");
  const done = getComputedStyle(document.documentElement).getPropertyValue("--state-Completed").trim();
  const wanted = [1, 3, 5].map((at) => parseInt(done.slice(at, at + 2), 16)).join();
  const seen = window.seen = [];
  requestAnimationFrame(function frame() {
    const context = canvas.getContext("2d");
    for (;;) {
      const pixel = context.getImageData(seen.length * 16 + 8, 8, 1, 1).data;
      if (seen.length === n || pixel.subarray(0, 3).join() !== wanted) break;
      seen.push(Date.now() / 1000);
    }
    if (seen.length < n) requestAnimationFrame(frame);
  });
}"""


# Opens streams, says so, and reads them without a look at what they say.
_READ_STREAMS = """
import selectors, socket, sys
where, run_id, n = sys.argv[1:]
host, _, port = where.rpartition(":")
ready = selectors.DefaultSelector()
for _ in range(int(n)):
    stream = socket.create_connection((host, int(port)))
    stream.sendall(f"GET /api/runs/{run_id}/stream HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode())
    assert b" 200 " in stream.recv(65536)
    ready.register(stream, selectors.EVENT_READ)
print("open", flush=True)
while True:
    for key, _ in ready.select():
        key.fileobj.recv(1 << 20)
"""


@task(batch=1)
def stamped(seconds: float) -> float:
    time.sleep(seconds)
    return time.time()


@flow(task_runner=runners.ThreadPoolTaskRunner(max_workers=1))
def shown(seconds: float) -> list[float]:
    return stamped.map([seconds] * SHOWN).result()


@task
def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


@flow(task_runner=runners.ThreadPoolTaskRunner(max_workers=1))
def paced(n: int) -> float:
    """Return the seconds of a map, once those who look on are in place."""
    with _looking_on(str(runtime.flow_run.id)):
        began = time.perf_counter()
        spin.map([PACE] * n).result()
        return time.perf_counter() - began


def run(*, repeats: int = 7, size: int = ITEMS) -> Report:
    """Measure against a server in a process of its own; the recorded run has `size` task runs."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        url = f"sqlite:///{folder / 'bench.db'}"
        store = open_store(url)
        recorded = record(store, 1, size, created=time.time() - 3600)
        store.close()
        site = stack.enter_context(serving(url))
        browser = stack.enter_context(browsing())
        late: list[float] = []
        cases = [
            Case(f"first paint of {page}", partial(first_paint, browser, site, recorded, page))
            for page in SEEN
        ]
        cases.append(Case("from a change to the pixel", partial(_change_to_pixel, browser, site, url, late)))
        lookers = _lookers(browser, site)
        cases += [Case(name, partial(_paced_run, url, how), PACED, BASE) for name, how in lookers.items()]
        report = measure(
            "Dashboard: first paint, change to pixel, and what open pages cost", cases, repeats=repeats
        )
        report.notes += [_frames(browser, site, url, size), _spread(late), _rates(report, list(lookers))]
    for page in SEEN:
        seconds = report.of(f"first paint of {page}").median
        report.targets.append(Target(f"first paint of {page} at {size:,}", seconds, 1.0, "s", at_most=True))
    pixel = report.of("from a change to the pixel").median
    report.targets.append(Target("from a change to the pixel", pixel, 0.3, "s", at_most=True))
    for name in lookers.keys() - {BASE}:
        lost = 100 * (1 - report.speed(name, BASE))
        report.targets.append(Target(f"lost by {name}", lost, 5.0, "%", at_most=True))
    return report


# --- from a change to the pixel ----------------------------------------------------------------------


def _change_to_pixel(browser: Browser, site: str, store: str, late: list[float]) -> float:
    """Return the median from an item's last line of code to its colour on the page."""
    ended: list[float] = []
    running = threading.Thread(target=lambda: ended.extend(shown.with_options(store=store)(0.13)))
    before = _ids(site, "shown")
    with closing(browser.new_context(viewport=WINDOW)) as context:
        running.start()
        page = context.new_page()
        page.goto(f"{site}/runs/{_new_run(site, 'shown', before)}/nodes/0")
        page.wait_for_selector(".cells canvas")
        page.evaluate(_WATCH_CELLS, SHOWN)
        running.join()
        page.wait_for_selector(".badge:has-text('Completed')")
        _settled(page)
        seen: list[float] = page.evaluate("window.seen")
    # Those that had ended before the page was there are none of its affair.
    found = [at - end for at, end in zip(seen, ended, strict=True) if end > seen[0] + 0.2]
    late.extend(found)
    return statistics.median(found)


def _ids(site: str, flow_name: str) -> set[str]:
    return {one["id"] for one in read(site, f"/api/runs?flow={flow_name}&limit=1000")["items"]}


def _new_run(site: str, flow_name: str, before: set[str]) -> str:
    """Wait for a run to be in the store, with a node to look at."""
    while True:
        for run_id in _ids(site, flow_name) - before:
            if read(site, f"/api/runs/{run_id}/nodes"):
                return run_id


def _settled(page: Page) -> None:
    while page.evaluate("window.seen.length") < SHOWN:
        page.wait_for_timeout(20)


def _spread(late: list[float]) -> str:
    worst = statistics.quantiles(late, n=20)[18]
    return f"from a change to the pixel, each of {len(late)}: 95th percentile {worst * 1000:.0f} ms"


# --- frames ------------------------------------------------------------------------------------------


def _frames(browser: Browser, site: str, store: str, size: int) -> str:
    """Tell how long frames take while the cells of a live map change."""
    before, took = _ids(site, "paced"), list[float]()
    running = threading.Thread(
        target=lambda: took.append(_paced_run(store, lambda run_id: nullcontext(), size))
    )
    with closing(browser.new_context(viewport=WINDOW)) as context:
        running.start()
        page = context.new_page()
        page.goto(f"{site}/runs/{_new_run(site, 'paced', before)}/nodes/0")
        page.wait_for_selector(".cells canvas")
        lengths = sorted(frame_lengths(page, FRAMES_SECONDS))
    running.join()
    median, late = statistics.median(lengths), lengths[int(0.95 * len(lengths))]
    return (
        f"{size:,} cells while {size / took[0]:,.0f} a second change: a frame every {median * 1000:.1f} ms, "
        f"95th percentile {late * 1000:.1f} ms, longest {lengths[-1] * 1000:.0f} ms"
    )


# --- what pages cost ---------------------------------------------------------------------------------

Looking = Callable[[str], AbstractContextManager[None]]


def _lookers(browser: Browser, site: str) -> dict[str, Looking]:
    return {
        BASE: lambda run_id: nullcontext(),
        f"{STREAMS} streams": partial(_streams, site),
        f"{PAGES} pages here": partial(_pages, browser, site),
    }


_looking_on: Looking = lambda run_id: nullcontext()  # noqa: E731


def _paced_run(store: str, looking: Looking, n: int = PACED) -> float:
    global _looking_on
    _looking_on = looking
    return float(paced.with_options(store=store)(n))


def _rates(report: Report, names: list[str]) -> str:
    made = ", ".join(f"{PACED / report.of(name).median:,.0f} ({name})" for name in names)
    return f"task runs a second: {made}"


@contextmanager
def _streams(site: str, run_id: str) -> Iterator[None]:
    """Read what pages elsewhere would read, in a process of its own."""
    command = [sys.executable, "-c", _READ_STREAMS, site.removeprefix("http://"), run_id, str(STREAMS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield
        finally:
            process.kill()


@contextmanager
def _pages(browser: Browser, site: str, run_id: str) -> Iterator[None]:
    """Open pages that are drawn by the machine that the run has for itself otherwise."""
    with ExitStack() as stack:
        for _ in range(PAGES):
            page = stack.enter_context(closing(browser.new_context(viewport=WINDOW))).new_page()
            page.goto(f"{site}/runs/{run_id}")
            page.wait_for_selector(".live:has-text('live')")
        yield
