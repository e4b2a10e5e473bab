"""The store of processes that cannot reach the database: a server keeps it. Needs the extra `remote`."""

from __future__ import annotations

from runners.errors import MissingExtraError

try:
    from .store import RemoteStore
except ModuleNotFoundError as error:
    if error.name != "urllib3":
        raise
    raise MissingExtraError("urllib3", "remote") from error

__all__ = ["RemoteStore"]
