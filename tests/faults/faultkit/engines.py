"""The runners that the faults meet, by data that can be handed to another process."""

from __future__ import annotations

from typing import Any

from runners import DaskTaskRunner, RayTaskRunner, SequentialTaskRunner, ThreadPoolTaskRunner
from runners.base import TaskRunner


def runner_of(told: dict[str, Any]) -> TaskRunner:
    """Return an unstarted runner; `{"kind": "dask", "address": ...}` and so on."""
    options = {key: value for key, value in told.items() if key != "kind"}
    match told["kind"]:
        case "sequential":
            return SequentialTaskRunner()
        case "threads":
            return ThreadPoolTaskRunner(max_workers=options.get("max_workers", 3))
        case "dask":
            return DaskTaskRunner(**options)
        case "ray":
            return RayTaskRunner(**options)
        case other:
            raise ValueError(f"no runner {other!r}")
