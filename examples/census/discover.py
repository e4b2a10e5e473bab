"""Which files are counted: the standard library and the installed packages of the running Python."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__", ".git", "node_modules"})
STDLIB = "stdlib"


class SourceFile(NamedTuple):
    """A file that is to be measured.

    Attributes:
        name: its path below the folder it was found in, with slashes: "asyncio/events.py".
        path: where it lies.
        package: the top package ("numpy"); of the standard library "stdlib/asyncio", or "stdlib" for single modules.
        size: in bytes; -1 if it could not be asked.
    """

    package: str
    name: str
    path: str
    size: int


def default_roots() -> list[str]:
    """Return the folders of the standard library and of the installed packages, the former first."""
    paths = sysconfig.get_paths()
    return list(dict.fromkeys(os.path.realpath(paths[key]) for key in ("stdlib", "purelib", "platlib")))


def find_files(roots: Sequence[str], limit: int = 0) -> list[SourceFile]:
    """Return the `.py` files below some folders, sorted by package and name.

    Args:
        roots: a name that is in several of them counts once, the first time.
        limit: at most so many of each folder, spread evenly over it; 0 for all.
    """
    stdlib = os.path.realpath(sysconfig.get_paths()["stdlib"])
    found: dict[tuple[str, str], SourceFile] = {}
    for root in map(os.path.realpath, roots):
        for path in evenly(list(_python_files(root)), limit):
            name = os.path.relpath(path, root).replace(os.sep, "/")
            package = _package(name, in_stdlib=root == stdlib)
            found.setdefault((package, name), SourceFile(package, name, path, _size(path)))
    return [found[key] for key in sorted(found)]


def evenly(files: list[str], limit: int) -> list[str]:
    """Return at most `limit` of some files, every n-th; the same ones each time."""
    if not 0 < limit < len(files):
        return files
    return [files[i * len(files) // limit] for i in range(limit)]


def module_name(name: str) -> str:
    """Return the module that a file is: "asyncio.events" for "asyncio/events.py", "asyncio" for its __init__."""
    parts = name.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def by_package(files: Iterable[SourceFile]) -> dict[str, range]:
    """Return where each package's files stand in a list that is sorted by package."""
    places: dict[str, range] = {}
    for position, file in enumerate(files):
        start = places[file.package].start if file.package in places else position
        places[file.package] = range(start, position + 1)
    return places


def _package(name: str, *, in_stdlib: bool) -> str:
    top, inside, _ = name.partition("/")
    if in_stdlib:
        return f"{STDLIB}/{top}" if inside else STDLIB
    return top.removesuffix(".py")


def _python_files(root: str) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in _LEFT_OUT)
        yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(".py"))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # a link to nowhere, or gone by now: reading it will tell
        return -1
