"""The rows of limits and leases. Who gets a limit: acquiring.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..base import LEASE_SECONDS, LeaseRow, Limit
from ..limits import Bucket, Claim, Tie, summary, to_lease
from .connection import Connection

_FIELDS = ("limit", "holder", "ticket", "run_id", "label", "slots", "since", "expires")
CLAIM = "name, holder, ticket, run_id, label, slots, since, expires, held, tie"


def standing(connection: Connection, names: Sequence[str]) -> Callable[[], tuple[list[Bucket], list[Claim]]]:
    """Ask for limits and all claims on them; what is returned reads the answers."""
    asked = [
        (
            connection.execute(
                "SELECT name, slots, per_second, tokens, at FROM limit_ WHERE name = ?", (name,)
            ),
            connection.execute(f"SELECT {CLAIM} FROM lease WHERE name = ? ORDER BY ticket", (name,)),
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
                claims += map(to_claim, rows)
        return buckets, claims

    return read


def to_claim(row: tuple[Any, ...]) -> Claim:
    *plain, held, tie = row
    return Claim(**dict(zip(_FIELDS, plain, strict=True)), held=bool(held), tie=Tie(tie))


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
    # Others end those that have run out, and would hold some of a run's leases and want its others, or want its row
    # from a transaction that has them: so who changes leases of a run has its row.
    for run_id in sorted({holder.partition("/")[0] for holder in holders}) if connection.for_update else ():
        connection.execute(f"SELECT 1 FROM run WHERE run_id = ? {connection.for_update}", (run_id,))
    connection.executemany("DELETE FROM lease WHERE holder = ?", [(holder,) for holder in sorted(holders)])


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
    buckets, claims = standing(connection, [name for (name,) in found])()
    return [summary(bucket, claims, now) for bucket in buckets]


def leases(connection: Connection, name: str, now: float) -> list[LeaseRow]:
    _, claims = standing(connection, (name,))()
    live = [claim for claim in claims if claim.expires > now]
    live.sort(key=lambda claim: not claim.held)
    return [to_lease(claim) for claim in live]
