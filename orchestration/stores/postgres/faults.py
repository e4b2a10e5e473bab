"""Turns what PostgreSQL reports into errors that name the server, the cause and the cure."""

from __future__ import annotations

import psycopg
from psycopg import errors

from ...errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreNewerError,
    StoreReadOnlyError,
    StoreUnreachableError,
)

_GONE = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.IdleInTransactionSessionTimeout,
    errors.IdleSessionTimeout,
)
_CONFLICTS = (errors.SerializationFailure, errors.DeadlockDetected)


def is_lost(error: psycopg.Error, raw: psycopg.Connection | None) -> bool:
    """Tell whether the connection is gone, or was not to be had (None), so that another one may help."""
    if raw is not None and (raw.closed or raw.broken):
        return True
    return isinstance(error, _GONE) or (
        isinstance(error, psycopg.OperationalError) and error.sqlstate is None
    )


def is_conflict(error: psycopg.Error) -> bool:
    """Tell whether the transaction was given up for the sake of another one, and may be repeated."""
    return isinstance(error, _CONFLICTS)


def explain(error: psycopg.Error, shown: str) -> Exception:
    """Return the error to raise in place of `error`; the same one if it says nothing about the server."""
    cause = _cause(error)
    match error:
        case errors.DiskFull():
            return StoreFullError(
                f"No space is left for the store {shown} ({cause}). Free some on the server's disk, for example with "
                f"`millrace store prune`. What was recorded before is safe."
            )
        case errors.LockNotAvailable() | errors.QueryCanceled() | errors.DeadlockDetected():
            return StoreLockedError(
                f"The store {shown} did not answer in time ({cause}). Look for an open transaction in a database "
                f"tool: SELECT pid, query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
            )
        case errors.ReadOnlySqlTransaction():
            return StoreReadOnlyError(
                f"The store {shown} cannot be written ({cause}). The server is a standby, or "
                f"default_transaction_read_only is on for this database or user: turn it off, or name the primary "
                f"server (`target_session_attrs=read-write` in the URL finds it among several hosts)."
            )
        case errors.InsufficientPrivilege():
            return StoreReadOnlyError(
                f"The user of the store {shown} lacks a right ({cause}). As the database's owner: GRANT CREATE ON "
                f"DATABASE ... TO that user, or let the user who made the schema `millrace` grant its use."
            )
        case errors.DataCorrupted() | errors.IndexCorrupted() | errors.IoError():
            return StoreCorruptError(
                f"The store {shown} is damaged ({cause}). Look into the server's log and at its disk, and restore "
                f"a backup."
            )
        case psycopg.OperationalError() | errors.UndefinedTable() | errors.InvalidSchemaName():
            return StoreError(f"The store {shown} cannot be used: {cause}.")
        case _:
            return error


def unreachable(error: Exception, shown: str, waited_seconds: float = 0.0) -> StoreUnreachableError:
    waited = f" It was waited for {waited_seconds:.0f} s." if waited_seconds else ""
    return StoreUnreachableError(
        f"The store {shown} cannot be reached: {_cause(error)}.{waited} See that the server runs and that this "
        f"machine and user may connect (`psql '{shown}'` tries the same); a run that has stopped goes on with "
        f"`millrace runs resume`. What was recorded before is safe."
    )


def newer(shown: str, found: int, known: int) -> StoreNewerError:
    return StoreNewerError(
        f"The store {shown} was written by a newer version of Millrace (schema {found}, this version knows {known}). "
        f"Upgrade this installation (`pip install --upgrade millrace`), or name another store with MILLRACE_STORE."
    )


def foreign(shown: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"The schema `millrace` in {shown} holds tables that are not of a Millrace store. Name another database."
    )


def _cause(error: Exception) -> str:
    """Return the first line of what the server or libpq says; neither repeats passwords."""
    text = (error.diag.message_primary if isinstance(error, psycopg.Error) else None) or str(error)
    # Of several addresses that were tried, libpq tells each in a line.
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Multiple")]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
