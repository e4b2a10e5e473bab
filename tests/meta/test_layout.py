"""The project's folders, and the length of its files and functions."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOP_LEVEL = {
    "pyproject.toml",
    "README.md",
    "Makefile",
    "uv.lock",
    "LICENSE",
    "runners",
    "orchestration",
    "benchmarks",
    "tests",
    "docs",
    "examples",
}
MAX_FILE_LINES = 500
MAX_BODY_LINES = 60
# Each exception says why cutting the file or function would make it harder to read.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}


def files_of(root: Path) -> list[str]:
    """What git tracks or would track."""
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name]


def functions_of(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Each function with the number of lines of its body, its docstring not counted."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        if body:
            yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1


def test_nothing_but_the_agreed_entries_at_the_top(root: Path) -> None:
    """A reader sees the whole project at one glance."""
    top = {name.split("/")[0] for name in files_of(root)}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


def test_no_package_markers_in_tests(root: Path) -> None:
    """Tests are imported by path, so two files may have the same name and none is importable by accident."""
    assert [name for name in files_of(root) if name.startswith("tests/") and "__init__" in name] == []


def test_decision_notes_are_short_and_listed(root: Path) -> None:
    """A note has at most 80 lines and the index names it."""
    folder = root / "orchestration" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for note in folder.glob("[0-9]*.md"):
        assert len(note.read_text(encoding="utf-8").splitlines()) <= 80, note.name
        assert note.name in index, f"{note.name} is not in the index"


def test_files_are_short(sources: list[Any]) -> None:
    """A file that needs scrolling for minutes hides two subjects."""
    long = {s.path: n for s in sources if (n := len(s.text.splitlines())) > MAX_FILE_LINES}
    assert {path: n for path, n in long.items() if path not in LONG_FILES} == {}
    assert set(LONG_FILES) <= set(long), "an exception that is no longer needed"


def test_functions_are_short(sources: list[Any]) -> None:
    """A body fits on one screen."""
    long = {f"{s.path}:{name}": n for s in sources for name, n in functions_of(s.tree) if n > MAX_BODY_LINES}
    assert {name: n for name, n in long.items() if name not in LONG_FUNCTIONS} == {}
    assert set(LONG_FUNCTIONS) <= set(long), "an exception that is no longer needed"


def test_choices_of_what_to_do_are_written_as_if(sources: list[Any]) -> None:
    """A conditional expression whose value nobody takes hides that one of two things is done."""
    hidden = [
        f"{s.path}:{node.lineno}"
        for s in sources
        for node in ast.walk(s.tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.IfExp | ast.BoolOp | ast.ListComp)
    ]
    assert hidden == []
