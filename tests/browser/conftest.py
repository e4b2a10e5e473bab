"""A server on a store with runs in it, and Chromium that looks at its pages."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.site import MILLRACE, browsing, chromium
from orchestration.stores.sqlite import SqliteStore
from orchestration.stores.tokens import Role, mint

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).parent
FAILED = pytest.StashKey[bool]()


@dataclass
class Site:
    """A store, the runs that were made in it, and the server over it."""

    folder: Path
    store: str = ""  # the file in the folder
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    runs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def output(self) -> Path:
        return self.folder / "server.txt"

    @property
    def env(self) -> dict[str, str]:
        store = {
            "MILLRACE_STORE": self.store or str(self.folder / "store.sqlite3"),
            "MILLRACE_HOME": str(self.folder),
        }
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        return os.environ | store | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

    def millrace(self, *arguments: str) -> int:
        """Run a command to its end."""
        command = [*MILLRACE, *arguments]
        return subprocess.run(
            command, env=self.env, cwd=self.folder, capture_output=True, timeout=60
        ).returncode

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a run that goes on while the test looks."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.runs.append(
            subprocess.Popen([*MILLRACE, "run", *arguments], env=self.env, cwd=self.folder, **quiet)
        )
        return self.runs[-1]

    def start(self) -> None:
        """Start the server; on the port that it had before, if it had one."""
        command = [*MILLRACE, "server", "start", "--port", str(self.port)]
        # not a pipe: a server that says much would wait for its reader
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=self.env, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT
            )
        while not (first := self.output.read_text(encoding="utf-8").partition("\n"))[1]:
            assert self.process.poll() is None, first[0]
            time.sleep(0.05)
        assert "http://" in first[0], first[0]
        self.port = int(first[0].rsplit(":", 1)[1])

    def stop(self) -> None:
        """Kill the server, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End the server and what still runs."""
        self.stop()
        for run in self.runs:
            run.kill()
            run.wait()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server over a store with a run of each kind."""
    pytest.importorskip("orchestration.web", reason="needs the server")
    made = Site(tmp_path_factory.mktemp("site"))
    assert made.millrace("limit", "set", "database", "2") == 0
    for flow in ("ingest", "nightly", "broken"):
        made.millrace("run", f"shop:{flow}", "--quiet")
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="session")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[Role, str]]]:
    """A server over a store with a run, a limit and a token of each role."""
    pytest.importorskip("orchestration.web", reason="needs the server")
    site = Site(tmp_path_factory.mktemp("closed"))
    assert site.millrace("limit", "set", "database", "2") == 0
    site.millrace("run", "shop:ingest", "--quiet")
    store, tokens = SqliteStore(site.folder / "store.sqlite3"), {}
    for role in Role:
        row, tokens[role] = mint(f"{role.word} of Ada", role, time.time())
        store.add_token(row)
    store.close()
    site.start()
    yield site, tokens
    site.stop()


def log_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


@pytest.fixture(scope="session")
def browser(require: Callable[[str, object], None]) -> Iterator[Browser]:
    """Debian's Chromium; Playwright brings none of its own."""
    require("Chromium", chromium())
    with browsing() as started:
        yield started


OpenPage = Callable[..., "Page"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what became of the test itself, for its fixtures to see."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture
def open_page(browser: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """`open_page("/runs", width=390, at=site)`. A script's error or a breach of the policy fails the test.

    Of a test that fails, what its pages show is printed: who reads that it found no button wants to know.
    """
    contexts, complaints = [], list[str]()

    def opened(path: str, width: int = 1280, theme: str = "light", at: Site = site) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)  # machines that run tests are busy
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: _note(line.type, line.text, complaints))
        page.goto(at.url + path)
        return page

    yield opened
    for context in contexts:
        if request.node.stash.get(FAILED, False):
            for page in context.pages:
                print(f"--- {page.url}\n{page.inner_text('body')}")
        context.close()
    if request.node.stash.get(FAILED, False):
        print(f"--- the server\n{site.output.read_text(encoding='utf-8')[-4000:]}")
    assert complaints == []


def _note(kind: str, text: str, complaints: list[str]) -> None:
    # That a request failed is the browser's remark on what some tests bring about; pages tell it themselves.
    if kind == "error" and not text.startswith("Failed to load resource"):
        complaints.append(text)
