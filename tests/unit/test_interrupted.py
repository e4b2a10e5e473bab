"""What is shown of a KeyboardInterrupt that ends a flow run and then the program."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from orchestration import flow


@flow(store="memory")
def stopped() -> None:
    raise KeyboardInterrupt


@flow(store="memory")
async def cancelled() -> None:
    raise asyncio.CancelledError


def ask_asyncio() -> None:
    """As `asyncio.run` does it after Ctrl-C."""
    try:
        asyncio.run(cancelled())
    except asyncio.CancelledError:
        raise KeyboardInterrupt  # noqa: B904


def shown(end: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a program leaves that ends so, without what the runs say."""
    try:
        end()
    except BaseException as error:
        capsys.readouterr()
        sys.excepthook(type(error), error, error.__traceback__)
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def as_python_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)


@pytest.mark.parametrize(("end", "function"), [(stopped, "shown"), (ask_asyncio, "ask_asyncio")])
def test_the_users_lines_alone(
    end: Callable[[], Any], function: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exception itself arrives, and the last line that is shown is the one that called the flow, or asyncio."""
    text = shown(end, capsys)
    assert {line.split(chr(34))[1] for line in text.splitlines() if "File" in line} == {__file__}
    assert f"in {function}\n" in text
    assert text.endswith("KeyboardInterrupt\n")
    assert text.count("Traceback") == 1


def test_all_else_is_shown_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    """Other exceptions, an interrupt of the user's own code, and whatever has a hook of its own."""

    def fail() -> None:
        raise ValueError("no")

    def interrupt() -> None:
        raise KeyboardInterrupt from ValueError("why")

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert sys.excepthook is not sys.__excepthook__
    for end, kind in ((fail, ValueError), (interrupt, KeyboardInterrupt)):
        with pytest.raises(kind) as caught:
            end()
        capsys.readouterr()
        sys.excepthook(kind, caught.value, caught.tb)
        assert capsys.readouterr().err == "".join(traceback.format_exception(caught.value))


def test_a_hook_of_the_program_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(*_: Any) -> None: ...

    monkeypatch.setattr(sys, "excepthook", own)
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert sys.excepthook is own
