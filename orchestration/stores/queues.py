"""Which limits a run waits for, and who is in its way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .base import LeaseRow, Store


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run's first place in the queue of a limit.

    Attributes:
        since: when it came.
        holders: leases that are held, in the order of their arrival.
        ahead: how many wait before it.
    """

    limit: str
    since: float
    holders: Sequence[LeaseRow]
    ahead: int


def waits_of(store: Store, run_id: str, now: float) -> Iterator[Waiting]:
    """Yield the limits that a run waits for. `now` is the store's."""
    for limit in store.limits(now):
        leases = store.leases(limit.name, now) if limit.waiting else []
        waiting = [lease for lease in leases if not lease.held]
        first = next((k for k, lease in enumerate(waiting) if lease.run_id == run_id), None)
        if first is not None:
            held = [lease for lease in leases if lease.held]
            yield Waiting(limit.name, waiting[first].since, held, first)
