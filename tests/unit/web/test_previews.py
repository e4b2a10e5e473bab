"""What is shown of a stored result, and that none of its code is run for it."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestration.web import previews
from orchestration.web.previews import NoPreviewError, preview
from runners.messages import Stored
from runners.storage import MISSING, ResultStorage


@dataclass
class Invoice:
    """What a user's task might return."""

    number: int
    lines: list[str]


class Hostile:
    """Whose pickle makes a folder when it is loaded."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def shown(folder: Path, value: Any, serializer: str = "cloudpickle") -> str:
    stored = ResultStorage(str(folder), serializer).write("batch", [MISSING, value])
    return str(preview(stored, 1)["text"])


def test_plain_data_is_shown_as_python_has_it(tmp_path: Path) -> None:
    value = {"rows": [1, 2.5, None], "when": datetime(2026, 1, 31, tzinfo=UTC), "tags": {"a"}, "z": 1j}
    assert shown(tmp_path, value) == (
        "{'rows': [1, 2.5, None], 'tags': {'a'}, 'when': datetime.datetime(2026, 1, 31, 0, 0, "
        "tzinfo=datetime.timezone.utc), 'z': 1j}"
    )
    assert shown(tmp_path, {"ü": [1]}, "json") == '{\n  "ü": [\n    1\n  ]\n}'
    assert shown(tmp_path, (1, b"x"), "msgpack") == "[1, b'x']"


def test_objects_are_shown_by_name_and_state(tmp_path: Path) -> None:
    """Their classes need not be there."""
    assert shown(tmp_path, [Invoice(7, ["tea"])]).endswith("Invoice(number=7, lines=['tea'])]")
    assert "numpy" in shown(tmp_path, [np.arange(100_000)])
    script: dict[str, Any] = {"__name__": "__main__"}
    exec("class Order:\n    def __init__(self, n):\n        self.n = n", script)
    assert shown(tmp_path, script["Order"](3)) == "__main__.Order(n=3)"


def test_nothing_that_a_pickle_names_is_called(tmp_path: Path) -> None:
    """Whoever may write to the storage must not decide what a server runs."""
    folder = str(tmp_path / "made")
    assert shown(tmp_path, Hostile(folder)) == f"posix.mkdir({folder!r})"
    assert not Path(folder).exists()
    pickle.loads(pickle.dumps(Hostile(folder)))
    assert Path(folder).exists(), "it would have been made"


@pytest.mark.parametrize(
    ("value", "said", "first"),
    [
        (pd.DataFrame({"a": range(1000), "b": "x"}), "DataFrame, 1,000 rows and 2 columns", ["0", "x"]),
        (pd.Series([1.5]), "Series, 1 row", ["1.5"]),
        (pd.DataFrame(), "DataFrame, 0 × 0", None),
        (np.zeros((1000, 2000)), "ndarray of float64, 1,000 × 2,000", ["0"] * 12),
        (np.array(3), "ndarray of int64, a single value", ["3"]),
    ],
)
def test_tables_and_arrays(tmp_path: Path, value: Any, said: str, first: list[str] | None) -> None:
    """How they begin, also of those that are too large to be looked into."""
    stored = ResultStorage(str(tmp_path)).write("batch", [MISSING, value])
    found = preview(stored, 1)
    assert found["text"] == said
    assert (found["table"]["rows"] or [None])[0] == first
    assert found["bytes"] > 100


@pytest.mark.parametrize("written", ["x", [1], {1: "x"}, {1: {"kind": "DataFrame"}}, {1: {"shape": ["x"]}}])
def test_what_is_no_sample_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Any
) -> None:
    """A file may have been written by anybody."""
    monkeypatch.setattr("runners.result_format.samples_of", lambda values: written)
    assert shown(tmp_path, {"a": 1}) == "{'a': 1}"


def test_a_sample_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is larger than a worker would have written, or not text."""
    names = ["x" * 500] * 500
    wide = {"kind": names[0], "shape": [9] * 500, "columns": names, "types": names, "index": names}
    monkeypatch.setattr(
        "runners.result_format.samples_of", lambda values: {1: wide | {"rows": [[{}] * 99] * 99}}
    )
    stored = ResultStorage(str(tmp_path)).write("batch", [MISSING, 1])
    table = preview(stored, 1)["table"]
    assert len(str(table)) < 3_000
    assert table["rows"][0][0] == "{}"


def test_long_and_deep_results_are_cut(tmp_path: Path) -> None:
    """Also those that are small and refer to themselves."""
    nested: list[Any] = []
    for _ in range(100):
        nested = [nested, nested]
    assert len(shown(tmp_path, nested)) < previews.MAX_TEXT
    assert len(shown(tmp_path, ["x" * 400] * 100)) == previews.MAX_TEXT
    nested.append(nested)
    assert "[...]" in shown(tmp_path, nested)


def test_what_cannot_be_shown_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is gone, another one, a damaged one, a pipe, one elsewhere; a value that is too large."""
    stored = ResultStorage(str(tmp_path)).write("batch", ["x" * 5000])
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(previews, "MAX_VALUE", 1000)
    for wrong, position, why in [
        (replace(stored, url=stored.url + "x"), 0, "No such file"),
        (replace(stored, digest="00"), 0, "is not the one recorded"),
        (Stored(__file__, stored.digest), 0, "is no result file"),
        (Stored(str(tmp_path / "pipe"), stored.digest), 0, "or no file"),
        (Stored(str(tmp_path), stored.digest), 0, "cannot be read|or no file"),
        (Stored("s3://bucket/file", stored.digest), 0, "only files of this machine"),
        (stored, 1, "has no result"),
        (stored, 0, "too much"),
    ]:
        with pytest.raises(NoPreviewError, match=why):
            preview(wrong, position)
