"""Turns what SQLite and the system report into errors that name the file, the cause and the cure."""

from __future__ import annotations

import errno
import os
import sqlite3

from ...errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreNewerError,
    StoreReadOnlyError,
)

_NEARLY_NOTHING = 1 << 20  # bytes free below which a failed write is taken for a full disk


def explain(error: sqlite3.Error | OSError, path: str) -> Exception:
    """Return the error to raise in place of `error`; the same one if it says nothing about the file."""
    if isinstance(error, OSError):
        return _explain_system(error, path)
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(code, int):
        return error
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return full(path)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return locked(path)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return read_only(path, str(error))
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return corrupt(path, str(error))
        case sqlite3.SQLITE_CANTOPEN:
            return _explain_unopened(path, str(error))
        case sqlite3.SQLITE_IOERR:
            return _explain_io(path, error)
        case _:
            return error


def full(path: str) -> StoreFullError:
    return StoreFullError(
        f"No space is left for the store {path}. Free some on the disk of {os.path.dirname(path)}, or set "
        f"MILLRACE_HOME or MILLRACE_STORE to a place with room. What was recorded before is safe."
    )


def locked(path: str, seconds: float | None = None, holder: int | None = None) -> StoreLockedError:
    """Say who does not let others write, and what to do about it.

    Args:
        holder: the process, if it is known.
    """
    waited = f" for {seconds:g} s" if seconds is not None else " for too long"
    who = f"Process {holder}" if holder is not None else "Another process"
    cure = (
        "look for an open transaction in a database tool or a stopped process "
        f"(`fuser {path}` names them) and end it."
    )
    if holder is not None:
        cure = f"end process {holder}, and what it has not committed is undone (`kill -9 {holder}`)."
        if _is_stopped(holder):
            cure = f"it is suspended: let it go on (`kill -CONT {holder}`), or {cure}"
    return StoreLockedError(
        f"{who} has held the write lock of the store {path}{waited}. Millrace holds it for milliseconds: {cure}"
    )


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


def read_only(path: str, cause: str) -> StoreReadOnlyError:
    return StoreReadOnlyError(
        f"The store {path} cannot be written ({cause}). Make the file and its folder writable for this user, "
        f"or set MILLRACE_HOME or MILLRACE_STORE to a place that is."
    )


def is_frozen(error: sqlite3.Error, path: str) -> bool:
    """Tell whether a store could not be opened only because its folder cannot be written.

    Such a file can be read as it stands, because nobody changes it while no -wal file is there.

    Raises:
        StoreReadOnlyError: the -wal file has records that cannot be read without writing.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or not os.path.isfile(path):
        return False
    if os.access(os.path.dirname(path), os.W_OK) or not os.access(path, os.R_OK):
        return False
    if os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal"):
        raise StoreReadOnlyError(
            f"The store {path} lies in a folder that cannot be written, and its newest records are in {path}-wal, "
            f"which cannot be read there. Copy both files to a folder that can be written, and name the copy."
        ) from error
    return True


def corrupt(path: str, cause: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"The store {path} is damaged or is no Millrace store ({cause}). Move it away with its -wal and -shm "
        f"files and a new one is made; `sqlite3 {path} .recover` shows what can still be read."
    )


def newer(path: str, found: int, known: int) -> StoreNewerError:
    return StoreNewerError(
        f"The store {path} was written by a newer version of Millrace (schema {found}, this version knows "
        f"{known}). Upgrade this installation (`pip install --upgrade millrace`), or name another store with "
        f"MILLRACE_STORE."
    )


def _explain_system(error: OSError, path: str) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return full(path)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return read_only(path, error.strerror or str(error))
    if error.errno == errno.ENOENT and error.filename == path:
        return _gone(path)
    return StoreError(
        f"The store {path} cannot be used: {error.strerror or error} ({error.filename or path}). Set "
        f"MILLRACE_HOME or MILLRACE_STORE to another place."
    )


def _explain_unopened(path: str, cause: str) -> Exception:
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        return StoreError(f"The store {path} is a folder. Name a file, such as {path}/millrace.db.")
    if not os.path.exists(path):
        return _gone(path)
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(folder, os.W_OK):
        return read_only(path, cause)
    if _free_bytes(folder) < _NEARLY_NOTHING:
        return full(path)  # its -wal or -shm file could not be made
    return StoreError(
        f"The store {path} cannot be opened ({cause}). See whether the process is out of open files."
    )


def _gone(path: str) -> Exception:
    return StoreError(f"The store {path} is gone: it was moved or deleted. Put it back, or name another one.")


def _explain_io(path: str, error: sqlite3.Error) -> Exception:
    # SQLite says FULL only for ENOSPC of a write; a file size limit, or no room for -shm, is an I/O error.
    if _free_bytes(os.path.dirname(path)) < _NEARLY_NOTHING or _at_size_limit(path):
        return full(path)
    name = getattr(error, "sqlite_errorname", "")
    return StoreError(
        f"Reading or writing the store {path} failed ({error}, {name}). Look into the system's log for "
        f"faults of its disk; what was recorded before is safe if the disk is."
    )


def _free_bytes(folder: str) -> int:
    try:
        status = os.statvfs(folder)
    except OSError:
        return _NEARLY_NOTHING
    return status.f_bavail * status.f_frsize


def _at_size_limit(path: str) -> bool:
    try:
        import resource
    except ImportError:  # not on Windows
        return False
    bound = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if bound == resource.RLIM_INFINITY:
        return False
    sizes = [os.path.getsize(f) for f in (path, f"{path}-wal") if os.path.exists(f)]
    return any(size + _NEARLY_NOTHING > bound for size in sizes)
