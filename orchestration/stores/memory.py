"""MemoryStore: the record of flow runs that need none, for as long as the process lives."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..core.journal import Entry, LeasesReturned, RunMoved
from ..core.states import RUN_TERMINAL, RunState, State
from ..errors import UserError
from . import replay
from .base import (
    BATCH_IDS_PER_EPOCH,
    DEAD_AFTER_SECONDS,
    LEASE_SECONDS,
    AttemptRow,
    Grant,
    HistoryRow,
    LeaseRow,
    Limit,
    LogRow,
    NodeRow,
    RecoveredNode,
    Requests,
    RunRow,
    TaskRunRow,
)
from .failures import FailureGroup
from .limits import (
    Bucket,
    Claim,
    Tie,
    buckets_after,
    check,
    claims_after,
    demand,
    grant_of,
    judge,
    not_behind,
    overbooked,
    run_out,
    still_counting,
    summary,
    to_lease,
)
from .liveness import is_gone, mark_at
from .lookup import MIN_PREFIX, alive, ambiguous, completed, fenced, not_found, unknown
from .memory_access import MemoryAccess
from .memory_record import RunRecord
from .newsroom import Newsroom, frees_leases
from .remains import Remains
from .timeline import Timeline, timeline
from .timing import RunTiming, timing


class MemoryStore(MemoryAccess):
    """A store that ends with its process; its entries are kept as the coordinator made them."""

    def __init__(self) -> None:
        super().__init__()
        self.url = "memory"
        self._lock = threading.RLock()
        self._runs: dict[str, RunRecord] = {}
        self._buckets: dict[str, Bucket] = {}
        self._claims: dict[tuple[str, str], Claim] = {}  # by (limit, holder), in the order of their tickets
        self._tickets = 0
        self._newsroom = Newsroom(every_seconds=None)

    def close(self) -> None:
        """Keep everything: the store is its only copy."""

    # --- a run's own process --------------------------------------------------------------------

    def create_run(self, run: RunRow) -> None:
        with self._lock:
            if run.run_id in self._runs:
                raise UserError(f"There already is a run {run.run_id!r} in this store.")
            self._runs[run.run_id] = RunRecord(run)

    def claim(self, run_id: str, *, host: str, pid: int, now: float) -> RunRow:
        with self._lock:
            record = self._record(run_id)
            run = record.run
            if run.state is RunState.COMPLETED:
                raise completed(run)
            fresh = run.heartbeat is not None and now - run.heartbeat <= DEAD_AFTER_SECONDS
            gone = is_gone(run.host, run.pid, record.mark)
            if fresh and not gone:
                raise alive(run, now)
            record.run = replace(run, epoch=run.epoch + 1, host=host, pid=pid, heartbeat=now)
            record.mark = mark_at(host, pid)
            record.asked = Requests()
            self._lose_process(run_id, proven=gone)
            return record.run

    def append(self, run_id: str, epoch: int, entries: Sequence[Entry]) -> None:
        with self._lock:
            record = self._record(run_id)
            if record.run.epoch != epoch:
                raise fenced(run_id, epoch, record.run.epoch)
            for entry in entries:
                record.apply(entry)
                if isinstance(entry, LeasesReturned):
                    self.release(entry.holders)
                elif isinstance(entry, RunMoved) and entry.state in RUN_TERMINAL:
                    self._drop(lambda claim: claim.run_id == run_id and claim.tie is not Tie.LEFT)
        if frees_leases(entries):
            self._newsroom.tell()

    def heartbeat(self, run_id: str, epoch: int, now: float) -> Requests:
        with self._lock:
            asked, record = self.requests(run_id, epoch), self._record(run_id)
            if not asked.fenced:
                record.run = replace(record.run, heartbeat=now)
                for key, claim in self._claims.items():
                    if claim.run_id == run_id and claim.tie is not Tie.LEFT:
                        self._claims[key] = replace(claim, expires=now + LEASE_SECONDS)
            return asked

    def requests(self, run_id: str, epoch: int) -> Requests:
        with self._lock:
            record = self._record(run_id)
            return replace(record.asked, fenced=record.run.epoch != epoch)

    def recovered(self, run_id: str) -> Mapping[str, RecoveredNode]:
        with self._lock:
            return Remains(self._record(run_id))

    def timing(self, run_id: str) -> RunTiming:
        with self._lock:
            return timing(self._record(run_id))

    def next_ids(self, run_id: str) -> tuple[int, int]:
        with self._lock:
            record = self._record(run_id)
            batch, epoch = record.next_batch, record.run.epoch
            if epoch > 1:
                batch = max(epoch - 1, -(-batch // BATCH_IDS_PER_EPOCH)) * BATCH_IDS_PER_EPOCH
            return max(record.by_node, default=-1) + 1, batch

    # --- other processes ------------------------------------------------------------------------

    def request(self, run_id: str, *, cancel: bool | None = None, pause: bool | None = None) -> None:
        with self._lock:
            record = self._record(run_id)
            asked = record.asked
            record.asked = Requests(
                asked.cancel if cancel is None else cancel, asked.pause if pause is None else pause
            )

    def reap(self, now: float, *, proven: bool = False) -> list[str]:
        with self._lock:
            return self._reap(list(self._runs), now, proven)

    def _reap(self, run_ids: Iterable[str], now: float, proven: bool = False) -> list[str]:
        with self._lock:
            reaped = [run_id for run_id in run_ids if self._runs[run_id].is_dead(now, proven)]
            for run_id in reaped:
                record = self._runs[run_id]
                self._lose_process(run_id, proven=is_gone(record.run.host, record.run.pid, record.mark))
                run = record.run = replace(record.run, epoch=record.run.epoch + 1)
                reason = f"its process {run.pid} on {run.host or 'an unknown host'} ended without a word"
                entries = replay.interrupted(record, now, reason)
                entries.append(RunMoved(RunState.CRASHED, now, message=f"Crashed: {reason}"))
                self.append(run_id, run.epoch, entries)
            return reaped

    def runs(
        self,
        *,
        states: frozenset[RunState] | None = None,
        flow_name: str | None = None,
        parent_run_id: str | None = None,
        limit: int = 50,
        before: tuple[float, str] | None = None,
    ) -> list[RunRow]:
        with self._lock:
            found = [
                row
                for row in self._newest_first()
                if (states is None or row.state in states)
                and (flow_name is None or row.flow_name == flow_name)
                and (parent_run_id is None or row.parent_run_id == parent_run_id)
                and (before is None or (row.created, row.run_id) < before)
            ]
            return found[:limit]

    def tally(self, *, subflows: bool = True) -> list[tuple[str, RunState, int]]:
        with self._lock:
            rows = [record.run for record in self._runs.values()]
        found = Counter((row.flow_name, row.state) for row in rows if subflows or row.parent_run_id is None)
        return [(name, state, number) for (name, state), number in sorted(found.items())]

    def run(self, run: str) -> RunRow:
        with self._lock:
            if run in self._runs:
                return self._runs[run].row()
            rows = self._newest_first()
            for row in rows:
                if row.name == run:
                    return row
            if len(run) >= MIN_PREFIX:
                matching = [row for row in rows if row.run_id.startswith(run)]
                if len(matching) == 1:
                    return matching[0]
                if matching:
                    raise ambiguous(run, [row.run_id for row in matching[:3]])
            raise not_found(run, [(row.run_id, row.name) for row in rows[:1000]], self.url)

    def nodes(self, run_id: str, node_id: int | None = None) -> list[NodeRow]:
        with self._lock:
            return self._record(run_id).nodes(node_id)

    def task_runs(
        self,
        run_id: str,
        *,
        node_id: int | None = None,
        states: frozenset[State] | None = None,
        after: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> list[TaskRunRow]:
        with self._lock:
            return replay.task_runs(self._record(run_id), node_id, states, after, limit)

    def states(self, run_id: str, node_id: int) -> bytes:
        with self._lock:
            return replay.item_states(self._record(run_id), node_id)

    def states_since(self, run_id: str, node_id: int, before: replay.ItemStates) -> replay.ItemStates:
        with self._lock:
            return replay.node_states(self._record(run_id), node_id, before)

    def timeline(self, run_id: str, *, after: int = 0) -> Timeline:
        with self._lock:
            return timeline(self._record(run_id), after)

    def attempts(self, run_id: str, node_id: int, index: int) -> list[AttemptRow]:
        with self._lock:
            return replay.attempts(self._record(run_id), node_id, index)

    def history(self, run_id: str, node_id: int, index: int) -> list[HistoryRow]:
        with self._lock:
            return replay.history(self._record(run_id), node_id, index)

    def logs(
        self,
        run_id: str,
        *,
        after: int = 0,
        node_id: int | None = None,
        index: int | None = None,
        min_level: int = 0,
        limit: int = 1000,
    ) -> list[LogRow]:
        with self._lock:
            found = [
                row
                for row in self._record(run_id).logs
                if row.seq > after
                and row.level >= min_level
                and (node_id is None or row.node_id == node_id)
                and (index is None or row.index == index)
            ]
            return found[:limit]

    def failures(self, run_id: str, limit: int = 20) -> list[FailureGroup]:
        with self._lock:
            record = self._record(run_id)
            current = {node.node_id for node in record.nodes() if node.replaced_by is None}
            return record.failures.groups(current, limit)

    # --- limits ---------------------------------------------------------------------------------

    def set_limit(self, name: str, slots: int, per_second: float | None = None) -> None:
        check(name, slots, per_second)
        with self._lock:
            old = self._buckets.get(name)
            tokens = min(old.tokens, slots) if old and old.per_second is not None else slots
            at = old.at if old and old.per_second is not None else 0.0
            self._buckets[name] = Bucket(name, slots, per_second, float(tokens), at)
        self._newsroom.tell()

    def remove_limit(self, name: str) -> bool:
        with self._lock:
            self._drop(lambda claim: claim.limit == name and not claim.held)
            removed = self._buckets.pop(name, None) is not None
        self._newsroom.tell()
        return removed

    def limits(self, now: float) -> list[Limit]:
        with self._lock:
            claims = list(self._claims.values())
            return [summary(bucket, claims, now) for _, bucket in sorted(self._buckets.items())]

    def leases(self, name: str, now: float) -> list[LeaseRow]:
        with self._lock:
            live = [c for c in self._claims.values() if c.limit == name and c.expires > now]
            if name not in self._buckets:
                return []
            return [to_lease(c) for c in sorted(live, key=lambda c: (not c.held, c.ticket))]

    def acquire(
        self,
        names: Sequence[str],
        *,
        holder: str,
        run_id: str,
        epoch: int,
        label: str,
        slots: int,
        now: float,
        remote: bool = False,
        within: Sequence[str] = (),
    ) -> Grant:
        asked = demand(names, holder, run_id, epoch, label, slots, remote=remote, within=within)
        with self._lock:
            record = self._runs.get(run_id)
            recorded = asked.allowed(None if record is None else record.run.epoch)
            self._take_away(run_out(self._claims_on(asked.names, now), asked, now, recorded=recorded), now)
            buckets = [self._buckets[name] for name in asked.names if name in self._buckets]
            claims = still_counting(self._claims_on(asked.names, now), now)
            has = {claim.limit for claim in self._claims.values() if claim.held and claim.holder in within}
            behind = {
                claim.holder for claim in self._claims.values() if not claim.held and claim.limit in has
            }
            claims = not_behind(claims, behind, asked)
            verdict = judge(buckets, claims, asked, now)
            after: list[Claim] = []
            if not verdict.settled:
                self._tickets += 1
                after = claims_after(verdict, buckets, claims, asked, next_ticket=self._tickets, now=now)
                self._drop(lambda claim: claim.holder == holder and not claim.held)
                self._claims.update({(claim.limit, holder): claim for claim in after})
                self._buckets.update({b.name: b for b in buckets_after(verdict, buckets, asked, now)})
            return grant_of(verdict, after)

    def release(self, holders: Sequence[str]) -> None:
        with self._lock:
            gone = set(holders)
            self._drop(lambda claim: claim.holder in gone)
        self._newsroom.tell()

    # --- inside ---------------------------------------------------------------------------------

    def _record(self, run_id: str) -> RunRecord:
        try:
            return self._runs[run_id]
        except KeyError:
            raise unknown(run_id) from None

    def _newest_first(self) -> list[RunRow]:
        rows = [record.row() for record in reversed(self._runs.values())]
        return sorted(rows, key=lambda row: (row.created, row.run_id), reverse=True)

    def _lose_process(self, run_id: str, *, proven: bool) -> None:
        for key, claim in [(k, c) for k, c in self._claims.items() if c.run_id == run_id]:
            left = claim.after_loss(proven=proven)
            if left is None:
                del self._claims[key]
            else:
                self._claims[key] = left

    def _drop(self, gone: Any) -> None:
        for key in [key for key, claim in self._claims.items() if gone(claim)]:
            del self._claims[key]

    def _claims_on(self, names: Sequence[str], now: float) -> list[Claim]:
        """Return the claims on limits, none of which outlasts what a new one would."""
        found = {key: claim for key, claim in self._claims.items() if claim.limit in names}
        for key, claim in found.items():
            self._claims[key] = replace(claim, expires=min(claim.expires, now + LEASE_SECONDS))
        return [self._claims[key] for key in found]

    def _take_away(self, late: Sequence[Claim], now: float) -> None:
        """End claims that nobody has renewed, and the runs that have been silent for so long."""
        silent: dict[str, None] = {}
        for claim in late:
            del self._claims[claim.limit, claim.holder]
            if claim.held and claim.run_id in self._runs:
                self._runs[claim.run_id].note(now, overbooked(claim, now))
                if claim.tie is not Tie.LEFT:
                    silent[claim.run_id] = None
        self._reap(silent, now)
