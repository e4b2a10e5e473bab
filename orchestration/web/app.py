"""The application: what answers which path, and what holds for all answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from importlib import metadata

from fastapi import Depends, FastAPI, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from runners.errors import BackendError

from ..core.states import RunState
from ..stores.served import ServedStore
from ..stores.tokens import Role
from . import acting, reading, remote, sessions, streams, trail
from .answers import answer_errors, as_json, only_known_parameters
from .callers import Callers, caller_of
from .description import describe
from .gate import Gate
from .launching import Launcher
from .options import Options
from .pages import page
from .presence import Presence
from .reach import Reach

REAP_SECONDS = 5.0


def make_app(store: ServedStore, options: Options) -> FastAPI:
    """Return the application over a store."""
    version = metadata.version("millrace")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.watches = streams.Watches(store)
        reaper = asyncio.create_task(_reap(store, app.state.presence))
        yield
        reaper.cancel()
        app.state.watches.close()

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
    app.state.presence = Presence(store)
    # browsers send cookies of one port of a host to all of its ports
    app.state.callers = Callers(store, needed=options.needs_token, cookie=f"millrace-{options.port}")
    reach = Reach(store)
    answer_errors(app)
    for router in (
        sessions.router,
        reading.router,
        streams.router,
        acting.router,
        remote.router,
        trail.router,
    ):
        app.include_router(router, dependencies=[Depends(only_known_parameters)])

    @app.get("/api/health")
    async def health(request: Request) -> Response:
        """Tell whether the store can be reached; where it is only those who may read."""
        known = caller_of(request).may(Role.READ)
        told = {"version": version, "store": store.url} if known else {}
        trouble = await reach.trouble()
        if trouble is not None:
            why = trouble if known else "The server cannot reach its store."
            return as_json({"status": "store", **told, "message": why}, 503)
        return as_json({"status": "ok", **told})

    @app.get("/api/metrics")
    def metrics() -> Response:
        """Tell numbers of runs, task runs and limits, for Prometheus."""
        return PlainTextResponse(_metrics(store), media_type="text/plain; version=0.0.4")

    app.openapi = functools.cache(lambda: describe(app))  # type: ignore[method-assign]
    app.router.routes.append(Route("/{path:path}", page, methods=["GET", "HEAD", "POST", "PUT", "DELETE"]))
    app.add_middleware(Gate, callers=app.state.callers, trail=trail.Trail(store), options=options)
    return app


async def _reap(store: ServedStore, presence: Presence) -> None:
    """Have runs of dead processes marked as Crashed: nobody else may be looking."""
    while True:
        with contextlib.suppress(BackendError):  # pages say that the store is away
            await asyncio.to_thread(lambda: presence.reap(store.now()))
        await asyncio.sleep(REAP_SECONDS)


def _metrics(store: ServedStore) -> str:
    lines = ["# HELP millrace_runs Flow runs by state.", "# TYPE millrace_runs gauge"]
    counts = dict.fromkeys(RunState, 0)
    for _, state, number in store.tally():
        counts[state] += number
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
