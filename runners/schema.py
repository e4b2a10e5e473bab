"""What control messages may contain. They come from workers, so nothing about them is taken for granted.

Checked once per message, and per entry of its sparse parts; columns are checked as a whole.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from .messages import Outcome

MAX_BYTES = 512 << 20  # of a message: far more than the logs and tracebacks of a full batch
MAX_ENTRIES = 1 << 20  # of a table: a batch has up to 10,000 items of up to 16 stages
MAX_ID = 1 << 53

_VALID_OUTCOMES = bytes(Outcome)
_NUMBER = (float, int)
_TEXT_OR_NONE = (str, type(None))

STARTED = (int, str, str, _NUMBER)
PROGRESS = (int, str, str, int, _NUMBER, bytes, dict, list, bool)
CALL = (str, int, str, int, str, bytes)
TABLE = (
    int, str, str, _NUMBER, bytes, bytes, bytes, dict, dict, list, list, dict, _NUMBER, int, int, list,
    list, bytes,
)  # fmt: skip
DETAIL = (str, str, str, (bytes, type(None)), (float, int, type(None)), bool, bool)
LINE = (int, int, int, _NUMBER, int, str, str)
STORED = (str, str)


def fields(body: Any, kinds: Sequence[Any], what: str) -> Sequence[Any]:
    """Return the fields of a message or a part of it.

    Raises:
        ValueError: they are not of the kinds that they have to be.
    """
    if type(body) is not list or len(body) != len(kinds):
        raise ValueError(f"{what} has not {len(kinds)} fields")
    for at, (value, kind) in enumerate(zip(body, kinds, strict=True)):
        if not isinstance(value, kind):
            raise ValueError(f"field {at} of {what} is a {type(value).__name__}")
        if type(value) is float and not math.isfinite(value):
            raise ValueError(f"field {at} of {what} is {value}")
        if type(value) is int and not -MAX_ID < value < MAX_ID:
            raise ValueError(f"field {at} of {what} is out of bounds")
    return body


def sparse(part: Mapping[Any, Any], entries: int, kind: type, what: str) -> Mapping[int, Any]:
    """Return what a message says of some of its entries."""
    for entry, value in part.items():
        if type(entry) is not int or not 0 <= entry < entries:
            raise ValueError(f"{what} of an entry that is not there")
        if type(value) is not kind:
            raise ValueError(f"{what} is a {type(value).__name__}")
    return part


def column(data: bytes, entries: int) -> array[float]:
    """Return a column of seconds."""
    found = array("d")
    found.frombytes(data)
    if len(found) != entries:
        raise ValueError("the columns of a table differ in length")
    if not math.isfinite(sum(found)):
        raise ValueError("a column of a table has numbers without bounds")
    return found


def outcomes(data: bytes) -> bytes:
    """Return a column of outcomes."""
    if len(data) > MAX_ENTRIES:
        raise ValueError(f"a message of {len(data)} entries")
    unknown = data.translate(None, _VALID_OUTCOMES)
    if unknown:
        raise ValueError(f"an item ended in {unknown[0]}, which is no outcome")
    return data
