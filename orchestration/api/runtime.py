"""`runtime.flow_run` and `runtime.task_run`: what runs here, seen from inside. And the run's logger."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from runners.capture import TASK_LOGGER
from runners.context import RunContext, current_item

from ..errors import UserError

FLOW_LOGGER = "millrace.flow_runs"

# The run whose flow function runs here; task runs have theirs in `current_item`.
current_run: ContextVar[RunContext | None] = ContextVar("millrace_run", default=None)


class _FlowRun:
    """The flow run that the calling code is part of; every attribute is None outside of one."""

    @property
    def id(self) -> str | None:
        found: str | None = _of_run("run_id")
        return found

    @property
    def name(self) -> str | None:
        found: str | None = _of_run("name")
        return found

    @property
    def flow_name(self) -> str | None:
        found: str | None = _of_run("flow_name")
        return found

    @property
    def parameters(self) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = _of_run("parameters")
        return found

    @property
    def tags(self) -> frozenset[str] | None:
        found: frozenset[str] | None = _of_run("tags")
        return found

    @property
    def parent_id(self) -> str | None:
        found: str | None = _of_run("parent_run_id")
        return found

    @property
    def started(self) -> float | None:
        """Seconds since the epoch."""
        found: float | None = _of_run("started")
        return found


class _TaskRun:
    """The task run that the calling code is part of; every attribute is None outside of one."""

    @property
    def id(self) -> str | None:
        found: str | None = _of_item("task_run_id")
        return found

    @property
    def name(self) -> str | None:
        found: str | None = _of_item("name")
        return found

    @property
    def task_name(self) -> str | None:
        item = current_item.get()
        return None if item is None else item.body.task_name

    @property
    def index(self) -> int | None:
        """Position in its map; 0 for a single task run."""
        found: int | None = _of_item("index")
        return found

    @property
    def attempt(self) -> int | None:
        """Number of this attempt, from 1."""
        found: int | None = _of_item("attempt")
        return found

    @property
    def execution_id(self) -> str | None:
        found: str | None = _of_item("execution_id")
        return found

    @property
    def tags(self) -> frozenset[str] | None:
        item = current_item.get()
        return None if item is None else item.body.tags

    @property
    def parameters(self) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = _of_item("parameters")
        return found


flow_run = _FlowRun()
task_run = _TaskRun()


def get_run_logger() -> logging.Logger:
    """Return a logger whose lines belong to the task run or flow run that the calling code is part of.

    Raises:
        UserError: neither a task nor a flow runs here.
    """
    if current_item.get() is not None:
        return logging.getLogger(TASK_LOGGER)
    if current_run.get() is not None:
        return logging.getLogger(FLOW_LOGGER)
    raise UserError(
        "get_run_logger() was called where neither a task nor a flow runs. Use logging.getLogger(__name__) there."
    )


def _of_run(name: str) -> Any:
    item = current_item.get()
    run = item.run if item is not None else current_run.get()
    return None if run is None else getattr(run, name)


def _of_item(name: str) -> Any:
    item = current_item.get()
    return None if item is None else getattr(item, name)
