"""Where runs are recorded. `open_store` finds the store that a URL names."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

from .. import settings
from ..errors import UserError

if TYPE_CHECKING:
    from .base import Store

_SUPPORTED = "`memory`, `sqlite:///path/to/file.db`, a path, `postgresql://user@host/database`, or `https://server:4280`"
_SERVERS = ("http", "https")
_open: dict[str, Store] = {}
_lock = threading.Lock()


def open_store(url: str | None = None) -> Store:
    """Return the store that a URL or path names; None: the one of the settings.

    A process has one store object per URL, so that its flow runs share one writer. It closes them when it
    exits; after `close` a store opens again when it is used.

    Raises:
        UserError: the URL names no store that there is.
        StoreError: the store cannot be used.
    """
    key = _normalized(url or settings.store_url())
    with _lock:
        store = _open.get(key)
        if store is None:
            store = _open[key] = _make(key)
        return store


def schema_versions(url: str | None = None) -> tuple[int, int]:
    """Return the version of a store's schema, 0 of an empty one, and the one that this program brings it to.

    `open_store` migrates; this leaves the store as it is.

    Raises:
        UserError: the URL names no store that keeps anything.
        StoreError: the store cannot be used.
    """
    key = _normalized(url or settings.store_url())
    if key == "memory":
        raise UserError("A store in memory has no schema.")
    if key.partition(":")[0] in _SERVERS:
        raise UserError("A server brings its store to its own version: upgrade it where it runs.")
    if key.startswith("sqlite:"):
        from .sqlite import SqliteStore

        return SqliteStore.versions(key.removeprefix("sqlite:///"))
    from .postgres import PostgresStore

    return PostgresStore.versions(key)


def _normalized(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    if url in ("memory", "memory://"):
        return "memory"
    if not colon:
        if url in (":memory:", "") or url.endswith("/"):
            raise UserError(f"Store {url!r} names no file. Supported are {_SUPPORTED}.")
        first, colon, _ = url.partition(":")
        if colon and first in ("memory", "sqlite", "postgresql", "postgres", *_SERVERS):
            raise UserError(f"Store {first}:... is a URL without its '//'. Supported are {_SUPPORTED}.")
        return f"sqlite:///{os.path.abspath(os.path.expanduser(url))}"
    if scheme == "sqlite":
        path = rest.removeprefix("/")
        if not rest.startswith("/") or path in ("", ":memory:"):
            raise UserError(f"Store {url!r} names no file. Supported are {_SUPPORTED}.")
        return f"sqlite:///{os.path.abspath(os.path.expanduser(path))}"
    if scheme in ("postgresql", "postgres"):
        return url
    if scheme in _SERVERS:
        return url.rstrip("/")
    raise UserError(f"There is no store for {scheme}://... URLs. Supported are {_SUPPORTED}.")


def _make(key: str) -> Store:
    if key == "memory":
        from .memory import MemoryStore

        return MemoryStore()
    if key.partition(":")[0] in _SERVERS:
        from .remote import RemoteStore

        return RemoteStore(key)
    if not key.startswith("sqlite:"):
        from .postgres import PostgresStore

        return PostgresStore(key)
    from .sqlite import SqliteStore

    return SqliteStore(key.removeprefix("sqlite:///"))


def _close_all() -> None:
    for store in _open.values():
        store.close()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _open.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_after_fork)

__all__ = ["open_store", "schema_versions"]
