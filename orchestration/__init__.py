"""Millrace: flows and tasks with a durable record, on threads, Dask or Ray.

Names are loaded when they are first used, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runners.caching import (
        FLOW_PARAMETERS,
        INPUTS,
        NO_CACHE,
        RUN_ID,
        TASK_SOURCE,
        task_input_hash,
    )
    from runners.errors import Fail, Retry, Skip

    from .api import runtime
    from .api.annotations import allow_failure, quote, tags, unmapped
    from .api.concurrency import concurrency, rate_limit
    from .api.flows import Flow, flow
    from .api.futures import TaskRunFuture, TaskRunFutureList, as_completed, wait
    from .api.runtime import get_run_logger
    from .api.states import State
    from .api.subscriptions import subscribe
    from .api.tasks import Task, task
    from .core.retry import exponential_backoff
    from .core.triggers import (
        all_failed,
        all_finished,
        all_successful,
        any_failed,
        any_successful,
        not_all_skipped,
        some_successful,
    )

__version__ = "0.1.0"

_WHERE = {
    "api.annotations": ("allow_failure", "quote", "tags", "unmapped"),
    "api.concurrency": ("concurrency", "rate_limit"),
    "api.flows": ("Flow", "flow"),
    "api.futures": ("TaskRunFuture", "TaskRunFutureList", "as_completed", "wait"),
    "api.runtime": ("get_run_logger",),
    "api.states": ("State",),
    "api.subscriptions": ("subscribe",),
    "api.tasks": ("Task", "task"),
    "core.retry": ("exponential_backoff",),
    "core.triggers": (
        "all_failed",
        "all_finished",
        "all_successful",
        "any_failed",
        "any_successful",
        "not_all_skipped",
        "some_successful",
    ),
}
_LAZY = {name: f".{module}" for module, names in _WHERE.items() for name in names}
_FROM_RUNNERS = {
    "FLOW_PARAMETERS": "runners.caching",
    "INPUTS": "runners.caching",
    "NO_CACHE": "runners.caching",
    "RUN_ID": "runners.caching",
    "TASK_SOURCE": "runners.caching",
    "task_input_hash": "runners.caching",
    "Fail": "runners.errors",
    "Retry": "runners.errors",
    "Skip": "runners.errors",
}

__all__ = [
    "FLOW_PARAMETERS",
    "INPUTS",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "Fail",
    "Flow",
    "Retry",
    "Skip",
    "State",
    "Task",
    "TaskRunFuture",
    "TaskRunFutureList",
    "__version__",
    "all_failed",
    "all_finished",
    "all_successful",
    "allow_failure",
    "any_failed",
    "any_successful",
    "as_completed",
    "concurrency",
    "exponential_backoff",
    "flow",
    "get_run_logger",
    "not_all_skipped",
    "quote",
    "rate_limit",
    "runtime",
    "some_successful",
    "subscribe",
    "tags",
    "task",
    "task_input_hash",
    "unmapped",
    "wait",
]


def __getattr__(name: str) -> Any:
    if name == "runtime":
        return import_module(".api.runtime", __name__)
    if name in _LAZY:
        value = getattr(import_module(_LAZY[name], __name__), name)
    elif name in _FROM_RUNNERS:
        value = getattr(import_module(_FROM_RUNNERS[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
