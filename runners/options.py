"""Runner options that hold for all task submissions within a `with` block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, Any] = MappingProxyType({})

# Read where a task is submitted; a task's own `runner_options` go before these.
ambient_options: ContextVar[Mapping[str, Any]] = ContextVar("millrace_runner_options", default=_NONE)


@contextmanager
def using_options(options: Mapping[str, Any]) -> Iterator[None]:
    """Give submissions in the block these runner options; inner blocks go before outer ones."""
    token = ambient_options.set(MappingProxyType({**ambient_options.get(), **options}))
    try:
        yield
    finally:
        ambient_options.reset(token)
