"""Finding flows: `path/to/file.py:flow` or `package.module:flow`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import FlowNotFoundError
from .flows import Flow


def entrypoint_of(flow: Flow[Any, Any]) -> str:
    """Return how to find a flow again from another process, or "" if there is no way."""
    if flow.entrypoint:
        return flow.entrypoint
    qualname = getattr(flow.fn, "__qualname__", "")
    if not qualname or "<" in qualname:  # a lambda, or defined inside a function
        return ""
    try:
        file = inspect.getsourcefile(inspect.unwrap(flow.fn))
    except TypeError:
        file = None
    if file is None or file.startswith("<"):
        return ""
    return f"{Path(file).resolve()}:{qualname}"


def load_flow(entrypoint: str) -> Flow[Any, Any]:
    """Return the flow that an entry point names.

    Raises:
        FlowNotFoundError: no such file, module or flow; names what is there.
    """
    where, colon, name = entrypoint.rpartition(":")
    if not colon or not where or not name:
        raise FlowNotFoundError(
            f"{entrypoint!r} is no entry point. Write FILE.py:FLOW or MODULE:FLOW, for instance flows.py:refresh."
        )
    module = _load_file(Path(where)) if where.endswith(".py") else _import(where)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, Flow):
        if not found.entrypoint:
            found.entrypoint = entrypoint if not where.endswith(".py") else f"{Path(where).resolve()}:{name}"
        return found
    flows = sorted(key for key, value in vars(module).items() if isinstance(value, Flow))
    there = (
        f"It has: {', '.join(flows)}." if flows else "It has no flows; is there an @flow above the function?"
    )
    raise FlowNotFoundError(f"{where} has no flow {name!r}. {there}")


def _load_file(path: Path) -> ModuleType:
    """Import a file under the name it would have beside it, so that its own imports work."""
    path = path.resolve()
    if not path.is_file():
        raise FlowNotFoundError(f"there is no file {path}")
    if (path.parent / "__init__.py").is_file():
        return _load_in_package(path)
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    if loaded is not None:  # the name is taken, by the standard library for instance
        name = f"millrace_flow_{abs(hash(str(path))):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FlowNotFoundError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _load_in_package(path: Path) -> ModuleType:
    """Import a module of a package by its dotted name, so that its relative imports work."""
    for loaded in list(sys.modules.values()):
        if getattr(loaded, "__file__", None) == str(path) and loaded.__name__ != "__main__":
            return loaded
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    name = ".".join(part for part in parts if part != "__init__")
    module = importlib.import_module(name)
    if getattr(module, "__file__", None) != str(path):
        raise FlowNotFoundError(
            f"{path} cannot be imported as {name}: {getattr(module, '__file__', None)} has that name. "
            "Write PACKAGE.MODULE:FLOW."
        )
    return module


def _import(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise FlowNotFoundError(
                f"there is no module {name!r} (looked in {Path.cwd()} and sys.path)"
            ) from None
        raise
