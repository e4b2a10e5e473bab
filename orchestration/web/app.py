"""The application: what answers which path, and what holds for all answers."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from importlib import metadata

from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runners.errors import BackendError

from ..core.states import RunState
from ..stores.base import Store
from . import acting, reading, streams
from .answers import answer_errors, as_json, problem
from .launching import Launcher
from .pages import page

REAP_SECONDS = 5.0
MUTATION_HEADER = b"millrace-request"  # a page of another site cannot set it
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_PORT = re.compile(r":\d+$")
MAX_BODY = 1 << 20

HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        b"form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]


def make_app(store: Store) -> FastAPI:
    """Return the application over a store."""
    version = metadata.version("millrace")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.watches = streams.Watches(store)
        reaper = asyncio.create_task(_reap(store))
        yield
        reaper.cancel()

    app = FastAPI(
        title="Millrace",
        version=version,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.store = store
    app.state.launcher = Launcher(store)
    answer_errors(app)
    for router in (reading.router, streams.router, acting.router):
        app.include_router(router)

    @app.get("/api/health")
    def health() -> Response:
        """Tell whether the store can be reached."""
        try:
            store.runs(limit=1)
        except BackendError as error:
            return as_json(
                {"status": "store", "version": version, "store": store.url, "message": str(error)}, 503
            )
        return as_json({"status": "ok", "version": version, "store": store.url})

    @app.get("/api/me")
    def me() -> Response:
        """Tell what the caller may do."""
        return as_json({"role": "admin", "user": None})

    @app.get("/api/metrics")
    def metrics() -> Response:
        """Tell numbers of runs, task runs and limits, for Prometheus."""
        return PlainTextResponse(_metrics(store), media_type="text/plain; version=0.0.4")

    app.router.routes.append(Route("/{path:path}", page, methods=["GET", "HEAD", "POST", "PUT", "DELETE"]))
    app.add_middleware(Guard)
    return app


async def _reap(store: Store) -> None:
    """Have runs of dead processes marked as Crashed: nobody else may be looking."""
    while True:
        with contextlib.suppress(BackendError):  # pages say that the store is away
            await asyncio.to_thread(lambda: store.reap(store.now()))
        await asyncio.sleep(REAP_SECONDS)


def _metrics(store: Store) -> str:
    lines = ["# HELP millrace_runs Flow runs of the newest 1000, by state.", "# TYPE millrace_runs gauge"]
    rows = store.runs(limit=1000)
    counts = {state: sum(row.state is state for row in rows) for state in RunState}
    lines += [f'millrace_runs{{state="{state.title}"}} {n}' for state, n in counts.items()]
    lines += [
        "# HELP millrace_limit_held Slots of a limit that are held.",
        "# TYPE millrace_limit_held gauge",
    ]
    limits = store.limits(store.now())
    names = {limit.name: _label(limit.name) for limit in limits}
    lines += [f'millrace_limit_held{{limit="{names[one.name]}"}} {one.held}' for one in limits]
    lines += ["# HELP millrace_limit_waiting Who waits for a limit.", "# TYPE millrace_limit_waiting gauge"]
    lines += [f'millrace_limit_waiting{{limit="{names[one.name]}"}} {one.waiting}' for one in limits]
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Guard:
    """What holds for every request: who may ask, how large, and what browsers may do with the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = _refusal(Request(scope))

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await (refused or self._app)(scope, receive, guarded)


def _refusal(request: Request) -> Response | None:
    """Return why a request is not answered, or None."""
    host = _PORT.sub("", request.headers.get("host", ""))
    if host not in LOOPBACK:
        # a name of another site that points here (DNS rebinding) would make its pages ours
        return problem(403, "WrongHost", f"This server answers to localhost, not to {host!r}.")
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return None
    if MUTATION_HEADER.decode() not in request.headers:
        return problem(
            403, "MissingHeader", "Requests that change something need the header Millrace-Request: 1."
        )
    length = request.headers.get("content-length", "0")
    if request.headers.get("transfer-encoding") or not length.isdigit() or int(length) > MAX_BODY:
        return problem(
            413, "TooLarge", f"A request's body is at most {MAX_BODY} bytes, with its length said."
        )
    return None
