"""Taking log records and prints of user code, so that they reach the record from every runner."""

from __future__ import annotations

import builtins
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .context import current_item

TASK_LOGGER = "millrace.task_runs"

# Set where prints are wanted as log lines: called with the text of each print.
print_sink: ContextVar[Callable[[str], None] | None] = ContextVar("millrace_print_sink", default=None)

# Set in the flow's process: takes a record of a named logger that no item has logged, for a flow function.
outside: Callable[[str, logging.LogRecord], bool] | None = None

_real_print = builtins.print
_wanted = 0  # how many ask for `print` to be replaced
_lock = threading.Lock()
_levels: dict[str, int] = {}  # that were set here


class ItemLogHandler(logging.Handler):
    """Gives records to the execution of the item that logs them; records from elsewhere are passed over."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit without the handler's lock, which an interrupt could leave locked for ever."""
        wanted = bool(self.filter(record))
        if wanted:
            self.emit(record)
        return wanted

    def emit(self, record: logging.LogRecord) -> None:
        item = current_item.get()
        if item is None:
            return
        try:
            message = self.format(record)
            item.execution.log(item.entry, record.created, record.levelno, record.name, message)
        except Exception:  # a log line never breaks a task
            self.handleError(record)


class NamedLogHandler(ItemLogHandler):
    """The same for a logger that a user has named: only of runs that name it, and each record once."""

    def __init__(self, named: str) -> None:
        super().__init__()
        self.named = named

    def emit(self, record: logging.LogRecord) -> None:
        if record.__dict__.get("millrace_taken"):  # by the handler of a logger below this one
            return
        item = current_item.get()
        if item is not None and self.named in dict(item.run.loggers):
            super().emit(record)
        elif item is not None or outside is None or not outside(self.named, record):
            _as_without_us(record)
            return
        record.millrace_taken = True


def _as_without_us(record: logging.LogRecord) -> None:
    """Do what `logging` does with a record that has no handler, if it has none but ours."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        if not all(isinstance(handler, NamedLogHandler) for handler in logger.handlers):
            return
        logger = logger.parent if logger.propagate else None
    if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
        record.millrace_taken = True
        logging.lastResort.handle(record)


def with_levels(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Return loggers with the levels that they have in this process, for `install_named` in others."""
    return tuple((name, logging.getLogger(name).getEffectiveLevel()) for name in dict.fromkeys(names))


def install_named(loggers: Iterable[tuple[str, int]], *, here: bool) -> None:
    """Attach handlers to loggers that a user has named.

    Args:
        loggers: names and levels in the flow's process.
        here: this is that process. In others, a logger without a level of its own gets that level.
    """
    for name, level in loggers:
        logger = logging.getLogger(name)
        with _lock:
            if not any(isinstance(h, NamedLogHandler) and h.named == name for h in logger.handlers):
                logger.addHandler(NamedLogHandler(name))
            if not here and logger.level in (logging.NOTSET, _levels.get(name)):
                logger.setLevel(level)
                _levels[name] = level


def install() -> None:
    """Attach the handler to the task loggers of this process. Nothing else of `logging` is touched."""
    logger = logging.getLogger(TASK_LOGGER)
    with _lock:
        logger.disabled = False  # a user's dictConfig disables what it does not name
        if not any(isinstance(h, ItemLogHandler) for h in logger.handlers):
            logger.addHandler(ItemLogHandler())
            logger.setLevel(logging.DEBUG)
            logger.propagate = False


def install_print() -> None:
    """Make `print` look for a sink. Without a sink in its context it prints as ever."""
    global _wanted, _real_print
    with _lock:
        _wanted += 1
        if builtins.print is not _print:
            _real_print = builtins.print  # the user's own replacement, if there is one
            builtins.print = _print


def uninstall_print() -> None:
    """Undo one `install_print`; the last one puts the real `print` back."""
    global _wanted
    with _lock:
        _wanted -= 1
        if _wanted == 0 and builtins.print is _print:
            builtins.print = _real_print


@contextmanager
def prints(wanted: bool) -> Iterator[None]:
    """Replace `print` inside the block, if wanted."""
    if not wanted:
        yield
        return
    install_print()
    try:
        yield
    finally:
        uninstall_print()


def _print(
    *values: Any, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False
) -> None:
    sink = print_sink.get()
    if sink is None or (file is not None and file is not sys.stdout):
        _real_print(*values, sep=sep, end=end, file=file, flush=flush)
        return
    sink((" " if sep is None else sep).join(map(str, values)))


def task_print(text: str) -> None:
    """The sink of tasks with `log_prints`."""
    item = current_item.get()
    if item is not None:
        item.execution.log(item.entry, time.time(), logging.INFO, TASK_LOGGER, text)


def _forget_sink() -> None:
    """In the child of a fork nobody reads the lines: what it prints goes to its standard output."""
    global _lock
    _lock = threading.Lock()
    print_sink.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_sink)
