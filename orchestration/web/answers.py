"""Answers as bytes, and errors as answers that say what to do."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from runners.errors import BackendError, UserError

from ..errors import RunAliveError, RunNotFoundError, RunNotResumableError, StoreError


def as_json(value: Any, status: int = 200) -> Response:
    """Return an answer; written here and not by way of models, which cost more than the records."""
    body = json.dumps(value, separators=(",", ":"), default=str).encode()
    return Response(body, status, media_type="application/json", headers={"Cache-Control": "no-store"})


def problem(status: int, kind: str, message: str) -> Response:
    """Return an error: `{"error": {"type": ..., "message": ...}}`."""
    return as_json({"error": {"type": kind, "message": message}}, status)


async def only_known_parameters(request: Request) -> None:
    """Refuse what the route does not know: a filter that is misspelt would be a list of everything.

    Raises:
        HTTPException: of status 422, with the names that are known.
    """
    if not request.query_params:
        return
    described = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    known = {one["name"] for one in described.get("parameters", ()) if one["in"] == "query"}
    unknown = sorted(request.query_params.keys() - known)
    if unknown:
        names = ", ".join(sorted(known)) or "none"
        raise HTTPException(422, f"There is no parameter {unknown[0]!r} here; known: {names}.")


def answer_errors(app: FastAPI) -> None:
    """Have what endpoints raise answered with the status that it means."""

    def not_found(_: Request, error: Exception) -> Response:
        return problem(404, "RunNotFoundError", str(error))

    def user(_: Request, error: Exception) -> Response:
        crossed = isinstance(error, RunAliveError | RunNotResumableError)  # with what has become of the run
        return problem(409 if crossed else 422, type(error).__name__, str(error))

    def store(_: Request, error: Exception) -> Response:
        return problem(503, type(error).__name__, str(error))

    def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return problem(422, "InvalidRequest", told)

    def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, "HTTPError", str(error.detail))

    app.add_exception_handler(RunNotFoundError, not_found)
    app.add_exception_handler(StoreError, store)
    app.add_exception_handler(BackendError, store)
    app.add_exception_handler(UserError, user)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
