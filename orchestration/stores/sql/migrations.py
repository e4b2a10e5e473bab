"""Numbered SQL files: `0001_init.sql` and so on, applied forward only."""

from __future__ import annotations

from pathlib import Path


def migrations(folder: Path) -> list[tuple[int, Path]]:
    """Return the files with their numbers, in order."""
    return sorted((int(path.name[:4]), path) for path in folder.glob("[0-9]*.sql"))
