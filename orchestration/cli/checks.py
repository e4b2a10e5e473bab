"""What `millrace doctor` looks at."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from runners.errors import BackendError, UserError

from .. import __version__, settings

DISTRIBUTION = "millrace"
LITTLE_SPACE_BYTES = 1 << 30
NO_SPACE_BYTES = 50 << 20
PACKAGES = ("orchestration", "runners")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `status`: ok, note or wrong; the text of what is wrong says what to do."""

    check: str
    status: str
    text: str


def all_checks(store_url: str | None) -> list[Finding]:
    """Return what was found, in the order in which problems depend on each other."""
    found: list[Finding] = []
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        versions,
        packages,
        shadows,
        engines,
        sqlite_version,
        lambda: store(store_url),
        results,
    )
    for check in checks:
        try:
            found += check()
        except (UserError, BackendError, OSError) as error:
            name = getattr(check, "__name__", "store").replace("<lambda>", "store")
            found.append(Finding(name, "wrong", f"{type(error).__name__}: {error}"))
    return found


def versions() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("millrace", "ok", f"{__version__} on Python {version} ({sys.executable})")
    try:
        installed = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        yield Finding(
            "installed", "note", f"no distribution {DISTRIBUTION!r}: running from a folder of sources"
        )
        return
    if installed != __version__:
        text = f"{DISTRIBUTION} {installed} is installed, but the loaded files are {__version__}"
        yield Finding("installed", "wrong", f"{text}: something else is loaded; see below")


def packages() -> Iterator[Finding]:
    """Which files are loaded, and whether another distribution brings packages of our names."""
    owners = metadata.packages_distributions()
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        file = spec.origin if spec is not None and spec.origin else "nowhere"
        others = sorted({d for d in owners.get(name, []) if d.lower() != DISTRIBUTION})
        if others:
            text = f"{file}\nThe distribution {', '.join(others)} installs a package {name!r}, too, and has"
            text += " overwritten files of ours:\n"
            text += f"pip uninstall {' '.join(others)}; pip install --force-reinstall millrace"
            yield Finding(name, "wrong", text)
        else:
            yield Finding(name, "ok", file)


def shadows() -> Iterator[Finding]:
    """Files in the current folder that `python script.py` would import in the place of ours."""
    ours = Path(__file__).resolve().parents[2]
    here = Path.cwd()
    if here == ours:
        return
    for name in PACKAGES:
        for file in (here / name / "__init__.py", here / f"{name}.py"):
            if file.exists():
                text = (
                    f"{file} hides our package {name!r} from scripts in {here}: rename it, or use python -P"
                )
                yield Finding("shadow", "wrong", text)


def engines() -> Iterator[Finding]:
    yield Finding("runners", "ok", "sequential, threads")
    for runner, distribution, extra in (("dask", "distributed", "dask"), ("ray", "ray", "ray")):
        try:
            yield Finding("runners", "ok", f"{runner}: {distribution} {metadata.version(distribution)}")
        except metadata.PackageNotFoundError:
            yield Finding("runners", "note", f"{runner} is not installed: pip install 'millrace[{extra}]'")
    chosen = settings.runner_name()
    if chosen:
        from ..api.running import RUNNERS

        known = chosen in RUNNERS or ":" in chosen
        yield Finding(
            "runners", "ok" if known else "wrong", f"MILLRACE_RUNNER or its setting says {chosen!r}"
        )


def sqlite_version() -> Iterator[Finding]:
    """SQLite 3.7.0 to 3.51.2 can corrupt a WAL file when two connections write and checkpoint at once."""
    text = sqlite3.sqlite_version
    if (3, 7, 0) <= sqlite3.sqlite_version_info < (3, 51, 3):
        text += ": has the WAL-reset bug (fixed in 3.51.3). Millrace's own lock keeps it from happening;\n"
        text += "do not write to the store's file with other programs while runs are going on"
        yield Finding("sqlite", "note", text)
    else:
        yield Finding("sqlite", "ok", text)


def store(url: str | None) -> Iterator[Finding]:
    from ..stores import open_store

    place = open_store(url)
    if place.url == "memory":
        yield Finding("store", "note", "in memory: nothing is kept when a process ends")
        return
    place.limits(place.now())
    dead = place.reap(place.now())
    if not place.url.startswith("sqlite:"):
        place.release(["doctor"])  # a write that changes nothing
        yield Finding("store", "ok", f"{place.url}, readable and writable")
        yield from _reaped(dead)
        return
    path = Path(place.url.removeprefix("sqlite:///"))
    for needed in (path, path.parent):
        if not os.access(needed, os.W_OK):
            yield Finding("store", "wrong", f"{needed} cannot be written by this user: chmod u+w {needed}")
            return
    size = path.stat().st_size
    yield Finding("store", "ok", f"{path} ({_size(size)}), readable and writable")
    yield from _reaped(dead)
    yield from _space("store", path.parent)


def _reaped(dead: Sequence[str]) -> Iterator[Finding]:
    if dead:
        yield Finding("store", "note", f"{len(dead)} runs of dead processes were marked as Crashed")


def results() -> Iterator[Finding]:
    """Write a file where results would go, and remove it."""
    from runners.storage import ResultStorage

    storage = ResultStorage(settings.result_storage_url())
    storage.write("doctor/check", [1])
    storage.remove("doctor")
    yield Finding("results", "ok", f"{storage.url}, writable")
    path = Path(storage.url)
    if path.is_dir():
        yield from _space("results", path)


def _space(check: str, folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    if free < LITTLE_SPACE_BYTES:
        status = "wrong" if free < NO_SPACE_BYTES else "note"
        yield Finding(check, status, f"only {_size(free)} are free on the disk of {folder}")
    else:
        yield Finding(check, "ok", f"{_size(free)} free on its disk")


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
