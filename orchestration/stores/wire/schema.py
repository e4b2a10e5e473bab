"""Values of the port as plain ones that msgpack takes, by their declared types, and back with every type checked.

A dataclass travels as the list of its fields, a union of dataclasses with the place of its kind in front. Columns
of integers are packed as in the journal. Nothing here can name code, so reading cannot run any.

Fields at the end that have defaults may be missing: an earlier version, which lacked them, has left transactions in a
buffer that this one sends.
"""

from __future__ import annotations

import json
import struct
import types
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import IntEnum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..base import NodeRow
from ..columns import length_of, pack_array, pack_ints, unpack_array, unpack_ints
from ..sql.text import plain

MAX_COLUMN = 1 << 24  # integers in one column: a range of any length takes 17 bytes


class _Array:
    """Stands for `array[...]`, which before Python 3.12 is for the type checker only."""

    def __class_getitem__(cls, item: Any) -> type[_Array]:
        return cls


_UNNAMED = {"NodeRow": NodeRow, "array": _Array}  # names in hints that do not work when they are evaluated


class WireError(ValueError):
    """What was received does not have the form that was agreed upon."""


@dataclass(frozen=True, slots=True)
class Form:
    """How values of one type travel.

    Attributes:
        text: the type in words; the same for equal forms, so that a change of the port shows.
    """

    text: str
    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


@cache
def form_of(kind: Any) -> Form:
    """Return how values of a type travel.

    Raises:
        TypeError: the type is none that the port uses.
    """
    if kind in _SCALARS:
        return _SCALARS[kind]
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return Form(f"{kind.__name__}{len(kind)}", int, _enum(kind))
    if is_dataclass(kind):
        return _record(kind)
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(inside)
    if origin is Sequence and inside == (int,):
        return Form("ints", _pack_ints, _ints)
    if origin is tuple and inside[-1:] != (...,):
        return _tuple([form_of(one) for one in inside])
    if origin in (list, tuple, Sequence):
        return _many(form_of(inside[0]), tuple if origin is tuple else list, "many")
    if origin is frozenset:
        return _many(form_of(inside[0]), frozenset, "set")
    if origin in (dict, Mapping):
        if inside == (str, Any):
            return Form("json", plain, _json)
        return _map(form_of(inside[0]), form_of(inside[1]))
    raise TypeError(f"{kind} cannot travel")


def hints_of(thing: Any) -> dict[str, Any]:
    return get_type_hints(thing, localns=_UNNAMED)


def _same(value: Any) -> Any:
    return value


def _exactly(kind: type) -> Form:
    def unpack(value: Any) -> Any:
        if type(value) is not kind:
            raise WireError(f"{kind.__name__} expected, not {type(value).__name__}")
        return value

    return Form(kind.__name__, _same, unpack)


def _float(value: Any) -> float:
    if type(value) not in (float, int):
        raise WireError(f"float expected, not {type(value).__name__}")
    return float(value)


def _nothing(value: Any) -> None:
    if value is not None:
        raise WireError("nothing expected")


def _enum(kind: type[IntEnum]) -> Callable[[Any], IntEnum]:
    def unpack(value: Any) -> IntEnum:
        try:
            return kind(_exactly(int).unpack(value))
        except ValueError as error:
            raise WireError(str(error)) from None

    return unpack


def _pack_ints(values: Sequence[int]) -> Any:
    try:
        return pack_ints(values)
    except (struct.error, OverflowError):  # negative ones: log lines of the flow have no item
        return list(values)


def _ints(value: Any) -> Sequence[int]:
    if type(value) is list:
        return [_SCALARS[int].unpack(one) for one in value]
    data = _exactly(bytes).unpack(value)
    try:
        if length_of(data) > MAX_COLUMN:
            raise WireError(f"a column has more than {MAX_COLUMN} integers")
        return unpack_ints(data)
    except (ValueError, OverflowError) as error:
        raise WireError(f"a column of integers cannot be read: {error}") from None


def _array(value: Any) -> array[Any]:
    try:
        return unpack_array(_exactly(bytes).unpack(value))
    except ValueError as error:
        raise WireError(f"an array cannot be read: {error}") from None


_SCALARS: dict[Any, Form] = {
    **{kind: _exactly(kind) for kind in (str, int, bool)},
    bytes: Form("bytes", bytes, _exactly(bytes).unpack),
    bytearray: Form("bytes", bytes, lambda value: bytearray(_exactly(bytes).unpack(value))),
    _Array: Form("array", pack_array, _array),
    float: Form("float", float, _float),
    type(None): Form("nothing", _same, _nothing),
    # Exceptions stay in their process; their pickles are bytes that the store keeps and nobody here opens.
    BaseException: Form("nothing", lambda value: None, _nothing),
}


def _json(value: Any) -> Any:
    try:
        found = json.loads(_exactly(str).unpack(value))
    except (ValueError, RecursionError) as error:
        raise WireError(f"JSON cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise WireError("a JSON object expected")
    return found


def _parts(value: Any, length: int | None = None) -> list[Any]:
    if type(value) is not list or (length is not None and len(value) != length):
        raise WireError(f"a list{'' if length is None else f' of {length}'} expected")
    return value


def _many(inside: Form, kind: Callable[[Any], Any], name: str) -> Form:
    pack, unpack = inside.pack, inside.unpack
    return Form(
        f"{name}({inside.text})",
        lambda value: [pack(one) for one in value],
        lambda value: kind([unpack(one) for one in _parts(value)]),
    )


def _tuple(inside: Sequence[Form]) -> Form:
    return Form(
        f"tuple({', '.join(one.text for one in inside)})",
        lambda value: [form.pack(one) for form, one in zip(inside, value, strict=True)],
        lambda value: tuple(
            form.unpack(one) for form, one in zip(inside, _parts(value, len(inside)), strict=True)
        ),
    )


def _map(key: Form, item: Form) -> Form:
    def unpack(value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise WireError("a map expected")
        return {key.unpack(k): item.unpack(v) for k, v in value.items()}

    return Form(
        f"map({key.text}, {item.text})",
        lambda value: {key.pack(k): item.pack(v) for k, v in value.items()},
        unpack,
    )


def _record(kind: Any) -> Form:
    hints = hints_of(kind)
    needed = sum(field.default is MISSING and field.default_factory is MISSING for field in fields(kind))
    inside = [(field.name, form_of(hints[field.name])) for field in fields(kind)]
    packs = [(name, form.pack) for name, form in inside]
    unpacks = [form.unpack for _, form in inside]

    def pack(value: Any) -> list[Any]:
        return [one(getattr(value, name)) for name, one in packs]

    def unpack(value: Any) -> Any:
        parts = _parts(value)
        if not needed <= len(parts) <= len(unpacks):
            raise WireError(f"{kind.__name__} has {needed} to {len(unpacks)} fields, not {len(parts)}")
        return kind(*[one(part) for one, part in zip(unpacks, parts, strict=False)])

    told = ", ".join(f"{name}: {form.text}" for name, form in inside)
    return Form(f"{kind.__name__}({told})", pack, unpack)


def _union(kinds: Sequence[Any]) -> Form:
    some = [kind for kind in kinds if kind is not type(None)]
    if len(some) == 1:
        return _optional(form_of(some[0]))
    forms = [form_of(kind) for kind in some]
    places = {kind: place for place, kind in enumerate(some)}

    def pack(value: Any) -> list[Any]:
        place = places[type(value)]
        return [place, forms[place].pack(value)]

    def unpack(value: Any) -> Any:
        place, what = _parts(value, 2)
        if type(place) is not int or not 0 <= place < len(forms):
            raise WireError(f"there is no kind {place!r}")
        return forms[place].unpack(what)

    return Form(f"one of({', '.join(form.text for form in forms)})", pack, unpack)


def _optional(inside: Form) -> Form:
    pack, unpack = inside.pack, inside.unpack
    return Form(
        f"{inside.text}?",
        lambda value: None if value is None else pack(value),
        lambda value: None if value is None else unpack(value),
    )
