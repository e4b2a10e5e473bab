"""Taking log records and prints of user code, so that they reach the record from every runner."""

from __future__ import annotations

import builtins
import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from .context import current_item

TASK_LOGGER = "millrace.task_runs"

# Set where prints are wanted as log lines: called with the text of each print.
print_sink: ContextVar[Callable[[str], None] | None] = ContextVar("millrace_print_sink", default=None)

_real_print = builtins.print
_lock = threading.Lock()


class ItemLogHandler(logging.Handler):
    """Gives records to the execution of the item that logs them; records from elsewhere are passed over."""

    def emit(self, record: logging.LogRecord) -> None:
        item = current_item.get()
        if item is None:
            return
        try:
            message = self.format(record)
            item.execution.log(item.entry, record.created, record.levelno, record.name, message)
        except Exception:  # a log line never breaks a task
            self.handleError(record)


def install() -> None:
    """Attach the handler to the task loggers of this process, once."""
    logger = logging.getLogger(TASK_LOGGER)
    with _lock:
        if not any(isinstance(h, ItemLogHandler) for h in logger.handlers):
            logger.addHandler(ItemLogHandler())
            logger.setLevel(logging.DEBUG)
            logger.propagate = False


def install_print() -> None:
    """Make `print` look for a sink, once. Without a sink in its context it prints as ever."""
    with _lock:
        if builtins.print is _real_print:
            builtins.print = _print


def _print(
    *values: Any, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False
) -> None:
    sink = print_sink.get()
    if sink is None or file is not None:
        _real_print(*values, sep=sep, end=end, file=file, flush=flush)
        return
    sink((" " if sep is None else sep).join(map(str, values)))


def task_print(text: str) -> None:
    """The sink of tasks with `log_prints`."""
    logging.getLogger(TASK_LOGGER).info("%s", text)
