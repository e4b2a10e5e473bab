"""What a flow run shows while it runs: progress, log lines, a summary; always on stderr.

MILLRACE_DISPLAY=auto|plain|off: by default a live display on a terminal and plain lines elsewhere.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..api.running import RunningFlow
    from .screen import Screen


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def started(self) -> None:
        return None

    def finish(self, row: Any, counts: Any) -> None:
        return None


def display_for(run: RunningFlow) -> Any:
    """Return the display of a run, a context manager with `started()` and `finish(row, counts)`."""
    mode = os.environ.get("MILLRACE_DISPLAY", "") or "auto"
    if mode == "off":
        return Silent()
    from .view import RunView, parent_view

    screen = _shared("plain" if mode == "plain" else "auto")
    if run.row.parent_task_run_id is not None and parent_view(run, screen) is None:
        return Silent()  # on a worker: the terminal, if there is one, belongs to the flow's process
    return RunView(run, screen)


_screens: dict[str, Screen] = {}


def _shared(mode: str) -> Screen:
    if mode not in _screens:
        from .screen import Screen

        _screens[mode] = Screen(plain_only=mode == "plain")
    return _screens[mode]


os.register_at_fork(after_in_child=_screens.clear)
