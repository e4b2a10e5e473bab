"""The PostgreSQL store: one server, processes of many machines. Needs the extra `postgres`."""

from __future__ import annotations

from runners.errors import MissingExtraError

try:
    from .store import PostgresStore
except ModuleNotFoundError as error:
    if error.name != "psycopg":
        raise
    raise MissingExtraError("psycopg", "postgres") from error

__all__ = ["PostgresStore"]
