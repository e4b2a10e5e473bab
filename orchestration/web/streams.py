"""Server-sent events: one look at the store for all pages that watch the same run, ten times a second at most."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse

from runners.errors import BackendError, UserError

from ..core.retry import exponential_backoff
from ..stores.served import ServedStore
from .callers import caller_of
from .looks import IDLE_SECONDS, LOOK_SECONDS, ListLook, RunLook
from .reading import store_of
from .sessions import callers_of

SHARE = 4  # looking takes about one part in so many of the time at most
# A look that has waited for a database to come back has cost nothing: pages are not to wait for a multiple of it.
LONGEST_PAUSE_SECONDS = 2.0
MAX_LINES = 200  # log lines in one event; more are counted
ALIVE_SECONDS = 15.0  # after so long without news a comment keeps proxies from closing the connection
LINGER_SECONDS = 10.0  # a run is watched on after its last page: those whose connection broke come back
REPLAYED_LOOKS = 200
REPLAYED_BYTES = 1 << 20  # of item states; who has missed more reads them anew for less
LONGEST_BACKOFF_SECONDS = 30.0  # between looks that fail for a reason that nobody has thought of

_log = logging.getLogger("millrace.server")
_backoff = exponential_backoff(IDLE_SECONDS, LONGEST_BACKOFF_SECONDS)

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

    def add(self, news: dict[str, Any]) -> None:
        if not news:
            return
        self.latest |= news.get("latest", {})
        self.nodes |= news.get("nodes", {})
        self.items += news.get("items", b"")
        lines = news.get("lines", [])
        room = max(0, MAX_LINES - len(self.lines))
        self.skipped += max(0, len(lines) - room)
        self.lines += lines[:room]
        self.news.set()

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
    """Looks at the store again and again as long as pages are open, and tells all of them what has changed.

    Args:
        over: called when it looks no longer.
    """

    def __init__(self, look: Look, over: Callable[[], object]) -> None:
        self._look = look
        self._over = over
        self._name = secrets.token_hex(4)  # of this watch: what another one has told cannot be replayed
        self._number = 0  # of the newest look that brought news
        self._recent: deque[dict[str, Any]] = deque()
        self._kept_bytes = 0
        self._seen = asyncio.Event()
        self._failed = False
        self._unexpected = 0  # looks in a row that have failed for a reason that nobody has thought of
        self._left = time.monotonic()
        self._pages: set[Page] = set()
        self._task = asyncio.create_task(self._run())

    @property
    def mark(self) -> str:
        """The id of the newest event."""
        return f"{self._name}-{self._number}"

    async def ready(self) -> None:
        """Wait for the first look: who joins after it is told all that changes from then on."""
        self._left = time.monotonic()
        await self._seen.wait()

    def join(self, page: Page, last: str | None) -> None:
        """Let a page have what it has missed, and then what changes.

        Args:
            last: the id of the last event it has. What it has missed since is told again, or, where that is not
                known any more, that it has to read anew (`reset`). None: it has none and gets all that was seen last.
        """
        self._pages.add(page)
        missed = None if last is None else self._since(last)
        if missed is None:
            missed = [{"latest": {"reset": {}}}] if last else []
            missed.append(self._look.whole())
        for news in missed:
            page.add(news)

    def leave(self, page: Page) -> None:
        self._pages.discard(page)
        self._left = time.monotonic()

    def cancel(self) -> None:
        self._task.cancel()

    def _since(self, last: str) -> list[dict[str, Any]] | None:
        name, _, number = last.partition("-")
        if name != self._name or not number.isdecimal():
            return None
        missed = self._number - int(number)
        return list(self._recent)[len(self._recent) - missed :] if 0 <= missed <= len(self._recent) else None

    async def _run(self) -> None:
        while self._pages or time.monotonic() - self._left < LINGER_SECONDS:
            began = time.monotonic()
            news, pause = await self._next()
            if news:
                self._tell(news)
            self._seen.set()
            rest = min(SHARE * (time.monotonic() - began), LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(max(pause, rest))
        self._over()

    async def _next(self) -> tuple[dict[str, Any], float]:
        """Look, and return what pages are to be told and how long to wait; whatever happens, they hear of it."""
        try:
            news, pause = await asyncio.to_thread(self._look)
        except (BackendError, UserError) as error:
            self._failed = True
            return _problem(str(error)), IDLE_SECONDS
        except Exception as error:
            self._failed = True
            self._unexpected += 1
            if self._unexpected == 1:
                _log.exception("looking at the store for open pages has failed; it is tried again and again")
            return _problem(_unexpected(error)), _backoff(self._unexpected)
        if self._failed:  # what happened meanwhile pages have to read
            news["latest"] = news.get("latest", {}) | {"reset": {}}
        self._failed, self._unexpected = False, 0
        return news, pause

    def _tell(self, news: dict[str, Any]) -> None:
        self._number += 1
        self._recent.append(news)
        self._kept_bytes += len(news.get("items", b""))
        while len(self._recent) > REPLAYED_LOOKS or self._kept_bytes > REPLAYED_BYTES:
            self._kept_bytes -= len(self._recent.popleft().get("items", b""))
        for page in self._pages:
            page.add(news)


def _problem(message: str) -> dict[str, Any]:
    return {"latest": {"problem": {"message": message}}}


def _unexpected(error: Exception) -> str:
    return (
        f"The server cannot read what this page shows ({type(error).__name__}: {error}). It tries again; its log "
        "has the whole error."
    )


class Watches:
    """The watches that pages have in common: one for each run that somebody looks at, one for the list of runs."""

    def __init__(self, store: ServedStore) -> None:
        self._store = store
        self._watches: dict[str | None, Watch] = {}
        self.stopping = asyncio.Event()

    async def of(self, run_id: str | None) -> Watch:
        """Return the watch of a run, or with None of the list, when it has looked."""
        watch = self._watches.get(run_id)
        if watch is None:
            look = ListLook(self._store) if run_id is None else RunLook(self._store, run_id)
            watch = self._watches[run_id] = Watch(look, lambda: self._watches.pop(run_id))
        await watch.ready()
        return watch

    def close(self) -> None:
        for watch in self._watches.values():
            watch.cancel()


async def _events(
    watches: Watches, watch: Watch, last: str | None, allowed: Callable[[], Awaitable[bool]]
) -> AsyncIterator[str]:
    page = Page()
    watch.join(page, last)
    try:
        yield ": here\n\n"
        while not watches.stopping.is_set() and await allowed():
            await either(page.news, watches.stopping, seconds=ALIVE_SECONDS)
            if not page.news.is_set():
                yield ": alive\n\n"
                continue
            *told, last_told = [f"event: {name}\ndata: {data}\n\n" for name, data in page.events()]
            # The id stands with the last: a page that got only some of them wants all of them again.
            yield "".join([*told, f"id: {watch.mark}\n{last_told}"])
            await asyncio.sleep(LOOK_SECONDS)
        yield "event: bye\ndata: {}\n\n"
    finally:
        watch.leave(page)


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


# A browser sends the header when it connects again by itself; the pages, which do that at a pace of their own, cannot.
LastHeader = Annotated[str | None, Header(alias="Last-Event-ID", max_length=100)]
LastQuery = Annotated[str | None, Query(alias="last_event_id", max_length=100)]


async def _stream(request: Request, run_id: str | None, last: str | None) -> StreamingResponse:
    watches: Watches = request.app.state.watches
    watch = await watches.of(run_id)  # before the answer begins: a page reads as soon as it does
    return stream_of(_events(watches, watch, last, still_allowed(request)))


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
async def run_stream(
    request: Request, run: str, header: LastHeader = None, last: LastQuery = None
) -> StreamingResponse:
    """Tell of a run as it goes: events `run`, `nodes`, `items`, `logs`, `reset`, `problem`, `bye`."""
    row = await asyncio.to_thread(store_of(request).run, run)
    return await _stream(request, row.run_id, header or last)


@router.get("/stream")
async def list_stream(
    request: Request, header: LastHeader = None, last: LastQuery = None
) -> StreamingResponse:
    """Tell of the newest runs as they change: events `runs`, `reset`, `problem`, `bye`."""
    return await _stream(request, None, header or last)
