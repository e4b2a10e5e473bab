"""What tables and arrays look like: written beside a stored result by the worker that has it.

A pickle of a data frame cannot be shown without loading it, which runs code that it names. The worker has the frame as
a value, so that it can put its shape, its types and its first rows there as plain text.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

MAX_ROWS = 10
MAX_COLUMNS = 12
MAX_CELL = 40  # characters
MOST_SECONDS = 0.02  # for the results of one batch, of which the rest has none: a frame takes 0.3 to 1 ms

# Of these text is made, beside strings and numbers; of others, which may take long for it, the name of the type.
_PACKAGES = ("datetime.", "decimal.", "numpy.", "pandas.")
_PLAIN = (int, complex, type(None))
_MOST_BITS = 200  # of a number: to write out the digits of a longer one takes time

Sample = dict[str, Any]


def samples_of(values: Sequence[Any]) -> dict[int, Sample]:
    """Return samples of those values that are data frames, series or arrays, by position. It never fails."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    frames = (pandas.DataFrame, pandas.Series) if pandas is not None and hasattr(pandas, "Series") else ()
    arrays = (numpy.ndarray,) if numpy is not None and hasattr(numpy, "ndarray") else ()
    kinds: tuple[type, ...] = frames + arrays
    if not kinds:
        return {}
    found: dict[int, Sample] = {}
    until = time.perf_counter() + MOST_SECONDS
    for position, value in enumerate(values):
        if isinstance(value, kinds):
            try:
                found[position] = _of_array(value) if isinstance(value, arrays) else _of_frame(value)
            except Exception:  # whatever a user's subclass raises: a result without a sample is as good
                continue
            if time.perf_counter() > until:
                break
    return found


def _of_frame(value: Any) -> Sample:
    one = value.ndim == 1
    head = value.iloc[:MAX_ROWS].to_frame() if one else value.iloc[:MAX_ROWS, :MAX_COLUMNS]
    columns = [value.name if value.name is not None else ""] if one else head.columns
    return {
        "kind": type(value).__name__[:MAX_CELL],
        "shape": list(value.shape),
        "columns": _cells(columns),
        "types": _cells(str(dtype) for dtype in head.dtypes),
        "index": _cells(head.index),
        "rows": [_cells(row) for row in head.itertuples(index=False, name=None)],
    }


def _of_array(value: Any) -> Sample:
    names = list(value.dtype.names or ())[:MAX_COLUMNS]
    plane = value[(0,) * (value.ndim - 2)] if value.ndim > 2 else value  # the first one
    head = plane[(slice(MAX_ROWS), slice(MAX_COLUMNS))[: plane.ndim]]
    if names and plane.ndim == 1:
        rows = [_cells(row[name] for name in names) for row in head]
        types, columns = [str(value.dtype[name]) for name in names], _cells(names)
    else:
        rows = [_cells(row) for row in head] if head.ndim == 2 else [_cells([cell]) for cell in head.flat]
        types, columns = [str(value.dtype)[:MAX_CELL]], []
    return {
        "kind": type(value).__name__[:MAX_CELL],
        "shape": list(value.shape),
        "columns": columns,
        "types": types,
        "index": [],
        "rows": rows,
    }


def _cells(values: Iterable[Any]) -> list[str]:
    return [_cell(value) for value in values]


def _cell(value: Any) -> str:
    if isinstance(value, float):  # numpy's, too
        text = f"{float(value):.6g}"
    elif isinstance(value, tuple):  # a row or column of several levels
        text = ", ".join(map(_cell, value[:4]))
    elif isinstance(value, str):
        text = value[: MAX_CELL + 1]
    elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
        text = "<int>"
    elif isinstance(value, _PLAIN) or (
        f"{type(value).__module__}.".startswith(_PACKAGES) and not getattr(value, "ndim", 0)
    ):
        text = str(value)
    else:
        text = f"<{type(value).__name__}>"
    printable = text.encode("utf-8", "backslashreplace").decode()
    return printable if len(printable) <= MAX_CELL else printable[: MAX_CELL - 1] + "…"
