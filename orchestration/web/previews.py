"""What a stored result looks like, for people: read from its file, without running any code that it names.

Of a table or an array its worker has written how it begins (`runners.samples`): text in cells, which is shown as such.
A pickle may name any function to be called when it is loaded, and whoever may write to the storage writes what a server
would run. Here nothing is called but the types of plain data: what else there is stands as its name and its state.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import reprlib
import stat
from collections.abc import Sequence
from typing import Any

from runners.messages import Stored
from runners.result_format import MISSING, SERIALIZERS, Block, FormatError, decode
from runners.samples import MAX_CELL, MAX_COLUMNS, MAX_ROWS

from ..terminal import words

MAX_FILE = 64 << 20  # bytes; a batch's results are in one file, and its digest is that of all
MAX_VALUE = 4 << 20  # bytes of one serialized value
MAX_TEXT = 4000  # characters
MAX_DIMENSIONS = 32  # of an array

# What may be made of a pickle, since to make it does nothing else and takes no more room than its text.
PLAIN = {
    ("builtins", "complex"): complex,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "range"): range,
}
DATED = ("datetime", "date", "time", "timedelta", "timezone")


class NoPreviewError(Exception):
    """Why there is none, in words."""


def preview(stored: Stored, position: int) -> dict[str, Any]:
    """Return a result as `text`, cut at MAX_TEXT, with its `bytes` and the `serializer` that wrote it.

    Of a table or an array `text` says what it is, and `table` how it begins; `table` is None for all else.

    Raises:
        NoPreviewError: it cannot be shown.
    """
    file = _file(stored)
    blocks = file.entries[position] if position < len(file.entries) else None
    if blocks is None:
        raise NoPreviewError("The file has no result for this task run.")
    size = sum(memoryview(block).nbytes for block in blocks)
    told = {"bytes": size, "serializer": file.serializer}
    if (table := _table(file.samples, position)) is not None:
        return {"text": _said(table), "table": table} | told
    if size > MAX_VALUE:
        raise NoPreviewError(f"The result has {size:,} bytes, which is too much to be shown.")
    try:
        text = _text(file.serializer, blocks)
    except Exception as error:  # whatever a pickle does to those that stand for others
        raise NoPreviewError(f"The result cannot be shown: {type(error).__name__}.") from error
    cut = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
    return {"text": cut, "table": None} | told


def _file(stored: Stored) -> Any:
    if "://" in stored.url:
        raise NoPreviewError(f"The result is stored at {stored.url}; only files of this machine are shown.")
    try:
        with open(os.open(stored.url, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_FILE:
                raise NoPreviewError(f"{stored.url} is too large to be looked into, or no file.")
            return decode(file.read(), stored.digest)
    except OSError as error:
        raise NoPreviewError(f"{stored.url} cannot be read by the server: {error.strerror}.") from error
    except FormatError as error:
        raise NoPreviewError(f"The result file {stored.url} {error}.") from error


def _table(samples: Any, position: int) -> dict[str, Any] | None:
    """Return a sample with nothing in it but what its worker would have written, None if there is none."""
    found = samples.get(position) if isinstance(samples, dict) else None
    if not isinstance(found, dict):
        return None
    try:
        return {
            "kind": _cut(found["kind"]),
            "shape": [int(length) for length in found["shape"][:MAX_DIMENSIONS]],
            "columns": [_cut(name) for name in found["columns"][:MAX_COLUMNS]],
            "types": [_cut(name) for name in found["types"][:MAX_COLUMNS]],
            "index": [_cut(name) for name in found["index"][:MAX_ROWS]],
            "rows": [[_cut(cell) for cell in row[:MAX_COLUMNS]] for row in found["rows"][:MAX_ROWS]],
        }
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _cut(text: Any) -> str:
    return str(text)[:MAX_CELL]


def _said(table: dict[str, Any]) -> str:
    """Return such as `DataFrame, 1,000 rows and 5 columns` or `ndarray of float64, 3 × 4 × 5`."""
    kind, shape = table["kind"], table["shape"]
    if table["index"] or (table["columns"] and len(shape) == 2):
        across = f" and {words.plural(shape[1], 'column')}" if len(shape) == 2 else ""
        return f"{kind}, {words.plural(shape[0], 'row')}{across}"
    of = f" of {table['types'][0]}" if table["types"] else ""
    return f"{kind}{of}, {' × '.join(f'{length:,}' for length in shape) or 'a single value'}"


def _text(serializer: str, blocks: Sequence[Block]) -> str:
    if serializer == "cloudpickle":
        return _Short().repr(_Plain(io.BytesIO(blocks[0]), buffers=[bytes(b) for b in blocks[1:]]).load())
    value = SERIALIZERS[serializer].load(blocks)
    return json.dumps(value, indent=2, ensure_ascii=False) if serializer == "json" else _Short().repr(value)


class _Short(reprlib.Repr):
    """As Python shows it, with long things cut in the middle and deep ones at the bottom."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 6
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 50
        self.maxstring = self.maxother = self.maxlong = 500


class _Plain(pickle.Unpickler):
    """Loads plain data; everything else becomes an object that has its name."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "datetime" and name in DATED:
            return super().find_class(module, name)
        if (module, name) == ("cloudpickle.cloudpickle", "_make_skeleton_class"):
            return _of_script
        return PLAIN.get((module, name)) or _named(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _of_script(_: Any, name: str, *__: Any) -> type[_Named]:
    """Stand for a class of a script, which travels by value."""
    return _named(f"__main__.{name}")


def _named(shown: str) -> type[_Named]:
    return type(shown.rpartition(".")[2], (_Named,), {"shown": shown})


class _Named:
    """Stands for an object of a class, or for what a function returns, that is not called here."""

    shown = ""
    arguments: tuple[Any, ...] = ()
    state: Any = MISSING

    def __new__(cls, *arguments: Any, **named: Any) -> _Named:
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __call__(self, *arguments: Any) -> _Named:
        """Stand for what a function returns that another one has returned."""
        return type(self)(*arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take an item, as a dict of the class that it stands for would."""

    def append(self, value: Any) -> None:
        """Take an item, as a list of the class that it stands for would."""

    def __repr__(self) -> str:
        short = _Short()
        if isinstance(self.state, dict):
            return f"{self.shown}({', '.join(f'{k}={short.repr(v)}' for k, v in self.state.items())})"
        return f"{self.shown}({', '.join(map(short.repr, self.arguments))})"
