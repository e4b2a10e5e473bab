"""Task runners: where batches of task runs are executed. See `runners.base` for the port.

Each is imported when its name is first used: a flow pays for the engine that it runs on.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import TaskRunner
    from .dask import DaskTaskRunner, get_dask_client
    from .ray import RayTaskRunner, remote_options
    from .sequential import SequentialTaskRunner
    from .threads import ThreadPoolTaskRunner

__all__ = [
    "DaskTaskRunner",
    "RayTaskRunner",
    "SequentialTaskRunner",
    "TaskRunner",
    "ThreadPoolTaskRunner",
    "get_dask_client",
    "remote_options",
]

_LAZY = {
    "TaskRunner": ".base",
    "SequentialTaskRunner": ".sequential",
    "ThreadPoolTaskRunner": ".threads",
    "DaskTaskRunner": ".dask",
    "get_dask_client": ".dask",
    "RayTaskRunner": ".ray",
    "remote_options": ".ray",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
