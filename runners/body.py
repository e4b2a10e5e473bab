"""What a worker needs to know about a task: its function and the user's callables around it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .caching import CachePolicy


@dataclass(frozen=True)
class TaskBody:
    """The part of a task that travels to workers, once per worker. Equal for all items of a node.

    Attributes:
        fn: the user's function: sync, async, generator or async generator.
        run_name: template with the parameters' names in braces, or callable(parameters) -> str.
        retry_condition: callable(task, task_run, state) -> bool, asked on the worker, where the exception is.
        source: of the function, for `TASK_SOURCE`.
        storage_url: where results are written when `persist` or a cache policy asks for it.
        cache_expiration_seconds: age at which a cached result is no longer taken.
    """

    fn: Callable[..., Any]
    task_name: str
    tags: frozenset[str] = frozenset()
    run_name: str | Callable[..., str] | None = None
    log_prints: bool = False
    retry_condition: Callable[..., bool] | None = None
    cache: CachePolicy | None = None
    cache_expiration_seconds: float | None = None
    refresh_cache: bool = False
    source: str = ""
    persist: bool = False
    storage_url: str = ""
    serializer: str = "cloudpickle"

    def parameters(self, args: list[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the call's arguments by parameter name, defaults included."""
        bound = inspect.signature(self.fn).bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def render_name(self, args: list[Any], kwargs: Mapping[str, Any]) -> str | None:
        """Return the task run's name, or None where the task has no `task_run_name`."""
        if self.run_name is None:
            return None
        parameters = self.parameters(args, kwargs)
        if isinstance(self.run_name, str):
            return self.run_name.format(**parameters)
        return called_name(self.run_name, parameters)


def called_name(fn: Callable[..., str], parameters: Mapping[str, Any]) -> str:
    """Return the name that a user's function gives a run. It may take the parameters, or nothing."""
    takes = inspect.signature(fn).parameters
    if "parameters" in takes:
        return str(fn(parameters=parameters))
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = any(p.kind in positional and p.default is p.empty for p in takes.values())
    return str(fn(parameters) if wanted else fn())
