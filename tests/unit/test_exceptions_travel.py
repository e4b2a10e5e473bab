"""Exceptions arrive as they were sent, also where another library has changed how they are pickled."""

from __future__ import annotations

import copyreg
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
