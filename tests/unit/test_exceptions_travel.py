"""Exceptions arrive as they were sent, also where another library has changed how they are pickled."""

from __future__ import annotations

import copyreg
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runners.codec import dump_exception, dumps, loads


def _without_init(error: BaseException) -> Any:
    """What tblib, which comes with Dask, does: no __init__, only `args`."""
    return _made, (type(error), error.args)


def _made(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    error = kind.__new__(kind)
    error.args = args
    return error


@pytest.mark.parametrize(
    "fail",
    [
        lambda: compile("def f(:", "x.py", "exec"),
        lambda: b"\xff".decode(),
        lambda: Path("/nowhere/at/all").read_text(),
        lambda: exec("raise SystemExit(3)"),
    ],
)
def test_built_in_exceptions_keep_what_is_not_in_args(
    fail: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SyntaxError still says where, though a reducer for it is registered that would lose it."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        fail()
    error = caught.value
    monkeypatch.setitem(copyreg.dispatch_table, type(error), _without_init)
    data = dump_exception(error)
    assert data is not None
    for arrived in (loads(data), loads(dumps([error]))[0]):
        assert type(arrived) is type(error)
        assert str(arrived) == str(error)
        assert getattr(arrived, "code", None) == getattr(error, "code", None)


class StatusError(Exception):
    """Its `__init__` makes a text of what it is given, and could make one of that again."""

    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}")
        self.code = code


class RowError(Exception):
    """Its `__init__` does not take what it gives its base class."""

    def __init__(self, path: str, row: int) -> None:
        super().__init__(f"{path}: row {row} is bad")
        self.row = row


class FileRowError(OSError):
    def __init__(self, path: str, *, row: int) -> None:
        super().__init__(5, "bad row", path)
        self.row = row


@pytest.mark.parametrize(
    "error",
    [
        StatusError(404),
        RowError("a.csv", 7),
        FileRowError("a.csv", row=7),
    ],
)
def test_exceptions_with_an_init_of_their_own(error: Exception) -> None:
    """They arrive as what they are, with their attributes and the text that they had, however often they travel."""
    arrived: Any = error
    for _ in range(3):  # as an argument of another task run, too
        data = dump_exception(arrived)
        assert data is not None
        arrived = loads(dumps(loads(data)))
        assert type(arrived) is type(error)
        assert (str(arrived), arrived.args) == (str(error), error.args)
        assert vars(arrived) == vars(error)
        assert getattr(arrived, "filename", None) == getattr(error, "filename", None)


def test_what_of_an_exception_cannot_be_pickled_is_left_out() -> None:
    """Its type is what `except` asks for; a note says what is missing."""
    error: Any = RowError("a.csv", 7)
    error.lock = threading.Lock()
    data = dump_exception(error)
    assert data is not None
    arrived = loads(dumps(loads(data)))
    assert type(arrived) is RowError
    assert str(arrived) == str(error)
    assert arrived.row == 7
    assert not hasattr(arrived, "lock")
    assert arrived.__notes__ == ["(without lock, which cannot be pickled)"]
