"""Server-sent events: one look at the store for all pages that watch the same run, ten times a second at most."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from runners.errors import BackendError, UserError

from ..stores.as_json import log_json
from ..stores.base import NodeRow, Store
from .binary import delta
from .callers import caller_of
from .reading import run_detail, store_of
from .sessions import callers_of
from .shown import shown_change, shown_run

LOOK_SECONDS = 0.1
IDLE_SECONDS = 1.0  # between looks at what has ended: it may be resumed
SHARE = 4  # looking takes at most one part in so many of the time
LIST_SECONDS = 0.5
LISTED = 100
MAX_LINES = 200  # log lines in one event; more are counted
ALIVE_SECONDS = 15.0  # after so long without news a comment keeps proxies from closing the connection

router = APIRouter(prefix="/api")


class Page:
    """What one open page has not been sent yet."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.latest: dict[str, Any] = {}  # events of which only the last counts
        self.nodes: dict[int, Any] = {}
        self.items = bytearray()
        self.lines: list[Any] = []
        self.skipped = 0

    def events(self) -> list[tuple[str, str]]:
        """Take what is there as (event, data)."""
        found = [(name, _json(value)) for name, value in self.latest.items()]
        if self.nodes:
            found.append(("nodes", _json(list(self.nodes.values()))))
        if self.items:
            found.append(("items", base64.b64encode(self.items).decode()))
        if self.lines or self.skipped:
            found.append(("logs", _json({"items": self.lines, "skipped": self.skipped})))
        self.latest, self.nodes, self.items, self.lines, self.skipped = {}, {}, bytearray(), [], 0
        self.news.clear()
        return found


class Look(Protocol):
    """One who looks at the store."""

    def __call__(self) -> tuple[dict[str, Any], float]:
        """Return what has changed since the last look, and the seconds until the next. In a thread of its own."""

    def whole(self) -> dict[str, Any]:
        """Return all that was seen, of which a page must know that has just come. States of items it reads itself."""


class Watch:
    """Looks at the store again and again as long as a page is open, and tells all pages what has changed."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._task: asyncio.Task[None] | None = None
        self.pages: set[Page] = set()

    def join(self, page: Page) -> None:
        """Let a page have all that was seen last, and then what changes."""
        self.pages.add(page)
        seen = self._look.whole()
        if seen:
            _add(page, seen)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def leave(self, page: Page) -> None:
        self.pages.discard(page)
        if not self.pages and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                news, pause = await asyncio.to_thread(self._look)
            except (BackendError, UserError) as error:
                news, pause = {"latest": {"problem": {"message": str(error)}}}, IDLE_SECONDS
            if news:
                for page in self.pages:
                    _add(page, news)
            await asyncio.sleep(max(pause, SHARE * (time.monotonic() - began)))


def _add(page: Page, news: dict[str, Any]) -> None:
    page.latest |= news.get("latest", {})
    page.nodes |= news.get("nodes", {})
    page.items += news.get("items", b"")
    lines = news.get("lines", [])
    room = max(0, MAX_LINES - len(page.lines))
    page.skipped += max(0, len(lines) - room)
    page.lines += lines[:room]
    page.news.set()


class RunLook:
    """What has changed in a run since the last look."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._shown: dict[str, Any] = {}
        self._nodes: dict[int, NodeRow] = {}
        self._states: dict[int, bytes] = {}
        self._seq: int | None = None

    def __call__(self) -> tuple[dict[str, Any], float]:
        store, news = self._store, dict[str, Any]()
        detail = run_detail(store, self._run_id)
        if detail != self._shown:
            news["latest"] = {"run": detail}
            self._shown = detail
        changed = [
            node
            for node in store.nodes(self._run_id)
            if node.replaced_by is None and self._nodes.get(node.node_id) != node
        ]
        if changed:
            news["nodes"] = {node.node_id: shown_change(node) for node in changed}
            news["items"] = b"".join(self._delta(node) for node in changed)
            self._nodes |= {node.node_id: node for node in changed}
        self._read_logs(news)
        return news, LOOK_SECONDS if not detail["ended"] else IDLE_SECONDS

    def whole(self) -> dict[str, Any]:
        if not self._shown:
            return {}
        nodes = {node.node_id: shown_change(node) for node in list(self._nodes.values())}
        return {"latest": {"run": self._shown}, "nodes": nodes}

    def _delta(self, node: NodeRow) -> bytes:
        now = self._store.states(self._run_id, node.node_id)
        before = self._states.get(node.node_id, b"")
        self._states[node.node_id] = now
        return delta(node.node_id, before, now) if node.node_id in self._nodes or node.width else b""

    def _read_logs(self, news: dict[str, Any]) -> None:
        if self._seq is None:  # a page reads what is there by itself; here is what comes after
            self._seq = self._last_seq()
            return
        lines = self._store.logs(self._run_id, after=self._seq, limit=1000)
        if lines:
            self._seq = lines[-1].seq
            news["lines"] = [log_json(line) for line in lines]

    def _last_seq(self) -> int:
        seq = 0
        while lines := self._store.logs(self._run_id, after=seq, limit=10_000):
            seq = lines[-1].seq
        return seq


class ListLook:
    """Which of the newest runs have changed since the last look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shown: dict[str, dict[str, Any]] = {}

    def __call__(self) -> tuple[dict[str, Any], float]:
        rows = [row for row in self._store.runs(limit=LISTED) if row.parent_run_id is None]
        now: dict[str, dict[str, Any]] = {}
        for row in rows:
            asked = self._store.requests(row.run_id, row.epoch) if row.ended is None else None
            now[row.run_id] = shown_run(row, asked)
        changed = [run for run_id, run in now.items() if self._shown.get(run_id) != run]
        self._shown = now
        return ({"latest": {"runs": changed}} if changed else {}), LIST_SECONDS

    def whole(self) -> dict[str, Any]:
        return {"latest": {"runs": list(self._shown.values())}} if self._shown else {}


class Watches:
    """The watches that pages have in common."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runs: dict[str, Watch] = {}
        self._list = Watch(ListLook(store))
        self.stopping = asyncio.Event()

    @contextlib.asynccontextmanager
    async def page(self, run_id: str | None) -> AsyncIterator[Page]:
        """Watch a run, or with None the list of runs, inside the block."""
        watch = self._list
        if run_id is not None:
            watch = self._runs.setdefault(run_id, Watch(RunLook(self._store, run_id)))
        page = Page()
        watch.join(page)
        try:
            yield page
        finally:
            watch.leave(page)
            if run_id is not None and not watch.pages:
                self._runs.pop(run_id, None)


async def _events(
    watches: Watches, run_id: str | None, allowed: Callable[[], Awaitable[bool]]
) -> AsyncIterator[str]:
    async with watches.page(run_id) as page:
        yield ": here\n\n"
        number = 0
        while not watches.stopping.is_set() and await allowed():
            await either(page.news, watches.stopping, seconds=ALIVE_SECONDS)
            if not page.news.is_set():
                yield ": alive\n\n"
                continue
            for name, data in page.events():
                number += 1
                yield f"event: {name}\nid: {number}\ndata: {data}\n\n"
            await asyncio.sleep(LOOK_SECONDS)
        yield "event: bye\ndata: {}\n\n"


async def either(*events: asyncio.Event, seconds: float) -> None:
    """Wait for the first of some events, or for so long."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=str)


def _stream(request: Request, run_id: str | None) -> StreamingResponse:
    watches: Watches = request.app.state.watches
    return stream_of(_events(watches, run_id, still_allowed(request)))


def still_allowed(request: Request) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether the caller of a stream would still be let in."""
    callers, caller = callers_of(request), caller_of(request)

    async def allowed() -> bool:
        with contextlib.suppress(BackendError):  # the store is away: nobody is sent away for that
            return await callers.still(caller)
        return True

    return allowed


def stream_of(events: AsyncIterator[str]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


@router.get("/runs/{run}/stream")
async def run_stream(request: Request, run: str) -> StreamingResponse:
    """Tell of a run as it goes: events `run`, `nodes`, `items`, `logs`, `problem`, `bye`."""
    row = await asyncio.to_thread(store_of(request).run, run)
    return _stream(request, row.run_id)


@router.get("/stream")
async def list_stream(request: Request) -> StreamingResponse:
    """Tell of the newest runs as they change: events `runs`, `problem`, `bye`."""
    return _stream(request, None)
