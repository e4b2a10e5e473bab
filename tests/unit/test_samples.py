"""How tables and arrays begin, as the worker that has them writes it down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runners import samples
from runners.samples import samples_of
from runners.storage import MISSING, ResultStorage


class Strange:
    """Whose text takes for ever, or fails."""

    def __repr__(self) -> str:
        raise AssertionError("nobody asked for it")


class Broken(pd.DataFrame):
    """A frame that cannot be cut."""

    @property
    def iloc(self) -> Any:
        raise AttributeError("iloc")


def sample(value: Any) -> dict[str, Any]:
    (found,) = samples_of([value]).values()
    return found


def test_a_data_frame() -> None:
    """Shape, columns with their types, and the first rows with their index."""
    frame = pd.DataFrame({"n": range(100), "x": np.linspace(0, 1, 100), "s": ["tea"] * 100})
    found = sample(frame.set_index("n", drop=False))
    assert (found["kind"], found["shape"], found["columns"]) == ("DataFrame", [100, 3], ["n", "x", "s"])
    assert found["types"][:2] == ["int64", "float64"]
    assert found["index"] == [str(n) for n in range(10)]
    assert found["rows"][2] == ["2", "0.020202", "tea"]
    assert len(found["rows"]) == 10


def test_series_and_levels() -> None:
    """A series is a table of one column; of an index or columns of several levels all are told."""
    series = pd.Series([1.5, None], index=[("a", 1), ("b", 2)], name="price")
    found = sample(series)
    assert (found["shape"], found["columns"], found["index"]) == ([2], ["price"], ["a, 1", "b, 2"])
    assert found["rows"] == [["1.5"], ["nan"]]


@pytest.mark.parametrize(
    ("array", "rows"),
    [
        (np.arange(1000), [[str(n)] for n in range(10)]),
        (np.arange(6).reshape(2, 3), [["0", "1", "2"], ["3", "4", "5"]]),
        (np.arange(24).reshape(2, 3, 4)[:, :1], [["0", "1", "2", "3"]]),
        (np.array(7), [["7"]]),
        (np.zeros(0), []),
        (np.array([(1, 2.5)], dtype=[("x", "i4"), ("y", "f8")]), [["1", "2.5"]]),
        (np.array(["2026-01-31"], "M8[D]"), [["2026-01-31"]]),
    ],
)
def test_arrays(array: Any, rows: list[list[str]]) -> None:
    """Of more than two dimensions the first plane; of records their fields."""
    found = sample(array)
    assert found["shape"] == list(array.shape)
    assert found["rows"] == rows


def test_what_is_in_a_cell_costs_nothing() -> None:
    """No code of users' objects runs, nothing large is written out, and all of it can be stored."""
    cells = [Strange(), ["x"] * 10**6, 10**100_000, "y" * 10**6, "\ud800", None, np.zeros(2)]
    found = sample(pd.Series(cells, dtype=object))
    texts = [row[0] for row in found["rows"]]
    assert texts[:3] == ["<Strange>", "<list>", "<int>"]
    assert len(texts[3]) == samples.MAX_CELL
    assert texts[4:] == ["\\ud800", "None", "<ndarray>"]


def test_a_sample_never_costs_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails is left out, and so are all others of a batch once they have taken too long."""
    broken = Broken({"a": [1]})
    assert samples_of([broken, 1, np.zeros(2)]).keys() == {2}
    stored = ResultStorage(str(tmp_path)).write("batch", [broken, MISSING])
    (read,) = ResultStorage(str(tmp_path)).read(stored, [0])
    assert read["a"].tolist() == [1]
    monkeypatch.setattr(samples, "MOST_SECONDS", -1.0)
    assert samples_of([np.zeros(2)] * 100).keys() == {0}
