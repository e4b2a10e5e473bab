"""Prints and log records of items; everything else of a user's logging and printing stays as it is."""

from __future__ import annotations

import builtins
import logging
import logging.config
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from runners import capture
from runners.context import current_item


@pytest.fixture
def lines() -> Iterator[list[tuple[Any, ...]]]:
    """Lines of an item that runs now, with prints taken."""
    got: list[tuple[Any, ...]] = []
    execution = SimpleNamespace(log=lambda *line: got.append(line))
    item = current_item.set(SimpleNamespace(execution=execution, entry=4))  # type: ignore[arg-type]
    sink = capture.print_sink.set(capture.task_print)
    capture.install()
    yield got
    capture.print_sink.reset(sink)
    current_item.reset(item)


def test_prints_become_lines(lines: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed to standard output is a line; what goes elsewhere is not."""
    with capture.prints(True):
        print("a", 1, sep="-")
        print("b", file=None)
        print("to a file", file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    assert [(entry, level, text) for entry, _, level, _, text in lines] == [(4, 20, "a-1"), (4, 20, "b")]
    assert capsys.readouterr().out == ""


def test_prints_outside_of_items(capsys: pytest.CaptureFixture[str]) -> None:
    """Others of the process print as ever meanwhile."""
    with capture.prints(True):
        print("as ever", end="!")
    assert capsys.readouterr().out == "as ever!"


def test_print_is_put_back() -> None:
    """The last one to leave restores `print`; nobody who does not want it touches it."""
    before = builtins.print
    with capture.prints(False):
        assert builtins.print is before
    with capture.prints(True):
        with capture.prints(True):
            assert builtins.print is not before
        assert builtins.print is not before
    assert builtins.print is before


def test_the_users_own_print_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `print` that the user replaced is the one that prints, and the one that comes back."""
    heard: list[Any] = []

    def own(*values: Any, **_: Any) -> None:
        heard.append(values)

    monkeypatch.setattr(builtins, "print", own)
    with capture.prints(True):
        print("x")
    assert heard == [("x",)]
    assert builtins.print is own


def test_a_print_replaced_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What user code puts in the place of `print` is not taken away again."""
    real = builtins.print
    monkeypatch.setattr(builtins, "print", real)
    with capture.prints(True):
        builtins.print = newer = lambda *_, **__: None
    assert builtins.print is newer


def test_records_become_lines(lines: list[Any]) -> None:
    """Level, logger and message arrive, with the traceback of `exception`."""
    logger = logging.getLogger(capture.TASK_LOGGER).getChild("sub")
    logger.debug("%d of %d", 1, 2)
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed")
    assert (lines[0][2], lines[0][3], lines[0][4]) == (logging.DEBUG, "millrace.task_runs.sub", "1 of 2")
    assert "ValueError: bad" in lines[1][4]


def test_a_record_that_cannot_be_formatted(lines: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken log call does not break its task."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logging.getLogger(capture.TASK_LOGGER).info("%d", "no number")
    assert lines == []


def test_records_outside_of_items_are_passed_over() -> None:
    """A thread that runs no item logs to nowhere, without an error."""
    capture.install()
    logging.getLogger(capture.TASK_LOGGER).warning("nobody's")


def test_logging_of_the_user_is_untouched() -> None:
    """Only the loggers of task runs get a handler, and only one."""
    root = logging.getLogger()
    before = root.level, list(root.handlers), logging.getLogger("millrace").handlers
    capture.install()
    capture.install()
    assert (root.level, list(root.handlers), logging.getLogger("millrace").handlers) == before
    handlers = logging.getLogger(capture.TASK_LOGGER).handlers
    assert [type(h) for h in handlers].count(capture.ItemLogHandler) == 1


def test_named_loggers_are_those_of_the_run(lines: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """A run gets what it has named; what no run wants goes where it went before: warnings to stderr."""
    capture.install_named([("shop", logging.INFO)], here=False)
    logger = logging.getLogger("shop.stock")
    item = current_item.get()
    assert item is not None
    item.run = SimpleNamespace(loggers=())  # type: ignore[misc]
    above = logging.getLogger("shop")
    above.propagate = False  # or else pytest's handlers get it
    logger.warning("not this run's")
    assert (lines, capsys.readouterr().err) == ([], "not this run's\n")
    item.run = SimpleNamespace(loggers=(("shop", logging.INFO),))  # type: ignore[misc]
    logger.info("this run's")
    assert ([line[4] for line in lines], capsys.readouterr().err) == (["this run's"], "")
    above.propagate = True


@pytest.mark.parametrize(
    ("own", "expected"), [(logging.NOTSET, logging.INFO), (logging.ERROR, logging.ERROR)]
)
def test_levels_of_named_loggers_on_workers(own: int, expected: int) -> None:
    """The flow's, unless the worker has one; and the next run's after it."""
    logger = logging.getLogger(f"shop.level.{own}")
    logger.setLevel(own)
    capture.install_named([(logger.name, logging.DEBUG)], here=True)
    assert logger.level == own
    capture.install_named([(logger.name, logging.DEBUG)], here=False)
    capture.install_named([(logger.name, logging.INFO)], here=False)
    assert logger.level == expected
    assert len(logger.handlers) == 1


def test_a_users_config_does_not_silence_tasks(lines: list[Any]) -> None:
    """`dictConfig` disables loggers that it does not name; the next batch has its lines again."""
    logger = logging.getLogger(capture.TASK_LOGGER)
    logger.disabled = True  # as dictConfig does with disable_existing_loggers
    capture.install()
    logger.info("heard")
    assert [line[4] for line in lines] == ["heard"]


def test_the_child_of_a_fork_prints_for_itself(lines: list[Any]) -> None:
    """Nobody reads the lines of a forked child, so its prints go where prints go."""
    capture._forget_sink()
    assert capture.print_sink.get() is None
