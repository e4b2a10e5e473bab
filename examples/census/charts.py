"""Charts as inline SVG. Places and widths are in percent, so that text keeps its size on every screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a bar chart. `note` stands below the label; `parts` are values drawn one after another."""

    label: str
    parts: tuple[float, ...]
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of a treemap; `shade` is one of 0 to 4."""

    label: str
    value: float
    shade: int
    tip: str


def bars(rows: Sequence[Bar]) -> str:
    """Return a horizontal bar chart; the longest bar is as wide as there is room."""
    longest = max((sum(row.parts) for row in rows), default=0) or 1
    return '<ol class="bars">' + "".join(_bar(row, longest) for row in rows) + "</ol>"


def _bar(row: Bar, longest: float) -> str:
    rects, x = [], 0.0
    for number, part in enumerate(row.parts):
        width = 100 * part / longest
        rects.append(f'<rect class="part{number}" x="{x:.3f}%" width="{width:.3f}%" height="100%" rx="2"/>')
        x += width
    note = f"<small>{escape(row.note)}</small>" if row.note else ""
    return (
        f'<li><span class="label">{escape(row.label)}{note}</span>'
        f'<svg class="bar" role="img" aria-label="{escape(row.value)}">{"".join(rects)}</svg>'
        f'<span class="value">{escape(row.value)}</span></li>'
    )


def columns(labels: Sequence[str], values: Sequence[int], captions: Sequence[str]) -> str:
    """Return a column chart with a caption over and a label under each column."""
    highest = max(values, default=0) or 1
    step = 100 / max(len(values), 1)
    parts = []
    for i, (label, value, caption) in enumerate(zip(labels, values, captions, strict=True)):
        height = 150 * value / highest
        middle, x = (i + 0.5) * step, (i + 0.14) * step
        parts.append(
            f'<rect class="part0" x="{x:.2f}%" y="{176 - height:.1f}" width="{step * 0.72:.2f}%" '
            f'height="{height:.1f}" rx="2"/>'
            f'<text class="caption" x="{middle:.2f}%" y="{169 - height:.1f}">{escape(caption)}</text>'
            f'<text x="{middle:.2f}%" y="194">{escape(label)}</text>'
        )
    axis = '<line x1="0" x2="100%" y1="176.5" y2="176.5"/>'
    return f'<svg class="columns" role="img" height="200">{"".join(parts)}{axis}</svg>'


def treemap(tiles: Sequence[Tile], width: float, height: float, css: str) -> str:
    """Return a treemap for a space of about `width` x `height` pixels; it stretches to the space it gets."""
    ordered = sorted((tile for tile in tiles if tile.value > 0), key=lambda tile: -tile.value)
    parts = []
    for tile, (x, y, w, h) in zip(ordered, squarify([t.value for t in ordered], width, height), strict=True):
        place = (
            f'x="{100 * x / width:.3f}%" y="{100 * y / height:.3f}%" '
            f'width="{100 * w / width:.3f}%" height="{100 * h / height:.3f}%"'
        )
        fits = w > 7.2 * len(tile.label) + 10 and h > 20
        text = f'<text x="6" y="16">{escape(tile.label)}</text>' if fits else ""
        parts.append(
            f"<svg {place}><title>{escape(tile.tip)}</title>"
            f'<rect class="shade{tile.shade}" width="100%" height="100%"/>{text}</svg>'
        )
    return f'<svg class="treemap {css}" role="img" height="{height:.0f}">{"".join(parts)}</svg>'


Box = tuple[float, float, float, float]


def squarify(values: Sequence[float], width: float, height: float) -> list[Box]:
    """Return rectangles (x, y, width, height) with areas like `values`, which are in falling order, near squares.

    The algorithm of Bruls, Huizing and van Wijk: fill the shorter side row by row, and begin a new row when
    one more rectangle would make the row's worst shape worse.
    """
    total = sum(values)
    areas = [value * width * height / total for value in values] if total else []
    boxes: list[Box] = []
    x = y = 0.0
    start = 0
    while start < len(areas):
        side = min(width - x, height - y)
        end = start + 1
        while end < len(areas) and _worst(areas[start : end + 1], side) <= _worst(areas[start:end], side):
            end += 1
        row = areas[start:end]
        depth = sum(row) / side if side > 0 else 0.0
        along = 0.0
        lies = width - x < height - y  # the row lies along the top; else it stands at the left
        for area in row:
            length = area / depth if depth else 0.0
            boxes.append((x + along, y, length, depth) if lies else (x, y + along, depth, length))
            along += length
        x, y = (x, y + depth) if lies else (x + depth, y)
        start = end
    return boxes


def _worst(row: Iterable[float], side: float) -> float:
    areas = list(row)
    total = sum(areas)
    if not total or side <= 0:
        return 0.0
    return max(side * side * max(areas) / total**2, total**2 / (side * side * min(areas)))
