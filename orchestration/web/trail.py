"""The audit trail: what callers did and what they were refused, written here and read here."""

from __future__ import annotations

import asyncio
import http
import logging
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runners.errors import BackendError

from ..stores.as_json import audit_json
from ..stores.audit import MAX_TEXT, AuditRow
from ..stores.served import ServedStore
from .answers import as_json
from .callers import Caller
from .rates import Rate, network_of

router = APIRouter(prefix="/api")
_log = logging.getLogger("millrace.server")


def about(request: Request, target: str, action: str = "") -> None:
    """Say what an action is done to, better than its path does; and which one it is, where the path does not tell."""
    request.state.target = target
    if action:
        request.state.action = action


class Trail:
    """The audit trail of one server. What strangers are refused fills it no faster than 1 row in 6 seconds each."""

    def __init__(self, store: ServedStore) -> None:
        self._store = store
        self._refusals = Rate(20, 1 / 6)

    async def write(self, request: Request, status: int) -> None:
        """Record an action that is about to be answered. It is done: a row that cannot be written stops nothing."""
        caller: Caller = request.state.caller
        client = address_of(request)
        noise = status in (401, 403, 429) and (caller.role is None or status == 429)
        if noise and self._refusals.take(caller.token_id or network_of(client)):
            return
        row = AuditRow(
            time.time(),
            caller.name or "",
            caller.token_id,
            client,
            request.state.action,
            request.state.target[:MAX_TEXT],
            f"{status} {http.HTTPStatus(status).phrase}",
        )
        try:
            await asyncio.to_thread(self._store.add_audit, row)
        except BackendError as error:
            _log.error("not in the audit trail: %s of %r by %r: %s", row.action, row.target, row.who, error)


def address_of(request: Request) -> str:
    return "" if request.client is None else request.client.host


@router.get("/audit")
def audit(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int | None, Query(ge=0, lt=1 << 63)] = None,
) -> Response:
    """List what was done by way of the servers on this store, and what was refused, newest first."""
    store: ServedStore = request.app.state.store
    rows = store.audit(before=cursor, limit=limit + 1)
    following = str(rows[limit - 1].seq) if len(rows) > limit else None
    return as_json({"items": [audit_json(row) for row in rows[:limit]], "next": following})
