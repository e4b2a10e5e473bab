"""The comparison as text, at most 80 columns wide."""

from __future__ import annotations

import sys
import sysconfig
import textwrap
from collections.abc import Sequence

from .compare import RunRecord, cores

COLUMNS = ("runner", "task runs", "retried", "skipped", "failed", "start s", "seconds", "speed", "runs/s")
_WIDTHS = (10, 9, 7, 7, 6, 7, 7, 6, 7)


def runner_table(records: Sequence[RunRecord]) -> str:
    """Return a line per run."""
    lines = [_line(COLUMNS), _line(["-" * width for width in _WIDTHS])]
    lines += [_line(cells(record, records)) for record in records]
    return "\n".join(lines)


def cells(record: RunRecord, records: Sequence[RunRecord]) -> list[str]:
    """Return a run's row of the table."""
    return [
        record.runner,
        f"{record.task_runs:,}",
        f"{record.retried:,}",
        f"{record.count('Skipped'):,}",
        f"{record.count('Failed'):,}",
        f"{record.start_seconds:.1f}",
        f"{record.work_seconds:.1f}",
        speed(record, records),
        f"{record.task_runs / record.work_seconds:,.0f}" if record.work_seconds else "-",
    ]


def speed(record: RunRecord, records: Sequence[RunRecord]) -> str:
    """Return how many times faster than serial a run was, "-" if there was no serial run."""
    serial = next((r for r in records if r.runner == "sequential"), None)
    if serial is None or not record.work_seconds:
        return "-"
    return f"{serial.work_seconds / record.work_seconds:.2f}x"


def state_table(record: RunRecord) -> str:
    """Return a line per node with what became of its task runs."""
    lines = []
    for node, counts in record.states.items():
        words = ", ".join(f"{n:,} {state}" for state, n in counts.items())
        lines.append(f"  {node:<14}{words}")
    return "\n".join(lines)


def footnotes(records: Sequence[RunRecord], load: float = 0.0) -> list[str]:
    """Say what was measured, and what can be expected of this machine.

    Args:
        load: processes that wanted to run on this machine before the demo began, as `os.getloadavg` counts.
    """
    n = cores()
    never_ran = records[0].count("UpstreamFailed") if records else 0
    notes = [
        "seconds: from the start of the first task run to the end of the last one. start s: before that, the "
        "starting of the runner. Ending it is in neither.",
        f"speed: seconds of sequential / seconds. This machine lets the demo use {n} core{'s' * (n != 1)}, so "
        f"{n}.00x would be ideal.",
    ]
    if load > n / 2:
        notes.append(
            f"This machine was busy before the demo began (load average {load:.1f}), so seconds and speeds say "
            "little: a run that shares the cores with more work looks slower."
        )
    if "threads" in {record.runner for record in records} and _has_gil():
        notes.append(
            "threads: this Python runs one thread at a time, so threads do not speed up computing; they are for "
            "waiting on disks and networks."
        )
    if never_ran:
        notes.append(
            f"failed: files that could not be read or parsed, as they should. {never_ran:,} more task runs never "
            "ran, as their file could not be read (UpstreamFailed)."
        )
    return notes


def wrapped(notes: Sequence[str]) -> str:
    """Return notes broken at 80 columns."""
    return "\n".join(textwrap.fill(note, 80, initial_indent="  ", subsequent_indent="    ") for note in notes)


def _has_gil() -> bool:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return True
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _line(parts: Sequence[str]) -> str:
    texts = [
        f"{p:<{w}}" if i == 0 else f"{p:>{w}}" for i, (p, w) in enumerate(zip(parts, _WIDTHS, strict=True))
    ]
    return " ".join(texts).rstrip()
