"""The limits' rows: loads what limits.py judges, and writes what follows from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from ..base import LEASE_SECONDS, Grant, LeaseRow, Limit
from ..limits import (
    LOGGER_NAME,
    Bucket,
    Claim,
    Demand,
    Tie,
    buckets_after,
    claims_after,
    grant_of,
    judge,
    overbooked,
    summary,
    to_lease,
)
from .connection import Connection
from .journal import LOG

_FIELDS = ("limit", "holder", "ticket", "run_id", "label", "slots", "since", "expires")
_CLAIM = "name, holder, ticket, run_id, label, slots, since, expires, held, tie"


def acquire_by_reading(connection: Connection, demand: Demand, now: float) -> Grant | None:
    """Answer if nothing has to be written: no such limit, or still the same place in the queue."""
    buckets = _buckets(connection, demand.names)
    verdict = judge(buckets, _claims_of(connection, buckets), demand, now)
    return grant_of(verdict) if verdict.settled else None


def acquire(connection: Connection, demand: Demand, now: float) -> Grant:
    """Take all limits, or a place in the queue of each."""
    _lock(connection, demand.names)
    _sweep(connection, demand.names, now)
    buckets = _buckets(connection, demand.names)
    claims = _claims_of(connection, buckets)
    verdict = judge(buckets, claims, demand, now)
    if verdict.settled:
        return grant_of(verdict)
    (next_ticket,) = connection.execute("SELECT coalesce(max(ticket), 0) + 1 FROM lease").fetchone()
    after = claims_after(verdict, buckets, claims, demand, next_ticket=next_ticket, now=now)
    _leave_queues(connection, demand.holder, [claim.limit for claim in after])
    connection.executemany(
        f"INSERT INTO lease ({_CLAIM}) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (name, ticket, holder) DO UPDATE "
        "SET label = excluded.label, slots = excluded.slots, since = excluded.since, expires = excluded.expires, "
        "held = excluded.held",
        list(map(astuple, after)),
    )
    connection.executemany(
        "UPDATE limit_ SET tokens = ?, at = ? WHERE name = ?",
        [(b.tokens, b.at, b.name) for b in buckets_after(verdict, buckets, demand, now)],
    )
    return grant_of(verdict, after)


def _lock(connection: Connection, names: Sequence[str]) -> None:
    """Make others wait who judge the same limits. In one order, so that nobody waits for who waits for it."""
    if connection.for_update:
        for name in sorted(names):
            connection.execute(f"SELECT name FROM limit_ WHERE name = ? {connection.for_update}", (name,))


def _leave_queues(connection: Connection, holder: str, but: Sequence[str]) -> None:
    """Give up places in queues, except where they become leases or stay: of each that goes others are told."""
    found = connection.execute("SELECT name FROM lease WHERE holder = ? AND NOT held", (holder,)).fetchall()
    connection.executemany(
        "DELETE FROM lease WHERE holder = ? AND name = ? AND NOT held",
        [(holder, name) for (name,) in found if name not in but],
    )


def _buckets(connection: Connection, names: Sequence[str]) -> list[Bucket]:
    found = [
        connection.execute(
            "SELECT name, slots, per_second, tokens, at FROM limit_ WHERE name = ?", (name,)
        ).fetchone()
        for name in names
    ]
    return [Bucket(*row) for row in found if row is not None]


def _claims_of(connection: Connection, buckets: Sequence[Bucket]) -> list[Claim]:
    return [claim for bucket in buckets for claim in _claims(connection, bucket.name)]


def _claims(connection: Connection, name: str) -> list[Claim]:
    found = connection.execute(f"SELECT {_CLAIM} FROM lease WHERE name = ? ORDER BY ticket", (name,))
    return [_to_claim(row) for row in found]


def _to_claim(row: tuple[Any, ...]) -> Claim:
    *plain, held, tie = row
    return Claim(**dict(zip(_FIELDS, plain, strict=True)), held=bool(held), tie=Tie(tie))


def _sweep(connection: Connection, names: Sequence[str], now: float) -> None:
    """Drop what has expired; a lease that was held until then is noted in its run's log."""
    for name in names:
        # A clock that went back an hour must not make leases last an hour longer.
        connection.execute(
            "UPDATE lease SET expires = ? WHERE name = ? AND expires > ?",
            (now + LEASE_SECONDS, name, now + LEASE_SECONDS),
        )
        found = connection.execute(
            f"DELETE FROM lease WHERE name = ? AND expires <= ? RETURNING {_CLAIM}", (name, now)
        ).fetchall()
        for claim in map(_to_claim, found):
            if claim.held:
                _note(connection, claim, now)


def _note(connection: Connection, claim: Claim, now: float) -> None:
    found = connection.execute(
        "UPDATE run SET next_seq = next_seq + 1 WHERE run_id = ? RETURNING run_no, next_seq - 1",
        (claim.run_id,),
    ).fetchall()
    for run_no, seq in found:
        row = (run_no, seq, -1, -1, 0, now, logging.WARNING, LOGGER_NAME, overbooked(claim, now))
        connection.insert("log", LOG, [row])


def renew(connection: Connection, run_id: str, now: float) -> None:
    connection.execute(
        f"UPDATE lease SET expires = ? WHERE run_id = ? AND tie <> {Tie.LEFT:d}",
        (now + LEASE_SECONDS, run_id),
    )


def lose_process(connection: Connection, run_id: str, *, proven: bool) -> None:
    """Do with a run's claims what follows from the loss of its process. See `Claim.after_loss`."""
    ended = f"NOT held OR tie = {Tie.PROCESS:d}" if proven else "NOT held"
    connection.execute(f"DELETE FROM lease WHERE run_id = ? AND ({ended})", (run_id,))
    connection.execute(f"UPDATE lease SET tie = {Tie.LEFT:d} WHERE run_id = ?", (run_id,))


def release(connection: Connection, holders: Sequence[str]) -> None:
    connection.executemany("DELETE FROM lease WHERE holder = ?", [(holder,) for holder in holders])


def set_limit(connection: Connection, name: str, slots: int, per_second: float | None) -> None:
    # `at` 0: a bucket starts full, and no clock is needed to say so.
    connection.execute(
        "INSERT INTO limit_ (name, slots, per_second, tokens, at) VALUES (?, ?, ?, ?, 0) "
        "ON CONFLICT (name) DO UPDATE SET slots = excluded.slots, per_second = excluded.per_second, "
        "tokens = CASE WHEN limit_.tokens < excluded.tokens AND limit_.per_second IS NOT NULL "
        "THEN limit_.tokens ELSE excluded.tokens END",
        (name, slots, per_second, float(slots)),
    )


def remove_limit(connection: Connection, name: str) -> bool:
    # What holds it stays: it counts if the limit is set again meanwhile.
    connection.execute("DELETE FROM lease WHERE name = ? AND NOT held", (name,))
    return bool(connection.execute("DELETE FROM limit_ WHERE name = ? RETURNING name", (name,)).fetchall())


def limits(connection: Connection, now: float) -> list[Limit]:
    found = connection.execute(
        "SELECT name, slots, per_second, tokens, at FROM limit_ ORDER BY name"
    ).fetchall()
    return [summary(Bucket(*row), _claims(connection, row[0]), now) for row in found]


def leases(connection: Connection, name: str, now: float) -> list[LeaseRow]:
    if not _buckets(connection, (name,)):
        return []
    live = [claim for claim in _claims(connection, name) if claim.expires > now]
    live.sort(key=lambda claim: not claim.held)
    return [to_lease(claim) for claim in live]
