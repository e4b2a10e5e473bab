"""Wrappers that say how an argument is to be taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Annotation:
    """Wraps an argument. No dataclass: futures are looked for in dataclasses."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(Annotation):
    """In `map`: the same value for every item, even if it is a list."""

    __slots__ = ()


class quote(Annotation):
    """Hand the value over as it is: futures inside are not looked for."""

    __slots__ = ()


class allow_failure(Annotation):
    """Run even if this upstream fails; its exception arrives in the place of its result."""

    __slots__ = ()


current_tags: ContextVar[frozenset[str]] = ContextVar("millrace_tags", default=frozenset())


@contextmanager
def tags(*names: str) -> Iterator[frozenset[str]]:
    """Add tags to the flow runs and task runs that are started inside the block."""
    token = current_tags.set(current_tags.get() | set(names))
    try:
        yield current_tags.get()
    finally:
        current_tags.reset(token)
