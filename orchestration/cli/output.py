"""What commands print: tables, JSON, errors. People and scripts read the same facts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from ..terminal.styled import (
    Line,
    ansi,
    ascii_only,
    columns_of,
    is_terminal,
    plain,
    speaks_unicode,
    wants_colour,
    wrapped,
)

GAP = "  "
MIN_WIDTH = 8  # of columns that give way


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_lines(lines: Sequence[Line], *, wrap: bool = False) -> None:
    """Print styled lines, with colour only where people see it, in ASCII where nothing else can be shown.

    Args:
        wrap: on a terminal they break at words.
    """
    if wrap and is_terminal(sys.stdout):
        lines = [part for line in lines for part in wrapped(line, columns_of(sys.stdout))]
    paint, unicode = ansi if wants_colour(sys.stdout) else plain, speaks_unicode(sys.stdout)
    for line in lines:
        sys.stdout.write(paint(line if unicode else ascii_only(line)) + "\n")
    sys.stdout.flush()


def print_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[int] = frozenset(),
    styles: Sequence[Sequence[str]] = (),
    shrink: Sequence[int | tuple[int, ...]] = (),
) -> None:
    """Print columns. On a terminal the columns in `shrink` give way until a row fits; in a pipe nothing is cut.

    Args:
        right: columns that are aligned to the right.
        styles: of each cell, by row.
        shrink: columns that may lose their ends, those first that hurt least; of several together the widest gives
            way. An index at the end of a cell stays: it may be all that tells rows apart.
    """
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    if is_terminal(sys.stdout):
        _narrow(widths, shrink, columns_of(sys.stdout))

    def line(cells: Sequence[str], look: Sequence[str]) -> Line:
        made: Line = []
        for k, cell in enumerate(cells):
            text = cell if len(cell) <= widths[k] else _cut(cell, widths[k])
            text = text.rjust(widths[k]) if k in right else text.ljust(widths[k])
            last = k == len(cells) - 1
            made.append((text.rstrip() if last and k not in right else text, look[k] if look else ""))
            made.append(("" if last else GAP, ""))
        return made

    lines = [line(head, ["bold"] * len(head))]
    lines += [line(row, styles[n] if styles else ()) for n, row in enumerate(rows)]
    print_lines(lines)


def _narrow(widths: list[int], shrink: Sequence[int | tuple[int, ...]], columns: int) -> None:
    over = sum(widths) + len(GAP) * (len(widths) - 1) - columns
    for together in shrink:
        among = (together,) if isinstance(together, int) else together
        while over > 0 and max(widths[k] for k in among) > MIN_WIDTH:
            widths[max(among, key=lambda k: widths[k])] -= 1
            over -= 1


def _cut(cell: str, width: int) -> str:
    """Cut a cell, but not its index: `a_long_name[17]` becomes `a_lo…[17]`."""
    name, bracket, index = cell.rpartition("[")
    tail = bracket + index if cell.endswith("]") and name and len(index) <= width // 2 else ""
    return f"{cell[: width - 1 - len(tail)]}…{tail}"


def error_text(error: BaseException) -> str:
    """Return an error as one message: name, cause, cure."""
    name = type(error).__name__
    return f"{'error' if name in ('UserError', 'BackendError') else name}: {error}"


def print_traceback(error: BaseException) -> None:
    """Print a flow's exception as Python would, without the frames of Millrace in between."""
    import traceback

    from runners.errors import RemoteTraceback

    if isinstance(error.__cause__, RemoteTraceback):  # where the task raised is what matters
        click.echo(error.__cause__.text.rstrip(), err=True)
        return
    shown = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = shown
    while part is not None:
        part.stack = traceback.StackSummary.from_list(
            [frame for frame in part.stack if not _is_ours(frame.filename)]
        )
        part = part.__cause__ or part.__context__
    click.echo("".join(shown.format()).rstrip(), err=True)


_OURS = tuple(
    os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), name) + os.sep
    for name in ("orchestration", "runners")
)


def is_ours(error: BaseException) -> bool:
    """Whether an exception was raised by Millrace itself, not by the user's code or a library."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and _is_ours(trace.tb_frame.f_code.co_filename)


def _is_ours(file: str) -> bool:
    return file.startswith((*_OURS, "<frozen importlib"))
