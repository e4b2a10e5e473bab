"""The Store port for processes that cannot reach the database: what `stores/remote` asks, as `stores/wire` says it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgpack
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from ..errors import UserError
from ..stores.sql.store import SqlStore
from ..stores.tokens import Role
from ..stores.wire import port
from ..stores.wire.schema import WireError
from .answers import problem
from .callers import caller_of
from .presence import Presence
from .streams import either, still_allowed, stream_of
from .trail import about

ALIVE_SECONDS = 5.0
COMPRESSED_FROM = 1 << 20

router = APIRouter(prefix="/api/store")

Work = Callable[[SqlStore, Presence, bytes], bytes]


def _store(request: Request) -> SqlStore:
    """Return the store.

    Raises:
        UserError: it is none that others can write to.
    """
    store = request.app.state.store
    if not isinstance(store, SqlStore):
        raise UserError(f"The store {store.url} of this server is none that others can write to.")
    return store


def _other_version(request: Request) -> Response | None:
    theirs = request.headers.get(port.VERSION_HEADER, "none")
    if theirs == str(port.VERSION):
        return None
    return problem(
        409,
        "StoreNewerError",
        f"This server speaks version {port.VERSION} of the store's protocol, this request version {theirs}. Bring both "
        f"to the same version of Millrace.",
    )


async def _done(request: Request, work: Work) -> Response:
    """Answer with what `work` makes of the request's body, in a thread."""
    refused = _other_version(request)
    if refused is not None:
        return refused
    body, store = await request.body(), _store(request)
    presence: Presence = request.app.state.presence

    def answer() -> bytes:
        presence.here()
        return work(store, presence, body)

    try:
        done = await run_in_threadpool(answer)
    except WireError as error:
        return problem(400, "InvalidRequest", str(error))
    headers = {"Cache-Control": "no-store"}
    if len(done) > COMPRESSED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        done, headers["Content-Encoding"] = await run_in_threadpool(gzip.compress, done, 1), "gzip"
    return Response(done, headers=headers, media_type="application/msgpack")


@router.get("")
def greet(request: Request) -> Response:
    """Tell the version of the protocol, and the time of heartbeats and leases."""
    return Response(msgpack.packb([port.VERSION, _store(request).now()]), media_type="application/msgpack")


@router.post("/read")
async def read(request: Request) -> Response:
    """Answer what is asked of the record. For processes of the same version; the body is a call in msgpack."""

    def work(store: SqlStore, presence: Presence, body: bytes) -> bytes:
        asked = port.unpack_call(body, port.READING)
        return port.pack_answer(asked.verb, getattr(store, asked.verb)(**asked.arguments))

    return await _done(request, work)


@router.post("/note")
async def note(request: Request) -> Response:
    """Take heartbeats and the release of leases, which may be repeated. As `/read`."""

    def work(store: SqlStore, presence: Presence, body: bytes) -> bytes:
        asked = port.unpack_call(body, port.REPEATABLE)
        judge: Any = presence if asked.verb == "reap" else store
        return port.pack_answer(asked.verb, getattr(judge, asked.verb)(**asked.arguments))

    return await _done(request, work)


@router.post("/write")
async def write(request: Request) -> Response:
    """Do transactions, each once. The body is a writer and its numbered transactions in msgpack."""
    may_set_limits = caller_of(request).may(Role.ADMIN)

    def work(store: SqlStore, presence: Presence, body: bytes) -> bytes:
        writing = port.unpack_writing(body)
        verbs = {call.verb for group in writing.groups for call in group.calls}
        _note_actions(request, writing)
        if verbs & port.OF_ALL_RUNS and not may_set_limits:
            raise UserError("Limits are shared by all runs: setting them needs a token of the role admin.")
        return store.numbered(writing)

    return await _done(request, work)


def _note_actions(request: Request, writing: port.Writing) -> None:
    """Have the audit trail know what a person has asked by way of this store: of a process one thing at a time."""
    for call in (call for group in writing.groups for call in group.calls):
        asked = call.arguments
        if call.verb in port.OF_ALL_RUNS:
            about(request, asked["name"], "limit.set" if call.verb == "set_limit" else "limit.remove")
        elif call.verb == "request":
            pause = "run.pause" if asked.get("pause") else "run.unpause"
            about(request, asked["run_id"], "run.cancel" if asked.get("cancel") else pause)


@router.get("/news")
async def news(request: Request) -> Response:
    """Tell what those who wait ask again for: leases that may be free, and runs of which something is asked."""
    refused = _other_version(request)
    stopping: asyncio.Event = request.app.state.watches.stopping
    return refused or stream_of(_topics(_store(request), stopping, still_allowed(request)))


async def _topics(
    store: SqlStore, stopping: asyncio.Event, allowed: Callable[[], Awaitable[bool]]
) -> AsyncIterator[str]:
    loop, told, pending = asyncio.get_running_loop(), asyncio.Event(), set[str]()

    def add(topic: str) -> None:
        pending.add(topic)
        told.set()

    def notice(topic: str | None) -> None:
        name = port.ANY_TOPIC if topic is None else topic or port.LEASES_TOPIC  # LEASES is ""
        with contextlib.suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(add, name)

    stop = await run_in_threadpool(store.listen_to_all, notice)
    try:
        yield ": here\n\n"
        while not stopping.is_set() and await allowed():
            await either(told, stopping, seconds=ALIVE_SECONDS)
            topics = sorted(pending)
            pending.clear()
            told.clear()
            yield "".join(f"data: {topic}\n\n" for topic in topics) or ": alive\n\n"
    finally:
        stop()
