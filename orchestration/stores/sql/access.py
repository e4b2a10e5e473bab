"""The rows of who may use a server."""

from __future__ import annotations

from typing import Any

from ..tokens import USED_EVERY_SECONDS, Role, TokenRow, name_taken
from .connection import Connection

_TOKEN = "token_id, name, role, digest, created, expires, last_used"


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


def _to_token(row: Any) -> TokenRow:
    token_id, name, role, digest, created, expires, last_used = row
    return TokenRow(token_id, name, Role(role), digest, created, expires, last_used)
