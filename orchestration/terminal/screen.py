"""The terminal of this process: one thread writes to it, however many runs there are.

Lines go above the progress of what is still running. Progress comes when a run has lasted for a moment: on a
terminal as a region that is drawn again at most four times a second (with rich, which is imported only then),
elsewhere as a plain line every few seconds. All of it goes to stderr; stdout belongs to the user.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from . import words
from .progress import MAX_NODE_LINES, progress_lines
from .styled import (
    Line,
    ansi,
    columns_of,
    cut,
    is_terminal,
    plain,
    speaks_unicode,
    wants_colour,
    wrapped,
)

if TYPE_CHECKING:
    from .region import Region
    from .view import RunView

TICK_SECONDS = 0.25
REGION_AFTER_SECONDS = 0.4  # a run that is over by then needs no progress, nor rich's 80 ms
PLAIN_EVERY_SECONDS = 5.0  # in the first minute
PLAIN_LATER_SECONDS = 30.0


class Screen:
    """Where all displays of this process write."""

    def __init__(self, stream: TextIO | None = None, *, plain_only: bool = False) -> None:
        self._given = stream
        self._current: Any = None
        self._plain_only = plain_only
        self._views: list[RunView] = []
        self._lock = threading.RLock()  # of everything that is written
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._region: Region | None = None
        self._began = 0.0
        self._next_plain = 0.0
        self._handler = DriverLogHandler(self)

    @property
    def stream(self) -> Any:
        """Stderr as it was when the first of the present runs began: notebooks, tests and rich exchange it."""
        return self._given or self._current or sys.stderr

    def view_of(self, run_id: str | None) -> RunView | None:
        """Return the view of a run that is on the screen."""
        with self._lock:
            return next((v for v in self._views if v.run_id == run_id), None) if run_id else None

    def enter(self, view: RunView) -> None:
        """Show a run."""
        with self._lock:
            self._views.append(view)
            if len(self._views) > 1:
                return
            self._current = sys.stderr
            self._began = time.monotonic()
            self._next_plain = self._began + PLAIN_EVERY_SECONDS
            self._stop = threading.Event()
            args = (self._stop,)
            self._thread = threading.Thread(target=self._run, args=args, name="millrace-display", daemon=True)
            self._thread.start()
            self._handler.attach()

    def leave(self, view: RunView) -> None:
        """Show a run no longer; after the last one nothing of the display is left."""
        with self._lock:
            self._drain(view)
            self._views.remove(view)
            if self._views:
                return
            self._stop.set()
            thread, self._thread = self._thread, None
            self._handler.detach()
            self._end_region([])
            self._current = None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def write(self, lines: Iterable[Line], *, wrap: bool = False) -> None:
        """Write lines above what is in progress; with `wrap`, sentences break at words on a terminal."""
        with self._lock:
            if wrap and is_terminal(self.stream):
                lines = [part for line in lines for part in wrapped(line, columns_of(self.stream))]
            if self._region is not None:
                self._region.print(lines)
                return
            paint = ansi if wants_colour(self.stream) else plain
            text = "".join(f"{paint(line)}\n" for line in lines)
            try:
                self.stream.write(text)
                self.stream.flush()
            except (OSError, ValueError, AttributeError, UnicodeError):
                pass  # nobody looks any more: no reason to fail a run

    def close_region(self, view: RunView) -> None:
        """Leave the progress of the last run where it stands, for its final lines to follow."""
        with self._lock:
            self._drain(view)
            if self._views == [view]:
                self._end_region(self._progress(headed=False))

    # --- the thread -----------------------------------------------------------------------------

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(TICK_SECONDS):
            try:
                with self._lock:
                    if not stop.is_set():
                        self._draw()
            except Exception:  # showing progress must not stop it
                logging.getLogger("millrace.display").debug("drawing failed", exc_info=True)

    def _draw(self) -> None:
        for view in self._views:
            self._drain(view)
        now = time.monotonic()
        if is_terminal(self.stream) and not self._plain_only:
            if self._region is None and now - self._began >= REGION_AFTER_SECONDS:
                from .region import Region

                self._region = Region(self.stream)
            if self._region is not None:
                self._region.update(self._progress())
        elif now >= self._next_plain:
            lasting = now - self._began > 60
            self._next_plain = now + (PLAIN_LATER_SECONDS if lasting else PLAIN_EVERY_SECONDS)
            for view in self._views:
                if view.parent is None:
                    text = view.plain_text(self._nodes_of(view))
                    self.write([[(f"{words.clock(time.time())} {text}", "")]])

    def _drain(self, view: RunView) -> None:
        lines = view.new_lines()
        if lines:
            self.write(lines)

    def _nodes_of(self, view: RunView) -> list[Any]:
        """Return the progress of a run and of the subflows in it."""
        now = time.monotonic()
        found = list(view.progress(now))
        for other in self._views:
            if other is not view and other.top is view:
                found += other.progress(now)
        return found

    def _progress(self, *, headed: bool = True) -> list[Line]:
        columns, rows = self._region.size if self._region is not None else (80, 24)
        lines: list[Line] = []
        for view in self._views:
            if view.parent is None:
                lines += [cut(view.heading(), columns - 1)] if headed else []
                nodes = self._nodes_of(view)
                room = max(
                    3, (min(rows, MAX_NODE_LINES + 5) - 4) // sum(v.parent is None for v in self._views) - 1
                )
                unicode = speaks_unicode(self.stream)
                lines += progress_lines(nodes, columns=columns, rows=room, unicode=unicode)
        return lines

    def _end_region(self, last: list[Line]) -> None:
        if self._region is not None:
            region, self._region = self._region, None
            region.close(last)


class DriverLogHandler(logging.Handler):
    """Shows warnings of Millrace itself, unless the user's program has its own way with log lines."""

    NAMES = ("millrace", "runners")

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen
        self._attached: list[logging.Logger] = []

    def attach(self) -> None:
        for name in self.NAMES:
            logger = logging.getLogger(name)
            if not logger.hasHandlers():
                logger.addHandler(self)
                self._attached.append(logger)

    def detach(self) -> None:
        while self._attached:
            self._attached.pop().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._screen.write([log_line(record.created, record.levelno, "millrace", self.format(record))])
        except Exception:
            self.handleError(record)


def log_line(at: float, level: int, whose: str, message: str) -> Line:
    """Return a log line: time, level, whose it is, message."""
    style = "red" if level >= logging.ERROR else "yellow" if level >= logging.WARNING else ""
    return [
        (words.clock(at), "dim"),
        (f" {logging.getLevelName(level):<7} ", style),
        (whose, "cyan"),
        (f"  {message}", style),
    ]
