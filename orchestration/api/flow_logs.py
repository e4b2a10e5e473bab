"""Log lines and prints of the flow function itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runners import capture
from runners.messages import LogLine

from ..core.journal import LogWritten
from .runtime import FLOW_LOGGER, current_run

if TYPE_CHECKING:
    from .running import RunningFlow

_runs: dict[str, RunningFlow] = {}
_lock = threading.Lock()


class FlowLogHandler(logging.Handler):
    """Gives records to the run whose flow function logs them."""

    def emit(self, record: logging.LogRecord) -> None:
        run = _run_here()
        if run is None:
            return
        try:
            line = LogLine(0, 0, 0, record.created, record.levelno, record.name, self.format(record))
            run.log(LogWritten(-1, (0,), (0,), (line,)))
        except Exception:  # a log line never breaks a flow
            self.handleError(record)


_handler = FlowLogHandler()


def _run_here() -> RunningFlow | None:
    context = current_run.get()
    return _runs.get(context.run_id) if context is not None else None


def _named(logger: str, record: logging.LogRecord) -> bool:
    """Take a record of a logger that the user has named, if a flow function has logged it that wants it."""
    run = _run_here()
    if run is None or logger not in dict(run.context.loggers):
        return False
    _handler.handle(record)
    return True


@contextmanager
def flow_logging(run: RunningFlow) -> Iterator[None]:
    """Inside the block, lines of the flow's logger belong to this run, and prints if it wants them."""
    logger = logging.getLogger(FLOW_LOGGER)
    with _lock:
        if not any(isinstance(handler, FlowLogHandler) for handler in logger.handlers):
            logger.addHandler(FlowLogHandler())
            logger.setLevel(logging.DEBUG)
            logger.propagate = False
        _runs[run.row.run_id] = run
        capture.outside = _named
    capture.install_named(run.context.loggers, here=True)
    try:
        with capture.prints(run.flow.log_prints):
            token = capture.print_sink.set(_print if run.flow.log_prints else None)
            try:
                yield
            finally:
                capture.print_sink.reset(token)
    finally:
        _runs.pop(run.row.run_id, None)


def _print(text: str) -> None:
    logging.getLogger(FLOW_LOGGER).info("%s", text)
