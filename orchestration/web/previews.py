"""What a stored result looks like, for people: read from its file, without running any code that it names.

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

MAX_FILE = 64 << 20  # bytes; a batch's results are in one file, and its digest is that of all
MAX_VALUE = 4 << 20  # bytes of one serialized value
MAX_TEXT = 4000  # characters

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

    Raises:
        NoPreviewError: it cannot be shown.
    """
    file = _file(stored)
    blocks = file.entries[position] if position < len(file.entries) else None
    if blocks is None:
        raise NoPreviewError("The file has no result for this task run.")
    size = sum(memoryview(block).nbytes for block in blocks)
    if size > MAX_VALUE:
        raise NoPreviewError(f"The result has {size:,} bytes, which is too much to be shown.")
    try:
        text = _text(file.serializer, blocks)
    except Exception as error:  # whatever a pickle does to those that stand for others
        raise NoPreviewError(f"The result cannot be shown: {type(error).__name__}.") from error
    cut = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
    return {"text": cut, "bytes": size, "serializer": file.serializer}


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
