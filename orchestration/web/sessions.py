"""Logging in and out: a browser keeps a session's secret that no script can read, and no token."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from .answers import as_json, problem
from .callers import Caller, Callers, caller_of

router = APIRouter(prefix="/api")


class Login(BaseModel):
    """A token, as `millrace token create` has printed it."""

    token: str = Field(max_length=200)


def callers_of(request: Request) -> Callers:
    callers: Callers = request.app.state.callers
    return callers


@router.get("/me")
async def me(request: Request) -> Response:
    """Tell what the caller may do."""
    return as_json(_shown(caller_of(request)))


@router.post("/login")
async def login(request: Request, given: Login) -> Response:
    """Begin a session, whose cookie stands for the token."""
    callers = callers_of(request)
    caller, secret = await callers.login(given.token.strip())
    if not secret:
        return problem(401, "TokenRefused", "This token is unknown, was revoked, or has expired.")
    request.state.caller = caller
    answer = as_json(_shown(caller))
    answer.set_cookie(
        callers.cookie, secret, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return answer


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session that the cookie is of."""
    callers = callers_of(request)
    callers.logout(request)
    answer = as_json({"role": None, "user": None})
    answer.delete_cookie(
        callers.cookie, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return answer


def _shown(caller: Caller) -> dict[str, str | None]:
    return {"role": None if caller.role is None else caller.role.word, "user": caller.name}
