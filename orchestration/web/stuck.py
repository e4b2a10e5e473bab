"""Why a live run does not get on, in sentences for somebody who is tired."""

from __future__ import annotations

from ..core.states import State
from ..stores.base import HEARTBEAT_SECONDS, RunRow, Store
from ..stores.queues import waits_of
from ..terminal import words

SHOWN_HOLDERS = 3
SILENT_SECONDS = 2 * HEARTBEAT_SECONDS


def why_stuck(store: Store, row: RunRow) -> list[str]:
    """Return what a run waits for, nothing if it seems to get on."""
    found: list[str] = []
    now = store.now()
    if row.heartbeat is not None and now - row.heartbeat > SILENT_SECONDS:
        silent = words.duration(now - row.heartbeat)
        found.append(
            f"its process {row.pid} on {row.host or 'an unknown host'} was last heard of {silent} ago"
        )
    for wait in waits_of(store, row.run_id, now):
        holders = wait.holders
        named = ", ".join(
            f"{one.label} since {words.duration(now - one.since)}" for one in holders[:SHOWN_HOLDERS]
        )
        more = f" and {len(holders) - SHOWN_HOLDERS} more" if len(holders) > SHOWN_HOLDERS else ""
        others = f"; {wait.ahead} wait before it" if wait.ahead else ""
        held = f", held by {named}{more}" if holders else ""
        found.append(f"waits for limit {wait.limit}{held}{others}")
    ready, busy = row.counts[State.READY], row.counts[State.SUBMITTED] + row.counts[State.RUNNING]
    if ready and not busy:
        found.append(f"{words.plural(ready, 'task run')} could run, but its runner has no free slot")
    return found
