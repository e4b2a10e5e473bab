"""The part of a terminal that is drawn again and again. The only module here that imports rich."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from .styled import Line, is_terminal


class Region:
    """Progress at the bottom of a terminal, with lines printed above it."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True, force_jupyter=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            # What the program prints must not tear the region; but its redirected output is not ours.
            redirect_stdout=is_terminal(sys.stdout),
            redirect_stderr=True,
            vertical_overflow="crop",
        )
        self._live.start()
        self._console.show_cursor(True)  # a killed process cannot give it back

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal as it is now."""
        size = self._console.size
        return size.width, size.height

    def print(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._console.print(_text(line), soft_wrap=True)

    def update(self, lines: list[Line]) -> None:
        self._live.update(_all(lines), refresh=True)

    def close(self, last: list[Line]) -> None:
        """Leave `last` in place of what is drawn again."""
        self._live.update(_all(last))
        if not last:
            self._live.transient = True
        self._live.stop()


def _text(line: Line) -> Text:
    return Text.assemble(*((text, style) for text, style in line if text))


def _all(lines: list[Line]) -> Text:
    return Text("\n", no_wrap=True, overflow="crop").join(_text(line) for line in lines)
