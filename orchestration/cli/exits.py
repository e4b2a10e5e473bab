"""Exit codes, for scripts."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command has ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    BACKEND = 3
    CRASHED = 4
    DEFECT = 5
    INTERRUPTED = 130


_MEANINGS = {
    Exit.OK: "done; the run completed",
    Exit.FAILED: "the run failed",
    Exit.USAGE: "wrong usage: a command, parameter or setting must change",
    Exit.BACKEND: "the store or the cluster failed",
    Exit.CRASHED: "the run crashed",
    Exit.DEFECT: "a defect of Millrace",
    Exit.INTERRUPTED: "the run was cancelled, or the command interrupted",
}


def describe() -> str:
    """Return the codes for `--help`."""
    lines = [f"  {int(code):<4} {meaning}" for code, meaning in _MEANINGS.items()]
    return "\b\nExit codes:\n" + "\n".join(lines)


def of_state(title: str) -> Exit:
    """Return the code for the final state of a run."""
    return {
        "Completed": Exit.OK,
        "Failed": Exit.FAILED,
        "Crashed": Exit.CRASHED,
        "Cancelled": Exit.INTERRUPTED,
    }.get(title, Exit.FAILED)
