"""Lines made of styled parts, for terminals with and without colour."""

from __future__ import annotations

import os
import textwrap
from typing import Any, TextIO

Part = tuple[str, str]  # text, style
Line = list[Part]

_PUT_BY_PYTHON = ("C.UTF-8", "C.utf8", "UTF-8")  # in LC_CTYPE, where the locale was C (PEP 538)
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

STATE_STYLE = {
    "Completed": "green",
    "Failed": "red",
    "Crashed": "red",
    "UpstreamFailed": "red",
    "Cancelled": "yellow",
    "Cancelling": "yellow",
    "Paused": "yellow",
    "AwaitingRetry": "yellow",
    "Running": "cyan",
}


def is_terminal(stream: Any) -> bool:
    """Whether people look at a stream, on something that can move a cursor."""
    try:
        return bool(stream.isatty()) and os.environ.get("TERM", "") not in ("dumb", "")
    except (AttributeError, ValueError):  # no stream at all, or a closed one
        return False


def wants_colour(stream: Any) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def speaks_unicode(stream: TextIO) -> bool:
    """Whether a stream takes any character, and a terminal shows it."""
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    return encoding.startswith("utf") and not (is_terminal(stream) and _wants_ascii())


def _wants_ascii() -> bool:
    """Whether somebody has chosen the C locale: Python encodes as UTF-8 in spite of it."""
    ctype = os.environ.get("LC_CTYPE", "")
    chosen = "" if ctype in _PUT_BY_PYTHON else ctype
    return (os.environ.get("LC_ALL") or chosen or os.environ.get("LANG", "")) in ("C", "POSIX")


def ascii_only(line: Line) -> Line:
    """Return a line for terminals that show nothing else."""
    return [(text.replace("…", "~").encode("ascii", "replace").decode(), style) for text, style in line]


def plain(line: Line) -> str:
    return "".join(text for text, _ in line)


def ansi(line: Line) -> str:
    """Return a line with colour codes."""
    parts = []
    for text, style in line:
        codes = ";".join(_CODES[word] for word in style.split())
        parts.append(f"\x1b[{codes}m{text}\x1b[0m" if codes and text else text)
    return "".join(parts)


def cut(line: Line, columns: int) -> Line:
    """Return what fits, with an ellipsis where something does not."""
    if sum(len(text) for text, _ in line) <= columns:
        return line
    room, kept = columns - 1, list[Part]()
    for text, style in line:
        kept.append((text[:room], style))
        room -= len(text)
        if room <= 0:
            break
    return [*kept, ("…", "dim")]


def columns_of(stream: Any) -> int:
    """Return the width of a terminal, 80 where it is not known."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def wrapped(line: Line, columns: int) -> list[Line]:
    """Break a line at words, with its indentation kept. Paths and addresses stay whole; so does the first style."""
    text = plain(line)
    if len(text) <= columns:
        return [line]
    indent = " " * (len(text) - len(text.lstrip()))
    first, *more = textwrap.wrap(
        text.strip(),
        columns - 1,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    head, style = line[0]
    if len(line) == 1 or not first.startswith(head):
        return [[(part, style)] for part in (first, *more)]
    rest = line[1][1]
    return [[(head, style), (first[len(head) :], rest)], *([(part, rest)] for part in more)]
