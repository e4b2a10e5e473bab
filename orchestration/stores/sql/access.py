"""The rows of who may use a server, and of who did what."""

from __future__ import annotations

from typing import Any

from ..audit import AuditRow
from ..tokens import USED_EVERY_SECONDS, Role, TokenRow, name_taken
from .connection import Connection
from .text import clean

_TOKEN = "token_id, name, role, digest, created, expires, last_used"
_AUDIT = "at, who, token_id, client, action, target, outcome"


def add_token(connection: Connection, token: TokenRow) -> None:
    added = connection.execute(
        f"INSERT INTO token ({_TOKEN}) VALUES (?,?,?,?,?,?,?) ON CONFLICT (name) DO NOTHING RETURNING token_id",
        (
            token.token_id,
            token.name,
            int(token.role),
            token.digest,
            token.created,
            token.expires,
            token.last_used,
        ),
    ).fetchone()
    if added is None:
        raise name_taken(token.name)


def tokens(connection: Connection) -> list[TokenRow]:
    found = connection.execute(f"SELECT {_TOKEN} FROM token ORDER BY created, token_id")
    return [_to_token(row) for row in found]


def token(connection: Connection, token_id: str) -> TokenRow | None:
    row = connection.execute(f"SELECT {_TOKEN} FROM token WHERE token_id = ?", (token_id,)).fetchone()
    return None if row is None else _to_token(row)


def remove_token(connection: Connection, token_id: str) -> bool:
    gone = connection.execute("DELETE FROM token WHERE token_id = ? RETURNING token_id", (token_id,))
    return gone.fetchone() is not None


def token_used(connection: Connection, token_id: str, now: float) -> None:
    connection.execute(
        "UPDATE token SET last_used = ? WHERE token_id = ? AND (last_used IS NULL OR last_used <= ?)",
        (now, token_id, now - USED_EVERY_SECONDS),
    )


def add_audit(connection: Connection, row: AuditRow) -> None:
    texts = (row.who, row.token_id, row.client, row.action, row.target, row.outcome)
    connection.execute(
        f"INSERT INTO audit ({_AUDIT}) VALUES (?,?,?,?,?,?,?)", (row.at, *(clean(text) for text in texts))
    )


def audit(connection: Connection, before: int | None, limit: int) -> list[AuditRow]:
    where, values = ("WHERE seq < ?", [before]) if before is not None else ("", [])
    found = connection.execute(
        f"SELECT {_AUDIT}, seq FROM audit {where} ORDER BY seq DESC LIMIT ?", [*values, limit]
    )
    return [AuditRow(*row) for row in found]


def audit_older(connection: Connection, at: float) -> int:
    (number,) = connection.execute("SELECT count(*) FROM audit WHERE at < ?", (at,)).fetchone()
    return int(number)


def prune_audit(connection: Connection, at: float) -> int:
    number = audit_older(connection, at)
    connection.execute("DELETE FROM audit WHERE at < ?", (at,))
    return number


def _to_token(row: Any) -> TokenRow:
    token_id, name, role, digest, created, expires, last_used = row
    return TokenRow(token_id, name, Role(role), digest, created, expires, last_used)
