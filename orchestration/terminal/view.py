"""One run on the screen."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.states import RunState
from . import summary, words
from .progress import NodeProgress, progress_text
from .screen import Screen, log_line
from .styled import Line
from .tally import Tally

if TYPE_CHECKING:
    from ..api.running import RunningFlow

MAX_SUBFLOW_LINES = 20


class RunView:
    """The display of a run: `with view: view.started() ... view.finish(row, counts)`."""

    def __init__(self, run: RunningFlow, screen: Screen) -> None:
        self.run_id = run.row.run_id
        self.name = run.row.name
        self.parent = parent_view(run, screen)
        self.subflows_told = 0
        self._run = run
        self._screen = screen
        self._tally = Tally(run.row.name, shown_level())
        self._began = time.monotonic()
        self._started: float | None = None  # when the runner was there
        self._told_of_cancelling = False
        run.driver.observers.append(self._tally.observe)

    @property
    def top(self) -> RunView:
        """The run that people have started, of which this may be a subflow."""
        view = self
        while view.parent is not None:
            view = view.parent
        return view

    def __enter__(self) -> RunView:
        self._began = time.monotonic()
        self._screen.enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.leave(self)

    def started(self) -> None:
        """The runner is there."""
        self._started = time.monotonic()
        if self.parent is None:
            runner, store = self._run.runner.describe(), self._run.store.url
            self._screen.write(summary.opening(self._run.row, runner, store), wrap=True)

    def finish(self, row: Any, counts: Sequence[int]) -> None:
        """The run has ended and is recorded."""
        started = self._started or self._began
        seconds, starting = time.monotonic() - started, started - self._began
        self._screen.close_region(self)
        recorded = self._run.store.url != "memory"
        if self.parent is None:
            lines = summary.closing(
                row, counts, self._tally, seconds, starting_seconds=starting, recorded=recorded
            )
            self._screen.write(lines, wrap=True)
            return
        top = self.top
        top.subflows_told += 1
        if top.subflows_told <= MAX_SUBFLOW_LINES:
            self._screen.write([summary.subflow_line(row, counts, seconds)])
        elif top.subflows_told == MAX_SUBFLOW_LINES + 1:
            self._screen.write([[("  further subflows are not listed here", "dim")]])

    # --- for the screen -------------------------------------------------------------------------

    def new_lines(self) -> list[Line]:
        """Return log lines, and news of the run, since the last call."""
        lines = [
            log_line(shown.line.at, shown.line.level, shown.whose, shown.line.message)
            for shown in self._tally.take_lines()
        ]
        dropped, self._tally.lines_dropped = self._tally.lines_dropped, 0
        if dropped:
            more = f"  ... {dropped:,} more log lines: millrace runs logs {self.name}"
            lines.append([(more, "dim")])
        if self._tally.state is RunState.CANCELLING and not self._told_of_cancelling and self.parent is None:
            self._told_of_cancelling = True
            text = f"cancelling {self.name}: press Ctrl-C again to stop at once"
            lines.append([(text, "yellow")])
        return lines

    def heading(self) -> Line:
        """Return the line above the progress of the nodes."""
        elapsed = words.left(time.monotonic() - self._began)
        if self._started is None:
            doing, awaited = self._beginning()
            return [(f"{self.name}  {doing}  {elapsed}{f'  ({awaited})' if awaited else ''}", "dim")]
        state = self._tally.state.title.lower()
        core = self._run.driver.core
        if core.cancelled:
            state = "cancelling"
        elif core.paused:
            state = f"paused (millrace runs resume {self.name})"
        return [(self.name, "bold"), (f"  {state}  {elapsed}", "dim")]

    def _beginning(self) -> tuple[str, str]:
        """Return what the run does before its first task run, and what it waits for, or ""."""
        row, runner = self._run.row, self._run.runner
        if row.state is RunState.PENDING and row.state_name == "AwaitingLimit":
            return "waiting for its turn", row.message
        awaited = runner.describe_start()
        return f"starting {type(runner).__name__}", f"waiting for {awaited}" if awaited else ""

    def plain_text(self, nodes: Sequence[NodeProgress]) -> str:
        """Return how far the run is, as one line."""
        if self._started is None:
            doing, awaited = self._beginning()
            elapsed = words.left(time.monotonic() - self._began)
            return f"{self.name}: {doing} for {elapsed}{f', {awaited}' if awaited else ''}"
        return progress_text(self.name, nodes)

    def progress(self, now: float) -> list[NodeProgress]:
        prefix = "" if self.parent is None else f"{self.name}/"
        return self._tally.progress(now, prefix)


def parent_view(run: RunningFlow, screen: Screen) -> RunView | None:
    """Return the view of the run that this one is a subflow of: of its flow function, or of one of its tasks."""
    task_run_id = run.row.parent_task_run_id or ""
    return screen.view_of(run.row.parent_run_id) or screen.view_of(task_run_id.partition("/")[0])


def shown_level() -> int:
    """Return the level from which on log lines of flows and tasks are shown: MILLRACE_LOG_LEVEL, else INFO."""
    name = os.environ.get("MILLRACE_LOG_LEVEL", "INFO")
    level = logging.getLevelNamesMapping().get(name.upper())
    if level is None:
        return int(name) if name.isdigit() else logging.INFO
    return level
