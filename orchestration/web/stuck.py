"""Why a live run does not get on, in sentences for somebody who is tired."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from ..core.states import State
from ..stores.base import HEARTBEAT_SECONDS, RunRow, Store
from ..stores.queues import waits_of
from ..terminal import words

SHOWN_HOLDERS = 3
SILENT_SECONDS = 2 * HEARTBEAT_SECONDS


def why_stuck(store: Store, row: RunRow) -> list[str]:
    """Return what a run waits for, nothing if it seems to get on.

    Times in it are such as `2026-01-31T14:02:11Z`: a page can show them in its viewer's zone, and they do not change
    from one look to the next.
    """
    found: list[str] = []
    now = store.now()
    ahead = time.time() - now  # of the store's clock
    if row.heartbeat is not None and now - row.heartbeat > SILENT_SECONDS:
        where, since = row.host or "an unknown host", _moment(row.heartbeat + ahead)
        found.append(f"its process {row.pid} on {where} has not been heard of since {since}")
    for wait in waits_of(store, row.run_id, now):
        holders = wait.holders
        named = ", ".join(
            f"{one.label} since {_moment(one.since + ahead)}" for one in holders[:SHOWN_HOLDERS]
        )
        more = f" and {len(holders) - SHOWN_HOLDERS} more" if len(holders) > SHOWN_HOLDERS else ""
        others = f"; {wait.ahead} wait before it" if wait.ahead else ""
        held = f", held by {named}{more}" if holders else ""
        found.append(f"waits for limit {wait.limit} since {_moment(wait.since + ahead)}{held}{others}")
    ready, busy = row.counts[State.READY], row.counts[State.SUBMITTED] + row.counts[State.RUNNING]
    if ready and not busy:
        found.append(f"{words.plural(ready, 'task run')} could run, but its runner has no free slot")
    return found


def _moment(at: float) -> str:
    return datetime.fromtimestamp(round(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
