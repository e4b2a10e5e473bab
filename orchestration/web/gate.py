"""What every request passes first: is it for this server, who sends it, what may that one do. And what browsers may do
with the answer."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runners.errors import BackendError

from ..stores.tokens import Role
from ..stores.wire.port import MAX_REQUEST_BYTES
from .answers import problem
from .callers import Caller, Callers
from .options import Options
from .roles import Rule, rules_of

MUTATION_HEADER = "millrace-request"  # a page of another site cannot set it
MAX_BODY = 1 << 20
STORE_PATH = "/api/store/"  # where whole turns of runs arrive
SAFE = ("GET", "HEAD", "OPTIONS")
_PORT = re.compile(r":\d+$")

HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        b"form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]


class Gate:
    """Lets through what may pass, with its caller in the request's state, and answers the rest itself."""

    def __init__(self, app: ASGIApp, callers: Callers, options: Options) -> None:
        self._app = app
        self._callers = callers
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        try:
            refused = await self._refusal(Request(scope))
        except BackendError as error:
            refused = problem(503, type(error).__name__, str(error))
        await (refused or self._app)(scope, receive, guarded)

    async def _refusal(self, request: Request) -> Response | None:
        """Return why a request is not answered, or None."""
        path = request.url.path
        refused = _misdirected(request, self._options) or _forged(request) or _large(request)
        if refused is not None or not (path == "/api" or path.startswith("/api/")):
            return refused
        caller = request.state.caller = await self._callers.of(request)
        rules = rules_of(path)
        if rules is None:
            return _unknown_to(caller) or problem(
                404, "HTTPError", f"There is no {path}. See /api/openapi.json."
            )
        rule = rules.get(request.method)
        if rule is None:
            allowed = ", ".join(rules)
            refused = problem(405, "HTTPError", f"{path} takes {allowed}, not {request.method}.")
            refused.headers["Allow"] = allowed
            return refused
        refused = _not_allowed(request, caller, rule)
        if refused is None and caller.token_id:
            await self._callers.used(caller)
        return refused


def _misdirected(request: Request, options: Options) -> Response | None:
    host = _PORT.sub("", request.headers.get("host", ""))
    if options.answers_to(host):
        return None
    return problem(
        403,
        "WrongHost",
        f"This server does not answer to the host {host!r}. If it is one of its names, start it with --name {host!r}.",
    )


def _forged(request: Request) -> Response | None:
    """Refuse what a page of another site may have sent in the name of its viewer."""
    if request.method in SAFE:
        return None
    headers = request.headers
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
    if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return problem(
            403, "WrongOrigin", f"A page of another site ({origin}) cannot change anything on this server."
        )
    if MUTATION_HEADER not in headers and "authorization" not in headers:
        return problem(
            403,
            "MissingHeader",
            "Requests that change something need the header Millrace-Request: 1, or Authorization: Bearer TOKEN.",
        )
    return None


def _large(request: Request) -> Response | None:
    length = request.headers.get("content-length", "0")
    most = MAX_REQUEST_BYTES if request.url.path.startswith(STORE_PATH) else MAX_BODY
    if request.headers.get("transfer-encoding") or not length.isdigit() or int(length) > most:
        return problem(413, "TooLarge", f"A request's body is at most {most} bytes, with its length said.")
    return None


def _not_allowed(request: Request, caller: Caller, rule: Rule) -> Response | None:
    if caller.may(rule.role):
        return None
    assert rule.role is not None
    if caller.role is None:
        return _unknown_to(caller, rule.role)
    return problem(
        403,
        "RoleTooSmall",
        f"{request.method} {request.url.path} needs the role {rule.role.word}; the token {caller.name!r} has "
        f"{caller.role.word}.",
    )


def _unknown_to(caller: Caller, needed: Role = Role.READ) -> Response | None:
    """Return the answer to somebody who is not known."""
    if caller.role is not None:
        return None
    cure = f"Whoever may open its store makes one: millrace token create NAME --role {needed.word}"
    if caller.refused:
        found = problem(401, "TokenRefused", f"This token is unknown, was revoked, or has expired. {cure}")
    else:
        found = problem(
            401, "TokenMissing", f"This server wants a token: Authorization: Bearer TOKEN. {cure}"
        )
    found.headers["WWW-Authenticate"] = "Bearer"
    return found
