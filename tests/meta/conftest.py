"""Reads the project's own source for the tests that check its shape."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("runners", "orchestration")


@dataclass(frozen=True)
class Import:
    """One imported module, with its absolute name."""

    module: str
    names: tuple[str, ...]
    line: int
    relative: bool
    typing_only: bool


@dataclass(frozen=True)
class Source:
    """One Python file: its dotted name, and its text parsed."""

    name: str
    path: str
    text: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    def imports(self) -> list[Import]:
        """All imports, at whatever depth; those under `if TYPE_CHECKING:` are marked."""
        return list(self._walk(self.tree, typing_only=False))

    def _walk(self, node: ast.AST, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), node.lineno, False, typing_only)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            yield Import(self._absolute(node), names, node.lineno, node.level > 0, typing_only)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            for child in node.body:
                yield from self._walk(child, typing_only=True)
            for child in node.orelse:
                yield from self._walk(child, typing_only)
        else:
            for child in ast.iter_child_nodes(node):
                yield from self._walk(child, typing_only)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        parts = self.name.split(".")
        up = node.level - 1 if self.is_package else node.level
        base = parts[: len(parts) - up]
        return ".".join([*base, *([node.module] if node.module else [])])


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def read_sources(*folders: str) -> list[Source]:
    """Every .py file below the named top-level folders."""
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT)
            is_package = path.name == "__init__.py"
            dotted = relative.parent if is_package else relative.with_suffix("")
            text = path.read_text(encoding="utf-8")
            found.append(Source(".".join(dotted.parts), str(relative), text, is_package))
    return found


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """The two packages' files."""
    found = read_sources(*PACKAGES)
    assert {source.name for source in found} >= set(PACKAGES), "both packages have an __init__.py"
    return found


@pytest.fixture(scope="session")
def make_source() -> Callable[[str, str], Source]:
    """`make_source("orchestration.core.x", "import time")`: a file that exists only in the test."""
    return lambda name, text: Source(name, name.replace(".", "/") + ".py", text)
