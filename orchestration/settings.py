"""Settings: where records and results are kept, and which runner a flow gets by default.

A setting is an environment variable, else a key of `[tool.millrace]` in the nearest pyproject.toml, else a
default. Four strings do not need pydantic-settings: its import takes 0.3 s, most of what a hello flow may.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any

from .errors import UserError

_TABLE = re.compile(rb"^\s*\[\s*tool\s*\.\s*[\"']?millrace[\"']?\s*[\].]", re.MULTILINE)


def home() -> Path:
    """Return the folder of records and results: `MILLRACE_HOME`, `home`, else in the user's data folder."""
    named = _setting("MILLRACE_HOME", "home", is_path=True)
    if named is not None:
        return Path(named).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME", "")
    base = Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share"
    return base / "millrace"


def store_url() -> str:
    """Return where runs are recorded: `MILLRACE_STORE`, `MILLRACE_API_URL`, `store`, else a SQLite file in `home()`."""
    server = os.environ.get("MILLRACE_API_URL")
    if server and not os.environ.get("MILLRACE_STORE"):
        if not server.startswith(("http://", "https://")):
            raise UserError(f"MILLRACE_API_URL is {server!r}; it should be like https://host.example:4280")
        return server
    return _setting("MILLRACE_STORE", "store", is_path=True) or f"sqlite:///{home() / 'millrace.db'}"


def api_token() -> str:
    """Return by what a server knows this user, `MILLRACE_API_TOKEN`; "" if nothing is set."""
    return os.environ.get("MILLRACE_API_TOKEN", "").strip()


def api_ca() -> str | None:
    """Return the file of authorities that a server's certificate is believed from, `MILLRACE_API_CA`."""
    return os.environ.get("MILLRACE_API_CA") or None


def result_storage_url() -> str:
    """Return where results are persisted: `MILLRACE_RESULTS`, `results`, else a folder in `home()`."""
    return _setting("MILLRACE_RESULTS", "results", is_path=True) or str(home() / "results")


def runner_name() -> str | None:
    """Return the runner of flows that name none: `MILLRACE_RUNNER` or `runner`; None if neither is set."""
    return _setting("MILLRACE_RUNNER", "runner", is_path=False)


def log_loggers() -> list[str]:
    """Return the loggers whose lines are the run's, too: `MILLRACE_LOG_LOGGERS` or `log_loggers`, split at commas."""
    named = _setting("MILLRACE_LOG_LOGGERS", "log_loggers", is_path=False) or ""
    return [name for part in named.split(",") if (name := part.strip())]


def _setting(variable: str, key: str, *, is_path: bool) -> str | None:
    value = os.environ.get(variable)
    if value:
        return value
    folder, table = _project(os.getcwd())
    found = table.get(key)
    if found is None:
        return None
    if not isinstance(found, str) or not found:
        raise UserError(
            f"{key} in [tool.millrace] of {folder / 'pyproject.toml'} must be a text, not {found!r}."
        )
    plain = is_path and found != "memory" and ":" not in found and not found.startswith("~")
    return str(folder / found) if plain else found  # a relative path there is relative to that file


def _project(start: str) -> tuple[Path, dict[str, Any]]:
    for folder in (Path(start), *Path(start).parents):
        file = folder / "pyproject.toml"
        try:
            changed = file.stat().st_mtime_ns
        except OSError:
            continue
        return folder, _table(file, changed)
    return Path(start), {}


@functools.lru_cache(maxsize=8)
def _table(file: Path, changed: int) -> dict[str, Any]:
    try:
        text = file.read_bytes()
    except OSError:
        return {}
    if not _TABLE.search(text):
        return {}  # usual, and saves the import of a parser
    import tomllib

    try:
        table = tomllib.loads(text.decode()).get("tool", {}).get("millrace", {})
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise UserError(f"[tool.millrace] in {file} must be a table.")
    return table
