"""The SQLite store: one file, many processes, no server."""

from __future__ import annotations

from .store import SqliteStore

__all__ = ["SqliteStore"]
