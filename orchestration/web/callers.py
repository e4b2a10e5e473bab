"""Who calls: tokens and sessions, compared in constant time, looked up at most every two seconds each."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from dataclasses import dataclass, replace

from starlette.requests import Request

from runners.errors import BackendError

from ..stores.served import ServedStore
from ..stores.tokens import USED_EVERY_SECONDS, Role, TokenRow, split
from .asking import Question

KNOWN_SECONDS = 2.0  # for so long a token that was found is not looked up again, nor missed
ANSWER_SECONDS = 1.0
SESSION_SECONDS = 12 * 3600.0
MOST_SESSIONS = 10_000  # beyond them the oldest end


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        role: None: nobody that is known.
        name: of the token; None where none is needed.
        session: the digest of its secret; "" of a caller that has sent the token itself.
        refused: a token came with the request, and is none.
    """

    role: Role | None
    name: str | None = None
    token_id: str = ""
    session: str = ""
    refused: bool = False

    def may(self, role: Role | None) -> bool:
        return role is None or (self.role is not None and self.role >= role)


ANYBODY = Caller(Role.ADMIN)  # where no token is needed
NOBODY = Caller(None)
REFUSED = Caller(None, refused=True)


def caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


class Callers:
    """Knows callers by what they send with a request. For the event loop's thread only.

    Args:
        needed: a token is needed also while the store has none.
        cookie: the name of the sessions' cookie.
    """

    def __init__(self, store: ServedStore, *, needed: bool, cookie: str) -> None:
        self.cookie = cookie
        self._store = store
        self._needed = needed
        self._looked = 0.0
        self._answered = False
        self._question = Question(store.tokens)
        self._known: dict[str, tuple[TokenRow, float]] = {}
        self._sessions: dict[
            str, tuple[str, float]
        ] = {}  # digest of its secret: (token id, end), oldest first

    async def of(self, request: Request) -> Caller:
        """Return who sends a request.

        Raises:
            BackendError: the store cannot be asked.
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme:
            row = await self._by_token(given.strip()) if scheme.lower() == "bearer" else None
            return REFUSED if row is None else _caller(row)
        session = _digest(request.cookies.get(self.cookie, ""))
        row = await self._by_session(session)
        if row is not None:
            return replace(_caller(row), session=session)
        return NOBODY if await self._is_needed() else ANYBODY

    async def still(self, caller: Caller) -> bool:
        """Tell whether a caller of a while ago would still be let in."""
        if not caller.token_id:
            return not await self._is_needed()
        row = self._by_session(caller.session) if caller.session else self._row(caller.token_id)
        return await row is not None

    async def login(self, token: str) -> tuple[Caller, str]:
        """Return who has this token, and the secret of a new session; of nobody it is empty."""
        row = await self._by_token(token)
        if row is None:
            return REFUSED, ""
        secret = secrets.token_urlsafe(32)
        self._sessions[_digest(secret)] = (row.token_id, time.time() + SESSION_SECONDS)
        while len(self._sessions) > MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return _caller(row), secret

    def logout(self, request: Request) -> None:
        """End the session that a request is of."""
        self._sessions.pop(_digest(request.cookies.get(self.cookie, "")), None)

    async def _is_needed(self) -> bool:
        """Tell whether a token is needed. Once it was it stays so, though the last one may expire or be revoked."""
        now = time.monotonic()
        if not self._needed and now - self._looked > KNOWN_SECONDS:
            # A database that is away is waited for by its store; who has answered before need not be.
            asked = await self._question.answer(ANSWER_SECONDS if self._answered else None)
            if asked is not None:
                with contextlib.suppress(BackendError):  # what cannot be read says nothing new
                    self._needed = bool(asked.result())
                    self._answered = True
            self._looked = now
        return self._needed

    async def _by_token(self, token: str) -> TokenRow | None:
        parts = split(token)
        if parts is None:
            return None
        row = await self._row(parts[0])
        return row if row is not None and row.fits(parts[1]) else None

    async def _by_session(self, session: str) -> TokenRow | None:
        token_id, end = self._sessions.get(session, ("", 0.0))
        return await self._row(token_id) if time.time() < end else None

    async def _row(self, token_id: str) -> TokenRow | None:
        row, until = self._known.get(token_id, (None, 0.0))
        if time.monotonic() >= until:
            row = await asyncio.to_thread(self._store.token, token_id)
            if row is None:
                self._known.pop(token_id, None)
            else:
                self._known[token_id] = (row, time.monotonic() + KNOWN_SECONDS)
        return row if row is not None and row.is_valid(time.time()) else None

    async def used(self, caller: Caller) -> None:
        """Note that a token was used, at most once a minute."""
        row, until = self._known.get(caller.token_id, (None, 0.0))
        now = time.time()
        if row is not None and now - (row.last_used or 0.0) >= USED_EVERY_SECONDS:
            self._known[row.token_id] = (replace(row, last_used=now), until)
            with contextlib.suppress(BackendError):  # who may only read the store can still serve it
                await asyncio.to_thread(self._store.token_used, row.token_id, now)


def _caller(row: TokenRow) -> Caller:
    return Caller(row.role, row.name, row.token_id)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
