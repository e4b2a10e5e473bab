"""What the API does to runs and limits. Code of flows never runs in the server: it starts processes of their own."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from ..core.states import RUN_TERMINAL, RunState
from ..errors import RunNotResumableError, UserError
from ..stores.base import RunRow
from .answers import as_json, problem
from .launching import Launcher
from .reading import store_of
from .trail import about

router = APIRouter(prefix="/api")

LimitName = Annotated[str, Path(min_length=1, max_length=200)]


class Strict(BaseModel):
    """What comes with an action. Of the types that the description tells: `true` is no number."""

    model_config = ConfigDict(strict=True)


class Again(Strict):
    """How to run a run again: `failed_only` reuses the stored results of what completed."""

    failed_only: bool = False


class Slots(Strict):
    """What a limit allows."""

    slots: int = Field(ge=1, le=1_000_000)
    per_second: float | None = Field(default=None, gt=0)


class Call(Strict):
    """A flow to run: its entry point, and the arguments of its parameters."""

    entrypoint: str = Field(min_length=3, max_length=1000, pattern=r"^[^\x00]+$")
    parameters: dict[str, Any] = Field(default_factory=dict)


def _launcher(request: Request) -> Launcher:
    launcher: Launcher = request.app.state.launcher
    return launcher


def _accepted(request: Request, run_id: str) -> Response:
    about(request, run_id)
    return as_json({"run": run_id}, 202)


def _must_live(row: RunRow, what: str) -> None:
    if row.state in RUN_TERMINAL:
        title = row.state_name or row.state.title
        raise RunNotResumableError(f"run {row.name} cannot be {what}: it has ended ({title}).")


@router.post("/runs/{run}/cancel", status_code=202)
def cancel(request: Request, run: str) -> Response:
    """Ask a run to cancel."""
    store = store_of(request)
    row = store.run(run)
    if row.state is not RunState.CANCELLED:  # asking twice is harmless
        _must_live(row, "cancelled")
        store.request(row.run_id, cancel=True)
    return _accepted(request, row.run_id)


@router.post("/runs/{run}/pause", status_code=202)
def pause(request: Request, run: str) -> Response:
    """Let a run start nothing new."""
    store = store_of(request)
    row = store.run(run)
    _must_live(row, "paused")
    store.request(row.run_id, pause=True)
    return _accepted(request, row.run_id)


@router.post("/runs/{run}/unpause", status_code=202)
def unpause(request: Request, run: str) -> Response:
    """Let a paused run go on."""
    store = store_of(request)
    row = store.run(run)
    _must_live(row, "continued")
    store.request(row.run_id, pause=False)
    return _accepted(request, row.run_id)


@router.post("/runs/{run}/resume", status_code=202)
def resume(request: Request, run: str) -> Response:
    """Continue a paused run in its process, one that has ended in a new process."""
    store = store_of(request)
    row = store.run(run)
    if row.state not in RUN_TERMINAL:
        return unpause(request, run)
    if row.state is RunState.COMPLETED:
        raise RunNotResumableError(f"run {row.name} has completed: there is nothing to resume.")
    _must_be_found(row)
    _launcher(request).start(["runs", "resume", row.run_id, "--quiet"], expect=row.run_id)
    return _accepted(request, row.run_id)


@router.post("/runs/{run}/retry", status_code=202)
def retry(request: Request, run: str, how: Annotated[Again | None, Body()] = None) -> Response:
    """Run the same flow with the same parameters again, as a new run in a new process."""
    row = store_of(request).run(run)
    if row.state not in RUN_TERMINAL:
        return problem(409, "RunAliveError", f"run {row.name} has not ended: cancel it first.")
    _must_be_found(row)
    more = ["--failed-only"] if how is not None and how.failed_only else []
    again = _launcher(request).start(["runs", "retry", row.run_id, "--quiet", *more])
    about(request, f"{row.run_id} as {again}")
    return as_json({"run": again}, 202)


def _must_be_found(row: RunRow) -> None:
    if not row.entrypoint:
        raise UserError(
            f"run {row.name} does not say where its flow is: it was defined inside a function or interactively. "
            "Resume it from Python: flow.resume(run_id)."
        )


@router.post("/runs", status_code=202)
def start(request: Request, call: Call) -> Response:
    """Run a flow in a new process."""
    about(request, call.entrypoint)
    run_id = _launcher(request).run_flow(call.entrypoint, call.parameters)
    about(request, f"{call.entrypoint} as {run_id}")
    return as_json({"run": run_id}, 202)


@router.get("/flows/{flow}/form")
def form(request: Request, flow: str) -> Response:
    """Return what the form to launch a flow is made from: the JSON schema of its signature."""
    newest = store_of(request).runs(flow_name=flow, limit=20)
    entrypoint = next((row.entrypoint for row in newest if row.entrypoint), None)
    if entrypoint is None:
        return problem(404, "FlowNotFoundError", f"No run of flow {flow!r} says where that flow is.")
    return as_json({"entrypoint": entrypoint, "schema": _launcher(request).schema(entrypoint)})


@router.put("/limits/{name}")
def set_limit(request: Request, name: LimitName, slots: Slots) -> Response:
    """Set a limit, or make one."""
    store_of(request).set_limit(name, slots.slots, slots.per_second)
    return as_json({"name": name, "slots": slots.slots, "per_second": slots.per_second})


@router.delete("/limits/{name}")
def remove_limit(request: Request, name: LimitName) -> Response:
    """Remove a limit: what waits for it may run."""
    if not store_of(request).remove_limit(name):
        return problem(404, "NoSuchLimit", f"There is no limit {name!r}.")
    return as_json({"name": name})
