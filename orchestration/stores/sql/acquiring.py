"""Deciding a demand for limits in one transaction: loads what limits.py judges, and writes what follows from it.

Where rows have to be locked it is done in one order, so that nobody waits for who waits for it: limits by name (before
all else, by the store), then runs, then leases. Who changes leases of a run has the run's row; and of a run whose row
another transaction has, no lease is ended: its process is just being heard of, or given up.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import astuple

from ..base import LEASE_SECONDS, Grant
from ..limits import (
    AHEAD_SECONDS,
    LOGGER_NAME,
    Bucket,
    Claim,
    Demand,
    Tie,
    Verdict,
    buckets_after,
    claims_after,
    grant_of,
    judge,
    not_behind,
    overbooked,
    run_out,
    still_counting,
)
from . import runs
from .connection import Connection
from .journal import LOG
from .leases import CLAIM, standing, to_claim


def acquire_by_reading(connection: Connection, demand: Demand, now: float) -> Grant | None:
    """Answer if nothing has to be written: no such limit, or still the same place in the queue."""
    epoch = connection.execute("SELECT epoch FROM run WHERE run_id = ?", (demand.run_id,))
    read = standing(connection, demand.names)
    demand.allowed(_newest(epoch.fetchone()))
    verdict = _judge(connection, *read(), demand, now)
    return grant_of(verdict) if verdict.settled else None


def acquire(connection: Connection, demand: Demand, now: float) -> Grant:
    """Take all limits, or a place in the queue of each. The limits are locked."""
    # Everything is asked before anything is read: on PostgreSQL that is one round trip, and others wait for the lock.
    epoch = connection.execute(
        f"SELECT epoch FROM run WHERE run_id = ? {connection.for_update}", (demand.run_id,)
    )
    read = standing(connection, demand.names)
    ticket = connection.execute("SELECT coalesce(max(ticket), 0) + 1 FROM lease")
    places = connection.execute("SELECT name FROM lease WHERE holder = ? AND NOT held", (demand.holder,))
    recorded = demand.allowed(_newest(epoch.fetchone()))
    buckets, claims = read()
    (next_ticket,), waits_for = ticket.fetchone(), {name for (name,) in places.fetchall()}
    if any(not now < claim.expires <= now + LEASE_SECONDS + AHEAD_SECONDS for claim in claims):
        _take_away(connection, run_out(claims, demand, now, recorded=recorded), now)
        _cut_down(connection, demand.names, now)
        buckets, claims = standing(connection, demand.names)()
        claims = still_counting(claims, now)
    verdict = _judge(connection, buckets, claims, demand, now)
    if verdict.settled:
        return grant_of(verdict)
    after = claims_after(verdict, buckets, claims, demand, next_ticket=next_ticket, now=now)
    _leave_queues(connection, demand.holder, waits_for - {claim.limit for claim in after})
    connection.executemany(
        f"INSERT INTO lease ({CLAIM}) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (name, ticket, holder) DO UPDATE "
        "SET label = excluded.label, slots = excluded.slots, since = excluded.since, expires = excluded.expires, "
        "held = excluded.held, tie = excluded.tie",
        list(map(astuple, after)),
    )
    connection.executemany(
        "UPDATE limit_ SET tokens = ?, at = ? WHERE name = ?",
        [(b.tokens, b.at, b.name) for b in buckets_after(verdict, buckets, demand, now)],
    )
    return grant_of(verdict, after)


def _judge(
    connection: Connection, buckets: Sequence[Bucket], claims: Sequence[Claim], demand: Demand, now: float
) -> Verdict:
    verdict = judge(buckets, claims, demand, now)
    if verdict.ahead and demand.within:
        found = connection.execute(
            "SELECT DISTINCT waits.holder FROM lease AS has JOIN lease AS waits ON waits.name = has.name "
            f"WHERE has.holder IN ({','.join('?' * len(demand.within))}) AND has.held AND NOT waits.held",
            demand.within,
        ).fetchall()
        behind = {holder for (holder,) in found}
        verdict = judge(buckets, not_behind(claims, behind, demand), demand, now)
    return verdict


def _newest(row: tuple[int] | None) -> int | None:
    return None if row is None else row[0]


def _leave_queues(connection: Connection, holder: str, names: Collection[str]) -> None:
    """Give up places that neither become leases nor stay: of each that goes others are told."""
    connection.executemany(
        "DELETE FROM lease WHERE holder = ? AND name = ? AND NOT held",
        [(holder, name) for name in sorted(names)],
    )


def _take_away(connection: Connection, late: Sequence[Claim], now: float) -> None:
    """End claims that nobody has renewed, and the runs that have been silent for so long."""
    run_ids = sorted({claim.run_id for claim in late})
    free = {run_id for run_id in run_ids if runs.lock_if_free(connection, run_id)}
    silent: set[str] = set()
    for limit, holder in [(claim.limit, claim.holder) for claim in late if claim.run_id in free]:
        ended = connection.execute(
            f"DELETE FROM lease WHERE name = ? AND holder = ? AND expires <= ? RETURNING {CLAIM}",
            (limit, holder, now),  # unless it was renewed before its run was locked
        )
        for claim in map(to_claim, ended.fetchall()):
            if claim.held:
                _note(connection, claim, now)
                silent |= {claim.run_id} if claim.tie is not Tie.LEFT else set()
    if silent:
        runs.reap(connection, now, among=silent)


def _cut_down(connection: Connection, names: Sequence[str], now: float) -> None:
    """A clock that went back an hour must not make leases last an hour longer."""
    connection.executemany(
        "UPDATE lease SET expires = ? WHERE name = ? AND expires > ?",
        [(now + LEASE_SECONDS, name, now + LEASE_SECONDS + AHEAD_SECONDS) for name in names],
    )


def _note(connection: Connection, claim: Claim, now: float) -> None:
    """Say in its run's log that a lease has run out that was held until then."""
    found = connection.execute(
        "UPDATE run SET next_seq = next_seq + 1 WHERE run_id = ? RETURNING run_no, next_seq - 1",
        (claim.run_id,),
    ).fetchall()
    for run_no, seq in found:
        row = (run_no, seq, -1, -1, 0, now, logging.WARNING, LOGGER_NAME, overbooked(claim, now))
        connection.insert("log", LOG, [row])
