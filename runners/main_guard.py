"""Scripts that run a flow when they are imported, and processes that are started by importing them again."""

from __future__ import annotations

import multiprocessing
import sys
import threading

CURE = "Put what starts flows below `if __name__ == '__main__':`."


def refuse_in_child(what: str) -> None:
    """End this process if it was spawned and still imports its parent's script; harmless everywhere else.

    Args:
        what: what would start here once more, such as "flow 'load'".

    Raises:
        SystemExit: with one line of text. An error would print the frames of `multiprocessing` and of ours from
            each worker process, and a script that goes on after errors would start its next flow.
    """
    if not getattr(multiprocessing.current_process(), "_inheriting", False):
        return
    raise SystemExit(
        f"{_line_of_main()}{what} would start again in this worker process, because a worker process begins by "
        f"importing the script. {CURE}"
    )


def _line_of_main() -> str:
    """Return "file, line n: " of the script's line that runs now; "" where it is not to be seen."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_globals.get("__name__") == "__mp_main__" and frame.f_code.co_name == "<module>":
            return f"{frame.f_code.co_filename}, line {frame.f_lineno}: "
        frame = frame.f_back
    return ""
