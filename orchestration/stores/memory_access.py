"""Who may use a server and who did what, in memory: for servers of tests, whose store ends with them."""

from __future__ import annotations

import threading
from dataclasses import replace

from .audit import AuditRow
from .served import ServedStore
from .tokens import USED_EVERY_SECONDS, TokenRow, name_taken


class MemoryAccess(ServedStore):
    """The part of MemoryStore that is about who may use it."""

    def __init__(self) -> None:
        self._access_lock = threading.Lock()
        self._tokens: dict[str, TokenRow] = {}
        self._audit: list[AuditRow] = []
        self._audit_seq = 0

    def add_token(self, token: TokenRow) -> None:
        with self._access_lock:
            if any(one.name == token.name for one in self._tokens.values()):
                raise name_taken(token.name)
            self._tokens[token.token_id] = token

    def tokens(self) -> list[TokenRow]:
        with self._access_lock:
            return sorted(self._tokens.values(), key=lambda one: (one.created, one.token_id))

    def token(self, token_id: str) -> TokenRow | None:
        return self._tokens.get(token_id)

    def remove_token(self, token_id: str) -> bool:
        with self._access_lock:
            return self._tokens.pop(token_id, None) is not None

    def token_used(self, token_id: str, now: float) -> None:
        with self._access_lock:
            token = self._tokens.get(token_id)
            if token is not None and (token.last_used or 0.0) <= now - USED_EVERY_SECONDS:
                self._tokens[token_id] = replace(token, last_used=now)

    def add_audit(self, row: AuditRow) -> None:
        with self._access_lock:
            self._audit_seq += 1
            self._audit.append(replace(row, seq=self._audit_seq))

    def audit(self, *, before: int | None = None, limit: int = 100) -> list[AuditRow]:
        with self._access_lock:
            found = [row for row in reversed(self._audit) if before is None or row.seq < before]
        return found[:limit]

    def audit_older(self, at: float) -> int:
        with self._access_lock:
            return sum(row.at < at for row in self._audit)

    def prune_audit(self, at: float) -> int:
        with self._access_lock:
            staying = [row for row in self._audit if row.at >= at]
            gone, self._audit = len(self._audit) - len(staying), staying
        return gone
