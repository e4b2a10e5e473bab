"""What is measured in one file: functions, classes, lines, imports, and McCabe's cyclomatic complexity.

The complexity of a function is 1 plus its decisions: `if` and `elif`, conditional expressions, loops, `except`
clauses, each `and`/`or`, each `for` and `if` of a comprehension, and each `case` that is not a catch-all. A
lambda's decisions count for the function around it; a nested function is measured on its own. `else`, `finally`,
`with` and `assert` are no decisions.
"""

from __future__ import annotations

import ast
import io
import sys
import threading
import tokenize
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

# Parsing warns of odd escapes in other people's code. `warnings.catch_warnings` is not safe between threads.
warnings.filterwarnings("ignore", category=SyntaxWarning, module="<census>")
warnings.filterwarnings("ignore", category=DeprecationWarning, module="<census>")

# Older Pythons count the recursion of all threads that make syntax trees in one place, and then raise "AST
# constructor recursion depth mismatch" (CPython issue 106905). They have a GIL, so a lock costs no speed. The
# lock does not keep out other code that parses, such as `traceback` formatting an error: see `parse`.
_OLD = sys.version_info < (3, 11, 9) or (3, 12) <= sys.version_info < (3, 12, 3)
_parsing: AbstractContextManager[object] = threading.Lock() if _OLD else nullcontext()


class FunctionMeasure(NamedTuple):
    """A function or method: its name within the module, and its size."""

    name: str
    line: int
    lines: int
    complexity: int


class Import(NamedTuple):
    """`import module`, or `from module import name` with `level` leading dots."""

    module: str
    name: str = ""
    level: int = 0


@dataclass(frozen=True, slots=True)
class FileMeasure:
    """What one file contains. `lines` counts all, `code_lines` neither blank ones nor pure comments."""

    name: str
    lines: int
    code_lines: int
    classes: int
    functions: list[FunctionMeasure] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)


def text_of(data: bytes) -> str:
    """Return a Python file's text, decoded as its coding line says, else as UTF-8.

    Raises:
        UnicodeDecodeError: it is no text in that encoding.
        SyntaxError: the coding line names no encoding, or the first lines are no text.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return io.TextIOWrapper(io.BytesIO(data), encoding).read()


def parse(text: str) -> ast.Module:
    """Return the syntax tree of a source text; on older Pythons try again after their own mistake."""
    while True:
        try:
            with _parsing:
                return ast.parse(text, "<census>")
        except SystemError as error:
            if not _OLD or "recursion depth mismatch" not in str(error):
                raise


def measure_source(name: str, text: str) -> FileMeasure:
    """Parse a file's text and measure it.

    Raises:
        SyntaxError: it is not Python, or not of this version.
        ValueError: it contains null bytes.
    """
    tree = parse(text)
    count = _Count()
    count.run(tree)
    lines = text.removesuffix("\n").split("\n") if text else []
    return FileMeasure(
        name=name,
        lines=len(lines),
        code_lines=sum(1 for line in lines if (bare := line.lstrip()) and bare[0] != "#"),
        classes=count.classes,
        functions=sorted(
            (FunctionMeasure(f.name, f.line, f.lines, f.complexity) for f in count.functions),
            key=lambda f: (f.line, f.name),
        ),
        imports=sorted(set(count.imports)),
    )


@dataclass(slots=True)
class _Scope:
    """Where decisions are counted: a function, or what is outside of all functions."""

    name: str = ""
    line: int = 0
    lines: int = 0
    complexity: int = 1


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_LEAVES = frozenset(
    {ast.Name, ast.Constant, ast.Load, ast.Store, ast.Del, ast.alias, ast.Pass, ast.Break, ast.Continue}
)


def _catches_all(case: ast.match_case) -> bool:
    pattern = case.pattern
    return case.guard is None and isinstance(pattern, ast.MatchAs) and pattern.pattern is None


_DECISIONS: dict[type[ast.AST], Callable[..., int]] = {
    ast.If: lambda node: 1,
    ast.IfExp: lambda node: 1,
    ast.For: lambda node: 1,
    ast.AsyncFor: lambda node: 1,
    ast.While: lambda node: 1,
    ast.ExceptHandler: lambda node: 1,
    ast.BoolOp: lambda node: len(node.values) - 1,
    ast.comprehension: lambda node: 1 + len(node.ifs),
    ast.match_case: lambda node: 0 if _catches_all(node) else 1,
}


class _Count:
    """Walks a tree with a stack of its own: some files nest deeper than Python recurses."""

    def __init__(self) -> None:
        self.classes = 0
        self.functions: list[_Scope] = []
        self.imports: list[Import] = []

    def run(self, tree: ast.Module) -> None:
        waiting: list[tuple[ast.AST, str, _Scope]] = [(tree, "", _Scope())]
        while waiting:
            node, prefix, scope = waiting.pop()
            kind = type(node)
            if kind in _SCOPES:
                prefix, scope = self._enter(node, prefix, scope)
            elif kind in _DECISIONS:
                scope.complexity += _DECISIONS[kind](node)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self._note_imports(node)
                continue
            for name in node._fields:
                value = getattr(node, name, None)
                if isinstance(value, list):
                    waiting += [
                        (part, prefix, scope)
                        for part in value
                        if isinstance(part, ast.AST) and type(part) not in _LEAVES
                    ]
                elif isinstance(value, ast.AST) and type(value) not in _LEAVES:
                    waiting.append((value, prefix, scope))

    def _enter(self, node: ast.AST, prefix: str, scope: _Scope) -> tuple[str, _Scope]:
        assert isinstance(node, _SCOPES)
        full = f"{prefix}{node.name}"
        if isinstance(node, ast.ClassDef):
            self.classes += 1
            return f"{full}.", scope
        made = _Scope(full, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1)
        self.functions.append(made)
        return f"{full}.", made

    def _note_imports(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            self.imports += [Import(alias.name) for alias in node.names]
        else:
            self.imports += [Import(node.module or "", alias.name, node.level) for alias in node.names]
