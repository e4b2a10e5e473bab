"""The coordinator does no I/O and asks nobody for the time: that is what makes it run in simulation."""

from __future__ import annotations

import ast
from typing import Any

import pytest

ALLOWED_MODULES = {
    "__future__",
    "abc",
    "array",
    "bisect",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "string",
    "struct",
    "types",
    "typing",
}
# Names for annotations only: a random.Random is handed in, never made or shared.
ALLOWED_FOR_TYPING = ALLOWED_MODULES | {"random"}
ALLOWED_PACKAGES = ("orchestration.core", "runners.messages")
FORBIDDEN_BUILTINS = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}


def impurities(source: Any) -> list[str]:
    """What in a file would tie it to a clock, a thread, a file or a log; empty when there is nothing."""
    found = []
    for item in source.imports():
        allowed = ALLOWED_FOR_TYPING if item.typing_only else ALLOWED_MODULES
        modules = [item.module]
        if item.module in {"orchestration", "runners"}:
            modules = [f"{item.module}.{name}" for name in item.names]
        for module in modules:
            if module not in allowed and not _inside(module, ALLOWED_PACKAGES):
                found.append(f"{source.path}:{item.line} imports {module}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in FORBIDDEN_BUILTINS:
            found.append(f"{source.path}:{node.lineno} calls {ast.unparse(node.func)}")
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            found.append(f"{source.path}:{node.lineno} is asynchronous")
    return found


def _inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def test_core_imports_only_what_is_pure(sources: list[Any]) -> None:
    """The core reaches no clock, thread, socket, log or library; nor do the messages that it reads."""
    pure = [s for s in sources if _inside(s.name, ALLOWED_PACKAGES)]
    assert any(s.name == "orchestration.core" for s in pure)
    problems = [problem for source in pure for problem in impurities(source)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "import os.path",
        "from datetime import datetime",
        "def f():\n    import logging",
        "import random",
        "from ..driver import loop",
        "from .. import stores",
        "from runners import dask",
        "from runners.worker import run",
        "import msgpack",
        "print('x')",
        "async def f(): ...",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import threading",
    ],
)
def test_the_check_finds_each_kind_of_impurity(make_source: Any, text: str) -> None:
    """The check itself is not blind."""
    assert impurities(make_source("orchestration.core.sample", text))


@pytest.mark.parametrize(
    "text",
    [
        "from collections.abc import Iterator",
        "from .states import State",
        "from . import retry",
        "from runners.messages import Item",
        "from runners import messages",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from random import Random",
    ],
)
def test_the_check_allows_what_the_core_needs(make_source: Any, text: str) -> None:
    """Pure modules, the core's own files and the plain messages are free to use."""
    assert impurities(make_source("orchestration.core.sample", text)) == []
