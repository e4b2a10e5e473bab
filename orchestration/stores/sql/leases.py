"""The limits' rows: loads what limits.py judges, and writes what follows from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
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
from .connection import Connection, Cursor
from .journal import LOG

_FIELDS = ("limit", "holder", "ticket", "run_id", "label", "slots", "since", "expires")
_CLAIM = "name, holder, ticket, run_id, label, slots, since, expires, held, tie"


def acquire_by_reading(connection: Connection, demand: Demand, now: float) -> Grant | None:
    """Answer if nothing has to be written: no such limit, or still the same place in the queue."""
    buckets, claims = _standing(connection, demand.names)()
    verdict = judge(buckets, claims, demand, now)
    return grant_of(verdict) if verdict.settled else None


def acquire(connection: Connection, demand: Demand, now: float) -> Grant:
    """Take all limits, or a place in the queue of each."""
    # Everything is asked before anything is read: on PostgreSQL that is one round trip, and others wait for the lock.
    _lock(connection, demand.names)
    swept = _sweep(connection, demand.names, now)
    standing = _standing(connection, demand.names)
    ticket = connection.execute("SELECT coalesce(max(ticket), 0) + 1 FROM lease")
    places = connection.execute("SELECT name FROM lease WHERE holder = ? AND NOT held", (demand.holder,))
    for claim in (_to_claim(row) for found in swept for row in found.fetchall()):
        if claim.held:
            _note(connection, claim, now)
    buckets, claims = standing()
    (next_ticket,), waits_for = ticket.fetchone(), {name for (name,) in places.fetchall()}
    verdict = judge(buckets, claims, demand, now)
    if verdict.settled:
        return grant_of(verdict)
    after = claims_after(verdict, buckets, claims, demand, next_ticket=next_ticket, now=now)
    _leave_queues(connection, demand.holder, waits_for - {claim.limit for claim in after})
    connection.executemany(
        f"INSERT INTO lease ({_CLAIM}) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (name, ticket, holder) DO UPDATE "
        "SET label = excluded.label, slots = excluded.slots, since = excluded.since, expires = excluded.expires, "
        "held = excluded.held, tie = excluded.tie",
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


def _leave_queues(connection: Connection, holder: str, names: Collection[str]) -> None:
    """Give up places that neither become leases nor stay: of each that goes others are told."""
    connection.executemany(
        "DELETE FROM lease WHERE holder = ? AND name = ? AND NOT held",
        [(holder, name) for name in sorted(names)],
    )


def _standing(connection: Connection, names: Sequence[str]) -> Callable[[], tuple[list[Bucket], list[Claim]]]:
    """Ask for limits and all claims on them; what is returned reads the answers."""
    asked = [
        (
            connection.execute(
                "SELECT name, slots, per_second, tokens, at FROM limit_ WHERE name = ?", (name,)
            ),
            connection.execute(f"SELECT {_CLAIM} FROM lease WHERE name = ? ORDER BY ticket", (name,)),
        )
        for name in names
    ]

    def read() -> tuple[list[Bucket], list[Claim]]:
        buckets: list[Bucket] = []
        claims: list[Claim] = []
        for limit, claimed in asked:
            row, rows = limit.fetchone(), claimed.fetchall()
            if row is not None:
                buckets.append(Bucket(*row))
                claims += map(_to_claim, rows)
        return buckets, claims

    return read


def _to_claim(row: tuple[Any, ...]) -> Claim:
    *plain, held, tie = row
    return Claim(**dict(zip(_FIELDS, plain, strict=True)), held=bool(held), tie=Tie(tie))


def _sweep(connection: Connection, names: Sequence[str], now: float) -> list[Cursor]:
    """Drop what has expired; return where to read what that is."""
    # A clock that went back an hour must not make leases last an hour longer.
    connection.executemany(
        "UPDATE lease SET expires = ? WHERE name = ? AND expires > ?",
        [(now + LEASE_SECONDS, name, now + LEASE_SECONDS) for name in names],
    )
    return [
        connection.execute(
            f"DELETE FROM lease WHERE name = ? AND expires <= ? RETURNING {_CLAIM}", (name, now)
        )
        for name in names
    ]


def _note(connection: Connection, claim: Claim, now: float) -> None:
    """Say in its run's log that a lease has run out that was held until then."""
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


def keep(connection: Connection, now: float) -> None:
    """Renew what is held, but for what was left behind."""
    connection.execute(
        f"UPDATE lease SET expires = ? WHERE held AND expires < ? AND tie <> {Tie.LEFT:d}",
        (now + LEASE_SECONDS, now + LEASE_SECONDS),
    )


def tie_again(connection: Connection, run_id: str) -> None:
    """Have a run's leases renewed again that were left: their process lives."""
    connection.execute(
        f"UPDATE lease SET tie = {Tie.WORKER:d} WHERE run_id = ? AND tie = {Tie.LEFT:d}", (run_id,)
    )


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
    found = connection.execute("SELECT name FROM limit_ ORDER BY name").fetchall()
    buckets, claims = _standing(connection, [name for (name,) in found])()
    return [summary(bucket, claims, now) for bucket in buckets]


def leases(connection: Connection, name: str, now: float) -> list[LeaseRow]:
    _, claims = _standing(connection, (name,))()
    live = [claim for claim in claims if claim.expires > now]
    live.sort(key=lambda claim: not claim.held)
    return [to_lease(claim) for claim in live]
