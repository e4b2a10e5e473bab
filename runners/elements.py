"""Results that a later task may be mapped over: how long they are, and what is at a position.

They are those that every process reads in one order: sequences, arrays and series. Not sets, whose order differs from
process to process; not mappings and frames, of which it is not plain what their items are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TEXTS = (str, bytes, bytearray, memoryview)
NEVER = frozenset(  # types that are no such results, told apart quickly
    {int, float, str, bytes, bool, type(None), complex, bytearray, dict, set, frozenset}
)


def length(value: Any) -> int | None:
    """Return how many items a result has to map over; None: it has none."""
    kind = type(value)
    if kind in NEVER:
        return None
    try:
        if isinstance(value, Sequence):
            return None if isinstance(value, TEXTS) else len(value)
        array = hasattr(kind, "__array__") and hasattr(kind, "__len__")
        return len(value) if array and not hasattr(kind, "columns") else None
    except Exception:  # an array without dimensions, or a user's `__len__`
        return None


def element(value: Any, position: int) -> Any:
    """Return the item at a position, as iterating gives it: a series looks numbers up in its index."""
    if hasattr(type(value), "iloc"):
        return next(iter(value.iloc[position : position + 1]))
    return value[position]
