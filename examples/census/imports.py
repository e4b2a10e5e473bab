"""Which module an import statement means."""

from __future__ import annotations

from collections.abc import Container

from .discover import module_name
from .measure import FileMeasure, Import


def imported_modules(measure: FileMeasure, known: Container[str]) -> set[str]:
    """Return the modules that a file imports, each once, as absolute names.

    Left out: `__future__`, which is an order to the compiler; the file itself; relative imports that lead out
    of the top package.

    Args:
        known: the modules that there are, to tell `from package import module` from `from module import name`.
    """
    module = module_name(measure.name)
    package = module if measure.name.endswith("__init__.py") else module.rpartition(".")[0]
    found = {resolve(statement, package, known) for statement in measure.imports}
    return {name for name in found if name} - {"__future__", module}


def resolve(statement: Import, package: str, known: Container[str]) -> str:
    """Return the absolute name of the module that is imported, "" if there can be none.

    Args:
        package: the package in which the statement stands, "" for a top-level module.
    """
    base = statement.module
    if statement.level:
        parts = package.split(".") if package else []
        if statement.level > len(parts):
            return ""
        parts = parts[: len(parts) - statement.level + 1]
        base = ".".join([*parts, base] if base else parts)
    inner = f"{base}.{statement.name}"
    return inner if statement.name and inner in known else base
