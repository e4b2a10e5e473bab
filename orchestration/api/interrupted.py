"""What a script that was stopped with Ctrl-C leaves on the terminal: a traceback of the user's own lines."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TypeVar

_OWN = (__name__.partition(".")[0] + ".", "runners.", "asyncio.")
_MARK = "_from_a_flow"
_RAY = (
    "ray._private.worker"  # has a hook, too: it notes what its driver ends by, and goes on to the one before
)

E = TypeVar("E", bound=BaseException)


def shown_short(error: E) -> E:
    """Return an interrupt that ends a flow run, for its caller; where it ends the program, only users' lines are shown.

    It goes on to the caller as it is. Only if nobody takes it, and the program has no `sys.excepthook` of its own, is
    its traceback cut where Millrace begins. Every other exception is shown as ever.
    """
    setattr(error, _MARK, True)
    before = sys.excepthook
    if before is sys.__excepthook__ or getattr(before, "__module__", "") == _RAY:
        sys.excepthook = partial(_show, before)
    return error


def _show(
    before: Callable[[type[BaseException], BaseException, TracebackType | None], object],
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    cut = _outer(trace) if isinstance(error, KeyboardInterrupt) and _is_marked(error) else None
    if cut is None:
        before(kind, error, trace)
        return
    shown = traceback.TracebackException(kind, error, cut)
    shown.__cause__ = shown.__context__ = None  # ends of Millrace's own, or of asyncio's
    shown.print()


def _is_marked(error: BaseException) -> bool:
    """Whether it came out of a flow; asyncio makes one of its own of the CancelledError that did."""
    return any(hasattr(one, _MARK) for one in (error, error.__context__))


def _outer(trace: TracebackType | None) -> TracebackType | None:
    """Return a copy of a traceback up to the first frame of Millrace, or of asyncio under it."""
    links = []
    while trace is not None and not _is_own(trace):
        links.append(trace)
        trace = trace.tb_next
    copy: TracebackType | None = None
    for link in reversed(links):
        copy = TracebackType(copy, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return copy


def _is_own(trace: TracebackType) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__", "")).startswith(_OWN)
