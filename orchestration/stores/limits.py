"""Who gets a limit: pure functions over rows, the same for every store.

- A concurrency limit is counted from its live leases, never kept in a counter.
- First come first served: whoever waits has a ticket, and the slots (or tokens) that earlier tickets wait for
  are out of reach. One ticket serves all limits of one demand, so the earliest ticket waits for holders only
  and two demands for several limits cannot wait for each other. Who asks within a lease passes those who wait for that.
- A demand that its limit can never meet (more slots than there are) stands in nobody's way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from ..errors import UserError
from .base import LEASE_SECONDS, Grant, LeaseRow, Limit
from .lookup import fenced

# A place in the queue or a lease is written anew only when this much of its time is left: who asks every few
# milliseconds then only reads.
RENEW_BELOW_SECONDS = LEASE_SECONDS / 2
# By so much the clocks of two processes may differ; an expiry further ahead is of a clock set back.
AHEAD_SECONDS = 5.0
STAY_SECONDS = 1.0  # how much longer a claim counts that is over, and whose process is heard of just now
LOGGER_NAME = "millrace.limits"
_ROUNDING = 1e-9  # of tokens


class Tie(IntEnum):
    """What ends a lease, besides its release and its expiry. The values are stored: never renumber."""

    PROCESS = 0  # the proven end of the flow's process: the code that it is for runs there
    WORKER = 1  # nothing: the code runs in another process, which may outlive the flow's
    LEFT = 2  # nothing, and nobody renews it: the flow's process is gone, silent, or was replaced


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease or a place in the queue, as stored."""

    limit: str
    holder: str
    ticket: int
    run_id: str
    label: str
    slots: int
    since: float
    expires: float
    held: bool
    tie: Tie = Tie.PROCESS

    def after_loss(self, *, proven: bool) -> Claim | None:
        """Return what stays of it when the flow's process is gone, or was not heard of for too long."""
        if not self.held or (proven and self.tie is Tie.PROCESS):
            return None
        return replace(self, tie=Tie.LEFT)


@dataclass(frozen=True, slots=True)
class Demand:
    """What `Store.acquire` was asked for."""

    names: tuple[str, ...]
    holder: str
    run_id: str
    epoch: int
    label: str
    slots: int
    tie: Tie = Tie.PROCESS
    within: tuple[str, ...] = ()

    def allowed(self, newest: int | None) -> bool:
        """Return whether its run is recorded, given the newest epoch of that.

        Raises:
            FencedError: the demand is of a process that the run was taken from.
        """
        if newest is not None and newest != self.epoch:
            raise fenced(self.run_id, self.epoch, newest)
        return newest is not None


def demand(
    names: Sequence[str],
    holder: str,
    run_id: str,
    epoch: int,
    label: str,
    slots: int,
    *,
    remote: bool,
    within: Sequence[str] = (),
) -> Demand:
    """Return what the arguments of `Store.acquire` come to."""
    tie = Tie.WORKER if remote else Tie.PROCESS
    return Demand(tuple(dict.fromkeys(names)), holder, run_id, epoch, label, slots, tie, tuple(within))


@dataclass(frozen=True, slots=True)
class Bucket:
    """A limit as stored; for a rate limit with the tokens it had at a time."""

    name: str
    slots: int
    per_second: float | None = None
    tokens: float = 0.0
    at: float = 0.0

    def tokens_at(self, now: float) -> float:
        """Return the tokens by now; a clock that went back adds none."""
        flowed = max(0.0, now - self.at) * (self.per_second or 0.0)
        return min(float(self.slots), self.tokens + flowed)

    def seen_at(self, now: float) -> Bucket:
        """Return it as it has to be stored: after a clock went back, tokens flow in from the time that it is now."""
        return replace(self, at=now) if self.at > now else self

    def without(self, tokens: int, now: float) -> Bucket:
        """Return it after a grant: a rate limit spends tokens, a concurrency limit has none."""
        if self.per_second is None:
            return self
        return replace(self, tokens=self.tokens_at(now) - tokens, at=now)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a demand.

    Attributes:
        names: the limits that exist.
        blocked_by: empty: granted.
        settled: the claims are as they should be; nothing has to be written.
        ticket: with which the holder waits already.
        ahead: as in `Grant`.
        repeated: the holder has them already, so a rate limit's tokens are not spent again.
    """

    names: tuple[str, ...]
    blocked_by: Mapping[str, Sequence[str]] = field(default_factory=dict)
    retry_at: float | None = None
    settled: bool = False
    repeated: bool = False
    ticket: int | None = None
    ahead: int = 0

    @property
    def granted(self) -> bool:
        return not self.blocked_by


def run_out(claims: Sequence[Claim], demand: Demand, now: float, *, recorded: bool) -> list[Claim]:
    """Return the claims that end because nobody has renewed them.

    Those of the run that asks do not: it lives, and its code may be at work. By holder, so that two processes that
    end them lock them in one order.

    Args:
        recorded: the run that asks is, so that it is known not to have been taken over.
    """
    late = [claim for claim in claims if claim.expires <= now]
    if recorded:
        late = [claim for claim in late if claim.run_id != demand.run_id or claim.tie is Tie.LEFT]
    return sorted(late, key=lambda claim: (claim.holder, claim.limit))


def still_counting(claims: Sequence[Claim], now: float) -> list[Claim]:
    """Return the claims that are left when those that `run_out` have ended: none of them is to be passed over."""
    return [claim if claim.expires > now else replace(claim, expires=now + STAY_SECONDS) for claim in claims]


def not_behind(claims: Sequence[Claim], behind: Collection[str], demand: Demand) -> list[Claim]:
    """Return the claims that count for a demand within a lease that others wait for.

    Their places do not, nor do those after them: a task run that holds one limit has started one that needs another.
    If that had to wait for who came earlier and wants both, neither would ever go on. Nobody is passed for longer than
    the lease lasts that he waits for.

    Args:
        behind: holders who wait for limits of the leases that the demand is within.
    """
    first: dict[str, int] = {}
    for claim in claims:
        if not claim.held and claim.holder in behind and claim.holder != demand.holder:
            first[claim.limit] = min(claim.ticket, first.get(claim.limit, claim.ticket))
    return [
        claim
        for claim in claims
        if claim.held
        or claim.holder == demand.holder
        or claim.ticket < first.get(claim.limit, claim.ticket + 1)
    ]


def judge(buckets: Sequence[Bucket], claims: Sequence[Claim], demand: Demand, now: float) -> Verdict:
    """Decide a demand.

    Args:
        buckets: those of its limits that exist.
        claims: on these limits, expired ones too.
    """
    names = tuple(bucket.name for bucket in buckets)
    live = [claim for claim in claims if claim.expires > now]
    own = [claim for claim in live if claim.holder == demand.holder]
    fresh = all(claim.expires - now > RENEW_BELOW_SECONDS for claim in own)
    concurrent = {bucket.name for bucket in buckets if bucket.per_second is None}
    held_already = [claim for claim in own if claim.held]
    if concurrent and concurrent <= {claim.limit for claim in held_already}:
        taken = all(claim.tie is demand.tie for claim in held_already)
        return Verdict(names, settled=fresh and taken, repeated=True)
    ticket = min((claim.ticket for claim in own), default=None)
    blocked: dict[str, list[str]] = {}
    times: list[float] = []
    most_ahead = 0
    for bucket in buckets:
        others = [claim for claim in live if claim.limit == bucket.name and claim.holder != demand.holder]
        ahead = [
            claim
            for claim in others
            if not claim.held and claim.slots <= bucket.slots and (ticket is None or claim.ticket < ticket)
        ]
        held = [claim for claim in others if claim.held]
        obstacle = _obstacle(bucket, held, ahead, demand.slots, now)
        if obstacle is not None:
            blocked[bucket.name] = obstacle[0]
            times += obstacle[1]
            most_ahead = max(most_ahead, len(ahead))
    if not blocked:
        return Verdict(names, settled=not names)
    settled = fresh and {claim.limit for claim in own} == set(names)
    settled = settled and all(bucket is bucket.seen_at(now) for bucket in buckets)
    retry_at = min(times, default=None)
    return Verdict(names, blocked, retry_at, settled=settled, ticket=ticket, ahead=most_ahead)


def _obstacle(
    bucket: Bucket, held: Sequence[Claim], ahead: Sequence[Claim], slots: int, now: float
) -> tuple[list[str], list[float]] | None:
    """Return who is in the way and when to ask again; None if nothing is."""
    if slots > bucket.slots:
        return [f"asks for {slots} at once, the limit is {bucket.slots}"], []
    wanted = slots + sum(claim.slots for claim in ahead)
    if bucket.per_second is None:
        if sum(claim.slots for claim in held) + wanted <= bucket.slots:
            return None
        in_the_way = [*held, *ahead]
        return [claim.label for claim in in_the_way], [claim.expires for claim in in_the_way]
    missing = wanted - bucket.tokens_at(now)
    if missing <= _ROUNDING:
        return None
    labels = [claim.label for claim in ahead] or [f"{bucket.per_second:g} per second"]
    return labels, [now + missing / bucket.per_second]


def claims_after(
    verdict: Verdict,
    buckets: Sequence[Bucket],
    claims: Sequence[Claim],
    demand: Demand,
    *,
    next_ticket: int,
    now: float,
) -> list[Claim]:
    """Return the holder's claims on these limits once the verdict is carried out: leases, or places to wait.

    What it already holds it keeps, whatever else it has to wait for: its code may be at work there.
    """
    own = {claim.limit: claim for claim in claims if claim.holder == demand.holder}
    ticket = min((claim.ticket for claim in own.values()), default=next_ticket)
    after = []
    for bucket in buckets:
        if verdict.granted and bucket.per_second is not None:
            continue  # tokens are spent, not held
        old = own.get(bucket.name)
        held = verdict.granted or (old is not None and old.held)
        since = old.since if old is not None and old.held == held else now
        after.append(
            Claim(
                limit=bucket.name,
                holder=demand.holder,
                ticket=ticket,
                run_id=demand.run_id,
                label=demand.label,
                slots=demand.slots,
                since=since,
                expires=now + LEASE_SECONDS,
                held=held,
                tie=demand.tie,
            )
        )
    return after


def buckets_after(verdict: Verdict, buckets: Sequence[Bucket], demand: Demand, now: float) -> list[Bucket]:
    """Return the rate limits that have to be stored anew: their tokens were spent, or their clock went back."""
    spends = verdict.granted and not verdict.repeated
    after = [bucket.without(demand.slots, now) if spends else bucket.seen_at(now) for bucket in buckets]
    return [new for old, new in zip(buckets, after, strict=True) if new is not old]


def grant_of(verdict: Verdict, after: Sequence[Claim] = ()) -> Grant:
    """Return the answer; `after` are the holder's claims once a verdict that is not settled was carried out."""
    if verdict.granted:
        return Grant(True, verdict.names)
    ticket = after[0].ticket if after else verdict.ticket
    return Grant(False, (), verdict.blocked_by, verdict.retry_at, ticket, verdict.ahead)


def to_lease(c: Claim) -> LeaseRow:
    left = c.tie is Tie.LEFT
    return LeaseRow(c.limit, c.holder, c.run_id, c.label, c.slots, c.since, c.expires, c.held, left)


def overbooked(claim: Claim, now: float) -> str:
    """Say in the run's log that a lease ran out while its holder may still have been at work."""
    return (
        f"The lease of {claim.label} ({claim.holder}) on limit {claim.limit!r} ran out "
        f"{now - claim.expires:.1f} s ago: its process had not been heard of for "
        f"{LEASE_SECONDS + now - claim.expires:.0f} s. Its slot was given away; if it still ran, the limit "
        f"was possibly overbooked."
    )


def summary(bucket: Bucket, claims: Sequence[Claim], now: float) -> Limit:
    """Return a limit for people."""
    live = [claim for claim in claims if claim.limit == bucket.name and claim.expires > now]
    held = sum(claim.slots for claim in live if claim.held)
    return Limit(
        bucket.name, bucket.slots, bucket.per_second, held, sum(1 for claim in live if not claim.held)
    )


def check(name: str, slots: int, per_second: float | None) -> None:
    """Refuse a limit that makes no sense.

    Raises:
        UserError
    """
    if not name.strip():
        raise UserError("A limit needs a name.")
    if per_second is None and slots < 0:
        raise UserError(f"Limit {name!r}: {slots} slots; give 0 (nothing may run) or more.")
    if per_second is not None and (slots < 1 or not 0 < per_second < float("inf")):
        raise UserError(
            f"Rate limit {name!r}: {slots} at once and {per_second} per second; both must be above 0."
        )
