"""Fingerprints of values that are the same in every process and every run of Python.

A value is taken apart into what it is made of, and each part is hashed with the name of its type. Pickles are
not hashed, because equal values have different ones: the order of a set depends on PYTHONHASHSEED, shared
objects are written once, and cloudpickle gives classes of `__main__` a random id. But what pickle asks an
object for (`__reduce_ex__`) is asked here too, so whatever can be pickled has a fingerprint.

Values are told apart rather than taken for equal: 1, 1.0 and True differ, so do a list and a tuple.
A needless difference costs a repeated task run, a wrong match gives a wrong result.
"""

from __future__ import annotations

import copyreg
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cached_property
from hashlib import blake2b
from types import CodeType, FunctionType, ModuleType
from typing import Any

JSON_ATOMS = frozenset({int, float, str, bool, type(None)})


def fingerprint(value: Any) -> str:
    """Return 32 hex digits that depend on nothing but `value`.

    Raises:
        Exception: whatever taking it apart raised; a TypeError for locks, files and the like, a
            RecursionError for what contains itself or is nested too deeply.
    """
    return _digest(value).hex()


def _hash(tag: str, *parts: bytes | memoryview) -> bytes:
    hasher = blake2b(tag.encode("utf-8", "surrogatepass"), digest_size=16)
    for part in parts:  # the length keeps (b"a", b"bc") and (b"ab", b"c") apart
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        hasher.update(b"\0%d:" % size)
        hasher.update(part)
    return hasher.digest()


def _text(tag: str, text: str) -> bytes:
    return _hash(tag, text.encode("utf-8", "surrogatepass"))


def name_of(kind: Any) -> str:
    """Return the qualified name of a class or function."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _digest(value: Any) -> bytes:
    kind = type(value)
    simple = _SIMPLE.get(kind)
    if simple is not None:
        return simple(value)
    if isinstance(value, Enum):
        return _hash(f"enum {name_of(kind)}", _digest(value.name), _digest(value.value))
    if isinstance(value, type):
        return _text("class", name_of(value))
    if isinstance(value, set | frozenset):  # subclasses: their pickle is in the order of the set
        return _hash(
            f"set {name_of(kind)}",
            _unordered("", map(_digest, value)),
            _digest(getattr(value, "__dict__", None)),
        )
    special = _of_library(value)
    return special if special is not None else _reduced(value)


def _number(value: Any) -> bytes:
    return _text(type(value).__name__, format(value, "x") if type(value) is int else repr(value))


def _sequence(value: list[Any] | tuple[Any, ...]) -> bytes:
    tag = type(value).__name__
    if JSON_ATOMS.issuperset(map(type, value)):
        try:
            return _text(tag + " json", json.dumps(value))
        except ValueError:  # an int of more digits than Python turns into text
            pass
    return _hash(tag, *map(_digest, value))


def _mapping(value: Mapping[Any, Any]) -> bytes:
    if set(map(type, value)) <= {str} and JSON_ATOMS.issuperset(map(type, value.values())):
        try:
            return _text("dict json", json.dumps(value, sort_keys=True))
        except ValueError:
            pass
    return _unordered("dict", (_digest(k) + _digest(v) for k, v in value.items()))


def _unordered(tag: str, parts: Iterable[bytes]) -> bytes:
    return _hash(tag, *sorted(parts))


def _set(value: Iterable[Any]) -> bytes:
    return _unordered(type(value).__name__, map(_digest, value))


def _function(value: FunctionType) -> bytes:
    cells = [cell.cell_contents for cell in value.__closure__ or ()]  # globals are not followed
    around = (value.__defaults__, value.__kwdefaults__, cells)
    return _hash(f"function {name_of(value)}", _code(value.__code__), *map(_digest, around))


def _code(value: CodeType) -> bytes:
    """Hash what a function does, not where it stands: file and line numbers are left out."""
    parts = (value.co_consts, value.co_names, value.co_varnames, value.co_freevars)
    return _hash("code", value.co_code, *map(_digest, parts))


_SIMPLE: dict[type, Callable[[Any], bytes]] = {
    **dict.fromkeys((int, float, bool, type(None)), _number),
    str: lambda value: _text("str", value),
    bytes: lambda value: _hash("bytes", value),
    bytearray: lambda value: _hash("bytearray", bytes(value)),
    list: _sequence,
    tuple: _sequence,
    dict: _mapping,
    set: _set,
    frozenset: _set,
    FunctionType: _function,
    CodeType: _code,
    ModuleType: lambda value: _text("module", value.__name__),
    type(Ellipsis): lambda _: _text("ellipsis", ""),
}


def _of_library(value: Any) -> bytes | None:
    """Hash what pickles differently although it is equal: arrays, data frames, pydantic models."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None and type(value) is numpy.ndarray:
        return _array(value)
    if pandas is not None and isinstance(value, pandas.DataFrame | pandas.Series | pandas.Index):
        return _frame(value)
    if hasattr(type(value), "__pydantic_fields_set__"):  # which fields were given explicitly is no difference
        fields = [(name, getattr(value, name)) for name in type(value).__pydantic_fields__]
        more = (value.__pydantic_extra__, value.__pydantic_private__)
        return _hash(f"model {name_of(type(value))}", _digest(dict(fields)), *map(_digest, more))
    return None


def _array(value: Any) -> bytes:
    shape = _digest(value.shape)
    if value.dtype.hasobject:
        return _hash("object array", shape, _digest(value.tolist()))
    flat = value.ravel(order="C").view("u1")  # a copy only where the array is not contiguous
    return _hash("array", _digest(value.dtype.descr), shape, memoryview(flat))


def _frame(value: Any) -> bytes:
    """Hash a pandas object by columns: its pickle shows how it was put together in memory."""
    tag = f"pandas {type(value).__name__}"
    if hasattr(value, "columns"):
        columns = [_column(value.iloc[:, i]) for i in range(value.shape[1])]
        return _hash(tag, _frame(value.columns), _frame(value.index), *columns, _notes(value))
    if hasattr(value, "index"):
        return _hash(tag, _digest(value.name), _frame(value.index), _column(value), _notes(value))
    if hasattr(value, "levels"):  # of a MultiIndex
        levels = [_column(value.get_level_values(i)) for i in range(value.nlevels)]
        return _hash(tag, _digest(list(value.names)), *levels)
    step = getattr(value, "freqstr", None)  # of dates: a shift goes by it
    return _hash(tag, _digest(list(value.names)), _column(value), b"" if step is None else _digest(step))


def _notes(value: Any) -> bytes:
    """Hash what a frame has beside its data: the user's notes, and attributes that a subclass keeps."""
    kept = {name: getattr(value, name, None) for name in type(value)._metadata if name != "name"}
    return _digest((value.attrs, kept)) if value.attrs or kept else b""


def _column(value: Any) -> bytes:
    tag = _text("dtype", str(value.dtype))
    if hasattr(value.dtype, "categories"):  # those that do not occur count in a groupby, and all in its order
        categories = _frame(value.dtype.categories)
        return _hash("column", tag, categories, _digest(value.dtype.ordered), _array(value.array.codes))
    if hasattr(value.dtype, "descr"):
        return _hash("column", tag, _array(value.to_numpy()))
    if hasattr(
        value.array, "asi8"
    ):  # times with a time zone, periods: as objects they take 500 times as long
        return _hash("column", tag, _array(value.array.asi8))
    return _hash("column", tag, _array(value.to_numpy(dtype=object)))


def _reduced(value: Any) -> bytes:
    """Hash an object by what pickle would ask it for."""
    # exceptions are asked themselves: importing distributed makes tblib answer for them, with other parts
    reducer = None if isinstance(value, BaseException) else copyreg.dispatch_table.get(type(value))
    parts = reducer(value) if reducer is not None else value.__reduce_ex__(4)
    tag = f"object {name_of(type(value))}"
    if isinstance(parts, str):  # a global name
        return _text(tag, f"{getattr(value, '__module__', '')}.{parts}")
    make, args, *rest = parts
    state, items, pairs = ([*rest, None, None, None])[:3]
    return _hash(
        tag,
        _text("made by", name_of(make)) if isinstance(make, type | FunctionType) else _digest(make),
        _digest(tuple(args)),
        _digest(_lasting(type(value), state)),
        _digest(None if items is None else list(items)),
        _digest(None if pairs is None else dict(pairs)),
    )


def _lasting(kind: type, state: Any) -> Any:
    """Return an object's state without its cached properties, which come by being looked at."""
    if type(state) is tuple and len(state) == 2:  # of a class with slots: (its dict or None, its slots)
        return _lasting(kind, state[0]), state[1]
    if type(state) is not dict:
        return state
    return {name: part for name, part in state.items() if not _is_cached(kind, name)}


def _is_cached(kind: type, name: Any) -> bool:
    return type(name) is str and isinstance(getattr(kind, name, None), cached_property)
