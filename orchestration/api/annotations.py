"""Wrappers that say how an argument is to be taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class unmapped:
    """In `map`: the same value for every item, even if it is a list."""

    value: Any


@dataclass(frozen=True, slots=True)
class quote:
    """Hand the value over as it is: futures inside are not looked for."""

    value: Any


@dataclass(frozen=True, slots=True)
class allow_failure:
    """Run even if this upstream fails; its exception arrives in the place of its result."""

    value: Any


current_tags: ContextVar[frozenset[str]] = ContextVar("millrace_tags", default=frozenset())


@contextmanager
def tags(*names: str) -> Iterator[frozenset[str]]:
    """Add tags to the flow runs and task runs that are started inside the block."""
    token = current_tags.set(current_tags.get() | set(names))
    try:
        yield current_tags.get()
    finally:
        current_tags.reset(token)
