"""What every request passes first: is it for this server, who sends it, what may that one do. And what browsers may do
with the answer."""

from __future__ import annotations

import logging
import math
import re
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runners.errors import BackendError

from ..stores.tokens import Role
from ..stores.wire.port import MAX_REQUEST_BYTES
from .answers import problem
from .callers import NOBODY, Caller, Callers
from .options import LOOPBACK, Options
from .rates import Rate, network_of
from .roles import LOGIN, Rule, rules_of
from .trail import Trail, address_of

MUTATION_HEADER = "millrace-request"  # a page of another site cannot set it
MAX_BODY = 1 << 20
STORE_PATH = "/api/store/"  # where whole turns of runs arrive
# Of a secret of 256 bits nothing can be guessed: this bounds what guessing costs the server and writes to its record.
FAILURES_AT_ONCE, FAILURES_PER_SECOND = 10, 1 / 6
ACTIONS_AT_ONCE, ACTIONS_PER_SECOND = 60, 2.0
SAFE = ("GET", "HEAD", "OPTIONS")
_log = logging.getLogger("millrace.server")
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

    def __init__(self, app: ASGIApp, callers: Callers, trail: Trail, options: Options) -> None:
        self._app = app
        self._callers = callers
        self._trail = trail
        self._options = options
        self._logins = Rate(FAILURES_AT_ONCE, FAILURES_PER_SECOND)  # that have failed, by client
        self._failures = Rate(FAILURES_AT_ONCE, FAILURES_PER_SECOND)  # of requests, by client
        self._actions = Rate(ACTIONS_AT_ONCE, ACTIONS_PER_SECOND)  # by token, or client where none is needed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        rules, target = rules_of(request.url.path)
        rule = rules.get(request.method)
        request.state.caller, request.state.target = NOBODY, target
        request.state.action = "" if rule is None else rule.action

        began = False

        async def guarded(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                message["headers"] = [*message["headers"], *HEADERS, *_https_only(request)]
                if rule is LOGIN and message["status"] == 401:
                    self._logins.take(network_of(address_of(request)))
                if request.state.action:
                    await self._trail.write(request, message["status"])
            await send(message)

        refused = (
            _misdirected(request, self._options)
            or _forged(request)
            or _large(request)
            or _unreadable(request)
        )
        if refused is None and is_api(request.url.path):
            try:
                refused = await self._refusal(request, rules, rule)
            except BackendError as error:
                refused = problem(503, type(error).__name__, "The server cannot reach its store.")
                _log.error("nobody can be let in: %s", error)
        try:
            await (refused or self._app)(scope, receive, guarded)
        except Exception:
            if began:
                raise
            _log.exception("%s %s could not be answered", request.method, request.url.path)
            broken = problem(500, "InternalError", "This is a defect of the server; its log says more.")
            await broken(scope, receive, guarded)

    async def _refusal(self, request: Request, rules: dict[str, Rule], rule: Rule | None) -> Response | None:
        """Return why the sender of a request gets no other answer, or None."""
        caller = request.state.caller = await self._callers.of(request)
        path, client = request.url.path, network_of(address_of(request))
        needed = rule.role if rule is not None else Role.READ
        if caller.role is None and needed is not None:
            if (caller.refused or request.method not in SAFE) and (wait := self._failures.take(client)):
                return _too_many("failed attempts to get in", wait)
            return _unknown(caller, needed)
        if rule is None:
            return _no_such(path, rules, request.method)
        if not caller.may(rule.role):
            return _too_small(request, caller, rule)
        if rule is LOGIN and (wait := self._logins.wait(client)):
            return _too_many("failed attempts to log in", wait)
        if rule.action and rule.role is not None and (wait := self._actions.take(caller.token_id or client)):
            return _too_many("actions", wait)
        if caller.token_id:
            await self._callers.used(caller)
        return None


def _https_only(request: Request) -> list[tuple[bytes, bytes]]:
    """Have browsers ask by https from now on; not for localhost, whose other ports may be http."""
    if request.url.scheme != "https" or request.url.hostname in LOOPBACK:
        return []
    return [(b"strict-transport-security", b"max-age=31536000")]


def is_api(path: str) -> bool:
    return path == "/api" or path.startswith("/api/")


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


def _unreadable(request: Request) -> Response | None:
    """Refuse NUL: no name has it, and neither PostgreSQL nor a file system takes it."""
    if "\0" in request.url.path or b"%00" in request.scope["query_string"]:
        return problem(422, "InvalidRequest", "An address has no NUL character (%00).")
    return None


def _no_such(path: str, rules: dict[str, Rule], method: str) -> Response:
    if not rules:
        return problem(404, "HTTPError", f"There is no {path}. See /api/openapi.json.")
    allowed = ", ".join(rules)
    found = problem(405, "HTTPError", f"{path} takes {allowed}, not {method}.")
    found.headers["Allow"] = allowed
    return found


def _too_small(request: Request, caller: Caller, rule: Rule) -> Response:
    assert rule.role is not None
    assert caller.role is not None
    return problem(
        403,
        "RoleTooSmall",
        f"{request.method} {request.url.path} needs the role {rule.role.word}; the token {caller.name!r} has "
        f"{caller.role.word}.",
    )


def _unknown(caller: Caller, needed: Role) -> Response:
    cure = f"Whoever may open its store makes one: millrace token create NAME --role {needed.word}"
    if caller.refused:
        found = problem(401, "TokenRefused", f"This token is unknown, was revoked, or has expired. {cure}")
    else:
        found = problem(
            401, "TokenMissing", f"This server wants a token (Authorization: Bearer TOKEN). {cure}"
        )
    found.headers["WWW-Authenticate"] = "Bearer"
    return found


def _too_many(what: str, wait: float) -> Response:
    seconds = math.ceil(wait)
    found = problem(429, "TooMany", f"Too many {what}. Try again in {seconds} s.")
    found.headers["Retry-After"] = str(seconds)
    return found
