"""What the API tells of runs, limits, flows and workers. Endpoints are plain functions: they block in threads of
their own, never in the event loop."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from runners.messages import Stored

from ..core.states import RUN_TERMINAL, RunState, State
from ..errors import RunNotFoundError, UserError
from ..stores.as_json import log_json, seconds_of, timing_json
from ..stores.base import AttemptRow, RunRow, Store, TaskRunRow
from ..stores.lookup import states_named
from ..stores.running import running_now
from . import previews, shown
from .answers import as_json, problem
from .binary import snapshot, timeline_bytes
from .stuck import why_stuck

PAGE = 200  # rows of the store at a time where some are left out
MOST_SCANNED = 5_000  # rows of the store that one answer looks at
MOST_GROUPS = 100
MOST_LEASES = 100  # holders of a limit that are told, and as many of those who wait
RECENT = 20  # runs of a flow, for its trend
TOO_LARGE = 1 << 63  # for a whole number of a database

router = APIRouter(prefix="/api")

Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(max_length=200)]
Words = Annotated[str, Query(max_length=200)]
Names = Annotated[list[str] | None, Query()]
Number = Annotated[int, Path(ge=0, lt=TOO_LARGE)]
OneOf = Annotated[int | None, Query(ge=0, lt=TOO_LARGE)]


def store_of(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


# --- runs --------------------------------------------------------------------------------------------


class Filter:
    """Which runs a list shows."""

    def __init__(
        self,
        state: Names = None,
        flow: Words = "",
        tag: Words = "",
        search: Words = "",
        since: float | None = None,
        until: float | None = None,
        subflows: bool = False,
    ) -> None:
        self.states = states_named(RunState, state or ())
        self.flow = flow or None
        self.tag = tag
        self.search = search.lower()
        self.since = since
        self.until = until
        self.subflows = subflows

    def takes(self, row: RunRow) -> bool:
        if row.parent_run_id is not None and not self.subflows:
            return False
        if self.tag and self.tag not in row.tags:
            return False
        found = (row.name, row.flow_name, row.run_id, row.message, *row.tags)
        return not self.search or any(self.search in text.lower() for text in found)

    def scan(self, store: Store, limit: int = MOST_SCANNED, before: tuple[float, str] | None = None) -> Scan:
        """Look for at most `limit` runs, newest first, among MOST_SCANNED of the store."""
        found: list[RunRow] = []
        scanned, last = 0, None
        if before is None and self.until is not None:
            before = self.until, ""
        while True:
            page = store.runs(states=self.states, flow_name=self.flow, limit=PAGE, before=before)
            for row in page:
                if self.since is not None and row.created < self.since:
                    return Scan(found, scanned, None)
                if len(found) == limit or scanned == MOST_SCANNED:
                    return Scan(found, scanned, last)
                scanned, last = scanned + 1, row
                if self.takes(row):
                    found.append(row)
            if len(page) < PAGE:
                return Scan(found, scanned, None)
            before = page[-1].created, page[-1].run_id


@dataclass(frozen=True, slots=True)
class Scan:
    """Runs that were found.

    Attributes:
        scanned: how many were looked at.
        last: the last of these, where there are more behind it; None: all were looked at.
    """

    found: list[RunRow]
    scanned: int
    last: RunRow | None


Filtered = Annotated[Filter, Depends(Filter)]


@router.get("/runs")
def list_runs(request: Request, wanted: Filtered, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """List runs, newest first; a search that finds little (it looked at `searched`) goes on from `next`."""
    store = store_of(request)
    scan = wanted.scan(store, limit, _run_cursor(cursor))
    following = None if scan.last is None else f"{scan.last.created!r}-{scan.last.run_id}"
    items = [_shown(store, row) for row in scan.found]
    return as_json({"items": items, "next": following, "searched": scan.scanned})


@router.get("/runs/summary")
def summary(request: Request, wanted: Filtered) -> Response:
    """Count runs by state. `of_newest` says how many were looked at, null where it was all of them."""
    scan = wanted.scan(store_of(request))
    counts = Counter(row.state.title for row in scan.found)
    return as_json({"states": counts, "of_newest": None if scan.last is None else scan.scanned})


def _shown(store: Store, row: RunRow) -> dict[str, Any]:
    asked = store.requests(row.run_id, row.epoch) if row.state not in RUN_TERMINAL else None
    return shown.shown_run(row, asked)


def _number(text: str, kind: Any) -> Any:
    with contextlib.suppress(ValueError):
        number = kind(text)
        if abs(number) < TOO_LARGE:
            return number
    raise UserError(f"{text!r} is no cursor of this list: take `next` of the page before.")


def _run_cursor(text: str | None) -> tuple[float, str] | None:
    created, _, run_id = (text or "").partition("-")
    return (_number(created, float), run_id) if text else None


def _item_cursor(text: str | None) -> tuple[int, int] | None:
    node, _, index = (text or "").partition("-")
    return (_number(node, int), _number(index, int)) if text else None


@router.get("/runs/{run}")
def one_run(request: Request, run: str) -> Response:
    """Tell of a run, by id, id prefix or name."""
    return as_json(run_detail(store_of(request), run))


def run_detail(store: Store, run: str) -> dict[str, Any]:
    """Return what a run's page shows in its head."""
    row = store.run(run)
    live = row.state not in RUN_TERMINAL
    asked = store.requests(row.run_id, row.epoch) if live else None
    found = shown.shown_run(row, asked)
    found["detail"] = shown.shown_error(row.detail)
    found["requests"] = {
        "cancel": bool(asked and asked.cancel),
        "pause": bool(asked and asked.pause),
    }
    found["stuck"] = why_stuck(store, row) if live else []
    return found


@router.get("/runs/{run}/nodes")
def nodes(request: Request, run: str) -> Response:
    """List a run's nodes, without those that a later process has replaced."""
    store = store_of(request)
    found = store.nodes(store.run(run).run_id)
    return as_json([shown.shown_node(node) for node in found if node.replaced_by is None])


@router.get("/runs/{run}/task-runs")
def task_runs(
    request: Request,
    run: str,
    node: OneOf = None,
    state: Names = None,
    search: Words = "",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """List task runs in the order of node and index; a search that finds little goes on from `next`."""
    store, after = store_of(request), _item_cursor(cursor)
    run_id, states = store.run(run).run_id, states_named(State, state or ())
    found: list[TaskRunRow] = []
    size, scanned = limit + 1 if not search else 1000, 0
    while True:
        page = store.task_runs(run_id, node_id=node, states=states, after=after, limit=size)
        for row in page:
            if len(found) == limit:
                return _task_run_page(found, after, scanned)
            after, scanned = (row.node_id, row.index), scanned + 1
            if not search or _says(row, search.lower()):
                found.append(row)
        if len(page) < size:
            return _task_run_page(found, None, scanned)
        if scanned >= MOST_SCANNED:
            return _task_run_page(found, after, scanned)


def _task_run_page(rows: list[TaskRunRow], after: tuple[int, int] | None, scanned: int) -> Response:
    following = None if after is None else f"{after[0]}-{after[1]}"
    items = [shown.shown_task_run(row) for row in rows]
    return as_json({"items": items, "next": following, "searched": scanned})


def _says(row: TaskRunRow, words: str) -> bool:
    error = (row.detail.type_name, row.detail.message) if row.detail else ()
    found = (row.task_name, row.name, row.reason, row.worker, f"{row.task_name}[{row.index}]", *error)
    return any(words in text.lower() for text in found)


@router.get("/runs/{run}/nodes/{node}/items/{index}")
def item(request: Request, run: str, node: Number, index: Number) -> Response:
    """Tell of one task run: its attempts, its moves, and both in words."""
    store = store_of(request)
    run_id = store.run(run).run_id
    found = store.task_runs(run_id, node_id=node, after=(node, index - 1), limit=1)
    if not found or found[0].index != index:
        return problem(404, "NoSuchTaskRun", f"Run {run} has no task run {index} of a node {node}.")
    history, attempts = store.history(run_id, node, index), store.attempts(run_id, node, index)
    (its_node,) = store.nodes(run_id, node)
    return as_json(
        shown.shown_task_run(found[0])
        | {
            "kind": its_node.kind,
            "width": its_node.width,
            "attempts": [shown.shown_attempt(row) for row in attempts],
            "history": shown.shown_moves(history),
            "story": shown.story(history, attempts),
            "stored": _stored(attempts) is not None,
        }
    )


@router.get("/runs/{run}/nodes/{node}/items/{index}/result")
def result(request: Request, run: str, node: Number, index: Number) -> Response:
    """Tell what the stored result of a task run looks like, or why that cannot be told (`why`)."""
    store = store_of(request)
    found = _stored(store.attempts(store.run(run).run_id, node, index))
    if found is None:
        return as_json({"text": None, "why": "No result of it is stored."})
    try:
        return as_json(previews.preview(*found) | {"why": None})
    except previews.NoPreviewError as error:
        return as_json({"text": None, "why": str(error)})


def _stored(attempts: Sequence[AttemptRow]) -> tuple[Stored, int] | None:
    """Return where the result of the newest attempt is stored, if it is."""
    last = attempts[-1] if attempts else None
    return None if last is None or last.stored is None else (last.stored, last.position)


@router.get("/runs/{run}/nodes/{node}/states")
def states(request: Request, run: str, node: Number) -> Response:
    """Return the state of each item of a node, one byte each."""
    store = store_of(request)
    return snapshot(store.states(store.run(run).run_id, node))


@router.get("/runs/{run}/timeline")
def timeline(request: Request, run: str, after: Cursor = None) -> Response:
    """Return all attempts that have ended, in columns, or with the `next` of an earlier answer those that it lacks."""
    store = store_of(request)
    run_id = store.run(run).run_id
    seq, replaced = _timeline_cursor(after)
    found = store.timeline(run_id, after=seq)
    if seq and found.replaced != replaced:  # attempts that the page has are no longer the run's
        seq, found = 0, store.timeline(run_id)
    body = timeline_bytes(found, whole=not seq)
    return Response(body, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})


def _timeline_cursor(text: str | None) -> tuple[int, int]:
    seq, _, replaced = (text or "0-0").partition("-")
    return _number(seq, int), _number(replaced, int)


@router.get("/runs/{run}/logs")
def logs(
    request: Request,
    run: str,
    after: Annotated[int, Query(ge=0, lt=TOO_LARGE)] = 0,
    min_level: Annotated[int, Query(ge=0, le=100)] = 0,
    node: OneOf = None,
    index: OneOf = None,
    search: Words = "",
    limit: Limit = 500,
) -> Response:
    """List log lines with a `seq` above `after`."""
    store = store_of(request)
    run_id, found, scanned = store.run(run).run_id, list[Any](), 0
    while len(found) < limit and scanned < MOST_SCANNED * 4:
        page = store.logs(run_id, after=after, node_id=node, index=index, min_level=min_level, limit=1000)
        for row in page:
            after = row.seq
            if not search or search.lower() in row.message.lower():
                found.append(log_json(row))
                if len(found) == limit:
                    break
        scanned += len(page)
        if len(page) < 1000:
            break
    return as_json({"items": found, "next": after})


@router.get("/runs/{run}/errors")
def errors(request: Request, run: str) -> Response:
    """Count all task runs that failed, those that failed alike as one: roots first, of these the most frequent."""
    store = store_of(request)
    groups = store.failures(store.run(run).run_id, limit=MOST_GROUPS)
    return as_json([shown.shown_group(group) for group in groups])


@router.get("/runs/{run}/timing")
def timing(request: Request, run: str) -> Response:
    """Tell where the time of a run went, by node and over all."""
    store = store_of(request)
    row = store.run(run)
    return as_json(timing_json(store.timing(row.run_id), row))


# --- what is shared by runs --------------------------------------------------------------------------


@router.get("/limits")
def limits(request: Request) -> Response:
    """List limits with who holds them and who waits: of each the first 100, and how many there are."""
    store = store_of(request)
    now, found, names = store.now(), [], dict[str, str]()
    for limit in store.limits(now):
        leases = store.leases(limit.name, now)
        holders = [lease for lease in leases if lease.held]
        waiters = [lease for lease in leases if not lease.held]
        first = [*holders[:MOST_LEASES], *waiters[:MOST_LEASES]]
        for run_id in {lease.run_id for lease in first} - names.keys():
            names[run_id] = _name_of(store, run_id)
        found.append(shown.shown_limit(limit, first, names) | {"holding": len(holders)})
    return as_json(found)


def _name_of(store: Store, run_id: str) -> str:
    try:
        return store.run(run_id).name
    except RunNotFoundError:
        return run_id[:8]


@router.get("/flows")
def flows(request: Request) -> Response:
    """List flows: how many runs they have, how often they fail, and how long the newest have taken."""
    store, counts, now = store_of(request), dict[str, dict[RunState, int]](), time.time()
    for name, state, number in store.tally(subflows=False):
        counts.setdefault(name, {})[state] = number
    return as_json([_flow(store, name, counts[name], now) for name in sorted(counts)])


def _flow(store: Store, name: str, counts: dict[RunState, int], now: float) -> dict[str, Any]:
    found = store.runs(flow_name=name, limit=3 * RECENT)
    rows = [row for row in found if row.parent_run_id is None][:RECENT] or found[:1]
    ended = sum(number for state, number in counts.items() if state in RUN_TERMINAL)
    failed = counts.get(RunState.FAILED, 0) + counts.get(RunState.CRASHED, 0)
    took = [s for row in rows if row.state is RunState.COMPLETED and (s := seconds_of(row, now)) is not None]
    return {
        "flow": name,
        "runs": sum(counts.values()),
        "last": _shown(store, rows[0]),
        "failure_rate": failed / ended if ended else None,
        "median_seconds": median(took) if took else None,
        "entrypoint": next((row.entrypoint for row in rows if row.entrypoint), None),
        "recent": [
            {
                "id": row.run_id,
                "state": row.state.title,
                "started": row.started,
                "seconds": seconds_of(row, now),
            }
            for row in rows
        ],
    }


@router.get("/workers")
def workers(request: Request) -> Response:
    """List what is running now, by the worker that does it."""
    store, found = store_of(request), list[dict[str, Any]]()
    for row in store.runs(states=frozenset({RunState.RUNNING, RunState.CANCELLING}), limit=PAGE):
        nodes = store.nodes(row.run_id)
        kinds = {node.node_id: node.kind for node in nodes}
        for one in running_now(store, row.run_id, nodes, PAGE):
            found.append(
                {
                    "worker": one.worker or row.host,
                    "host": one.worker.partition(":")[0] or row.host,
                    "run": row.run_id,
                    "run_name": row.name,
                    "task": one.task_name,
                    "node": one.node_id,
                    "index": one.index,
                    "kind": kinds[one.node_id],
                    "since": one.started,
                }
            )
    return as_json(found)
