"""How far nodes are, as lines of a given width: pure, shared by the live display, plain lines and `runs watch`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.states import TERMINAL, State
from . import words
from .styled import Line, cut

RATE_WINDOW_SECONDS = 10.0
MAX_NODE_LINES = 12
MAX_NAME_COLUMNS = 24


class Speed:
    """Items per second over the last seconds."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def begin(self, now: float) -> None:
        """Count from here on, unless it has begun."""
        if not self._marks:
            self._marks.append((now, 0))

    def update(self, now: float, done: int) -> float | None:
        """Note how many are done; return the speed, None while it is not known."""
        marks = self._marks
        marks.append((now, done))
        while len(marks) > 2 and now - marks[1][0] >= RATE_WINDOW_SECONDS:
            marks.popleft()
        seconds, items = now - marks[0][0], done - marks[0][1]
        return items / seconds if seconds > 0.2 and items > 0 else None


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """One node at one time. `width` None: not learned yet."""

    name: str
    width: int | None
    counts: Sequence[int]
    rate: float | None = None

    @property
    def done(self) -> int:
        return sum(self.counts[state] for state in TERMINAL)

    @property
    def finished(self) -> bool:
        return self.width is not None and self.done >= self.width

    @property
    def total(self) -> str:
        return "?" if self.width is None else f"{self.width:,}"

    @property
    def amount(self) -> str:
        return f"{self.done:,}/{self.total}"

    @property
    def seconds_left(self) -> float | None:
        if self.rate is None or self.width is None or self.finished:
            return None
        return (self.width - self.done) / self.rate

    def notes(self) -> list[tuple[str, str]]:
        """Return what is out of the ordinary: (words, style)."""
        counts = self.counts
        found = [
            (counts[State.FAILED], "failed", "red"),
            (counts[State.CRASHED], "crashed", "red"),
            (counts[State.UPSTREAM_FAILED], "upstream failed", "red"),
            (counts[State.CANCELLED], "cancelled", "yellow"),
            (counts[State.SKIPPED], "skipped", ""),
            (counts[State.AWAITING_RETRY], "retrying", "yellow"),
            (counts[State.AWAITING_LIMIT], "at limit", "yellow"),
            (counts[State.PAUSED], "paused", "yellow"),
        ]
        return [(f"{number:,} {what}", style) for number, what, style in found if number]


def shown(nodes: Sequence[NodeProgress], limit: int) -> tuple[list[NodeProgress], list[NodeProgress]]:
    """Return (nodes to show, the folded rest): the rest is what has finished longest ago, then what waits."""
    if len(nodes) <= limit:
        return list(nodes), []
    keep = max(1, limit - 1)  # a line tells of the rest

    def rank(position: int) -> tuple[int, int]:
        node = nodes[position]
        if node.finished:
            return (2, -position)
        return (0 if node.counts[State.RUNNING] or node.done else 1, position)

    chosen = set(sorted(range(len(nodes)), key=rank)[:keep])
    return [n for i, n in enumerate(nodes) if i in chosen], [
        n for i, n in enumerate(nodes) if i not in chosen
    ]


def progress_lines(
    nodes: Sequence[NodeProgress],
    *,
    columns: int = 80,
    rows: int = MAX_NODE_LINES,
    unicode: bool = True,
    bars: bool = True,
) -> list[Line]:
    """Return one line per node, and one for those that find no place."""
    front, rest = shown(nodes, rows)
    if not front:
        return []
    columns -= 1  # the last one makes some terminals wrap
    name_columns = min(MAX_NAME_COLUMNS, columns // 3, max(len(n.name) for n in front))
    figures = _aligned([n.amount for n in front])
    for texts in ([_rate(n) for n in front], [_left(n) for n in front]):
        figures = [f + t for f, t in zip(figures, _aligned(texts), strict=True)]
    notes = [_notes(n) for n in front]
    longest = max(sum(len(text) for text, _ in line) for line in notes)
    bar_columns = max(min(8, columns // 8), min(24, columns - 6 - name_columns - len(figures[0]) - longest))
    lines: list[Line] = []
    for node, figure, note in zip(front, figures, notes, strict=True):
        name = ("  " + _fit(node.name, name_columns) + "  ", "dim" if node.finished else "")
        bar = _bar(node, bar_columns, unicode) if bars else []
        line: Line = [name, *bar, (figure, ""), *note]
        lines.append(cut(line, columns))
    if rest:
        lines.append([(f"  + {_folded(rest)}", "dim")])
    return lines


def progress_text(name: str, nodes: Sequence[NodeProgress], limit: int = 3) -> str:
    """Return the progress of a run as one line of plain text."""
    going = [n for n in nodes if not n.finished]
    front, rest = shown(going, limit)
    parts = []
    for node in front:
        notes = [text for text, _ in node.notes()]
        if node.rate is not None:
            notes.append(words.rate(node.rate))
        if node.seconds_left is not None:
            notes.append(f"{words.left(node.seconds_left)} left")
        parts.append(f"{node.name} {node.amount}" + (f" ({', '.join(notes)})" if notes else ""))
    rest = [*rest, *(n for n in nodes if n.finished)]
    if rest:
        parts.append(f"+ {_folded(rest)}" if parts else _folded(rest))
    return f"{name}: {'; '.join(parts) if parts else 'no task runs yet'}"


def _folded(rest: Sequence[NodeProgress]) -> str:
    finished = sum(n.finished for n in rest)
    bad = sum(n.counts[s] for n in rest for s in (State.FAILED, State.CRASHED))
    notes = [f"{finished:,} finished" if finished < len(rest) else "finished"] if finished else []
    if bad:
        notes.append(f"{bad:,} failed")
    return words.plural(len(rest), "more node") + (f" ({', '.join(notes)})" if notes else "")


def _aligned(texts: Sequence[str]) -> list[str]:
    """Return texts as a column, with a gap before it; nothing if all are empty."""
    columns = max(map(len, texts))
    return [f"  {text:>{columns}}" if columns else "" for text in texts]


def _rate(node: NodeProgress) -> str:
    return "" if node.rate is None or node.finished else words.rate(node.rate)


def _left(node: NodeProgress) -> str:
    seconds = node.seconds_left
    return "" if seconds is None else f"{words.left(seconds)} left"


def _notes(node: NodeProgress) -> Line:
    line: Line = []
    for text, style in node.notes():
        line += [(", " if line else "  ", ""), (text, style)]
    return line


def _fit(name: str, columns: int) -> str:
    return name.ljust(columns) if len(name) <= columns else name[: columns - 1] + "…"


def _bar(node: NodeProgress, columns: int, unicode: bool) -> Line:
    full, empty = ("━", "─") if unicode else ("#", "-")
    total = node.width or 0
    if not total:
        return [((full if node.finished else empty) * columns, "green" if node.finished else "dim")]
    bad = sum(node.counts[s] for s in words.BAD)
    reach = columns * node.done // total
    red = min(reach, max(1, columns * bad // total)) if bad else 0
    style = "green" if node.finished else "cyan"
    return [(full * (reach - red), style), (full * red, "red"), (empty * (columns - reach), "dim")]
