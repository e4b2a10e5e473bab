"""Columns of integers as bytes: what a journal row keeps of `indices`, `attempts` and `positions`.

Nearly always they are a contiguous range or one value repeated, which takes 17 bytes for any length; else
an array of the narrowest type that fits. The first byte says which. Little-endian on every machine.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_RANGE = struct.Struct("<cQQ")  # start, length
_REPEAT = struct.Struct("<cQQ")  # value, length
_WIDTHS = ((1 << 8, "B"), (1 << 16, "H"), (1 << 32, "I"), (1 << 64, "Q"))
_CODES = frozenset(code.encode() for _, code in _WIDTHS)
_BIG_ENDIAN = sys.byteorder == "big"


def pack_ints(values: Sequence[int]) -> bytes:
    """Pack integers from 0 to 2**64 - 1, in their order."""
    length = len(values)
    if not length:
        return b""
    first, last = values[0], values[-1]
    if length == 1 or (isinstance(values, range) and values.step == 1):
        return _RANGE.pack(b"r", first, length)
    if last - first == length - 1 and all(map(int.__eq__, values, range(first, last + 1))):
        return _RANGE.pack(b"r", first, length)
    if first == last and values.count(first) == length:
        return _REPEAT.pack(b"*", first, length)
    top = max(values)
    code = next(code for bound, code in _WIDTHS if top < bound)
    return code.encode() + _little(array(code, values)).tobytes()


def unpack_ints(data: bytes) -> Sequence[int]:
    """Return what `pack_ints` was given, as a range or an array."""
    if not data:
        return range(0)
    code = data[:1]
    if code == b"r":
        return _range(data)
    if code == b"*":
        _, value, length = _REPEAT.unpack(data)
        return array("Q", [value] * length)
    packed: array[int] = array(code.decode())
    packed.frombytes(data[1:])
    values: array[int] = _little(packed)
    return values


@lru_cache(1024)  # the columns of single task runs are nearly all the same
def _range(data: bytes) -> range:
    _, start, length = _RANGE.unpack(data)
    return range(start, start + length)


def length_of(data: bytes) -> int:
    """Return how many integers `unpack_ints` would return: a few bytes may stand for very many."""
    if not data:
        return 0
    code = data[:1]
    if code in (b"r", b"*"):
        if len(data) != _RANGE.size:
            raise ValueError("a range of another length")
        return int(_RANGE.unpack(data)[2])
    if code not in _CODES:
        raise ValueError(f"no column begins with {code!r}")
    return (len(data) - 1) // array(code.decode()).itemsize


def pack_floats(values: Sequence[float]) -> bytes:
    return _little(values if isinstance(values, array) else array("d", values)).tobytes()


def unpack_floats(data: bytes) -> array[float]:
    packed = array("d")
    packed.frombytes(data)
    return _little(packed)


def pack_array(values: array[Any]) -> bytes:
    """Pack an array with the type of its values."""
    return values.typecode.encode() + _little(values).tobytes()


def unpack_array(data: bytes) -> array[Any]:
    """Return what `pack_array` was given.

    Raises:
        ValueError: it is cut off, or of no type that columns have.
    """
    if data[:1] not in _CODES | {b"f", b"d"}:
        raise ValueError(f"no array begins with {data[:1]!r}")
    packed: array[Any] = array(data[:1].decode())
    packed.frombytes(data[1:])
    return _little(packed)


def _little(values: array[Any]) -> array[Any]:
    if _BIG_ENDIAN and values.itemsize > 1:
        values = values[:]
        values.byteswap()
    return values
