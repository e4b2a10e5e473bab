"""One run of the MemoryStore: its journal as the coordinator made it, and what follows from it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from runners.messages import LogLine

from ..core.journal import (
    AttemptsEnded,
    Counted,
    Entry,
    LogWritten,
    Moved,
    NodeAdded,
    RunMoved,
    StartRepeated,
    WidthLearned,
)
from ..core.states import RUN_TERMINAL, RunState, State
from . import replay
from .base import DEAD_AFTER_SECONDS, LogRow, NodeRow, Requests, RunRow
from .failures import Failures
from .limits import LOGGER_NAME
from .liveness import is_gone, mark_at
from .remains import NodeHead, Row, Trace
from .timeline import Ended

_NO_COUNTS = (0,) * len(State)


def _trace(entry: replay.ItemEntry) -> Trace | None:
    if isinstance(entry, Moved):
        return Trace(entry.indices, entry.state)
    if isinstance(entry, AttemptsEnded):
        columns = entry.states, entry.outcomes, entry.attempts, entry.positions
        return Trace(entry.indices, None, *columns, entry.stored)
    return None


class RunRecord:
    """One run; a `replay.JournalView` and a `remains.RemainsView` of itself."""

    def __init__(self, run: RunRow) -> None:
        self.run = run
        self.mark = mark_at(run.host, run.pid)
        self.asked = Requests()
        self.by_node: dict[int, NodeRow] = {}
        self.paths: dict[str, int] = {}  # the newest node of each path
        self.items: dict[int, list[tuple[int, replay.ItemEntry]]] = {}
        self.failures = Failures()
        self.logs: list[LogRow] = []
        self.seq = 0
        self.next_batch = 0

    def row(self) -> RunRow:
        current = [node.counts for node in self.by_node.values() if node.replaced_by is None]
        counts = tuple(map(sum, zip(*current, strict=True))) if current else self.run.counts
        return replace(self.run, counts=counts)

    def is_dead(self, now: float, proven: bool) -> bool:
        run = self.run
        if run.state in RUN_TERMINAL or (not run.pid and run.heartbeat is None):
            return False
        heard = run.created if run.heartbeat is None else run.heartbeat
        silent = not proven and now - heard > DEAD_AFTER_SECONDS
        return silent or is_gone(run.host, run.pid, self.mark)

    # --- JournalView ----------------------------------------------------------------------------

    def nodes(self, node_id: int | None = None) -> list[NodeRow]:
        if node_id is not None:
            return [self.by_node[node_id]] if node_id in self.by_node else []
        return [self.by_node[one] for one in sorted(self.by_node)]

    def transitions(
        self, node_id: int, first: int = 0, last: int = replay.MAX_INDEX, after: int = 0
    ) -> Iterator[tuple[int, Sequence[int], bytes | int]]:
        for seq, entry in self.items.get(node_id, ()):
            if seq <= after:
                continue
            if isinstance(entry, AttemptsEnded):
                yield seq, entry.indices, bytes(entry.states)
            elif isinstance(entry, Moved):
                yield seq, entry.indices, int(entry.state)

    def entries(self, node_id: int, wanted: Sequence[int]) -> Sequence[tuple[int, replay.ItemEntry]]:
        return self.items.get(node_id, ())

    def everything(self) -> Iterator[tuple[int, replay.ItemEntry]]:
        for node_id in sorted(self.items):
            for _, entry in self.items[node_id]:
                yield node_id, entry

    def remains(self) -> Iterator[Row]:
        for node in self.nodes():
            once = node.policy.get("rerun_on_loss") is False
            head = NodeHead(node.node_id, node.path, node.fingerprint, node.width, once)
            traces = [_trace(entry) for _, entry in self.items.get(node.node_id, ())]
            yield node.path, node.fingerprint, head, None
            for trace in filter(None, traces):
                yield node.path, node.fingerprint, head, trace

    @staticmethod
    def read_remains(row: Row) -> tuple[NodeHead, Trace | None]:
        return row[2], row[3]

    def ended(self, after: int) -> Iterator[Ended]:
        for node in self.nodes():
            for seq, entry in self.items.get(node.node_id, ()) if node.replaced_by is None else ():
                if seq > after and isinstance(entry, AttemptsEnded):
                    yield Ended(
                        seq, node.node_id, entry.worker, entry.indices, entry.attempts, entry.started,
                        entry.durations, bytes(entry.states), bytes(entry.outcomes),
                    )  # fmt: skip

    # --- writing --------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> None:
        match entry:
            case Moved() | StartRepeated():
                self._add(entry)
                if isinstance(entry, Moved):
                    self.failures.moved(entry)
                    if entry.state is State.RUNNING:
                        self._span(entry.node_id, entry.at, None)
            case AttemptsEnded():
                self._ended(entry)
            case Counted():
                self._change(entry.node_id, counts=tuple(entry.counts))
                if entry.waited:
                    self._change(entry.node_id, waited=entry.waited)
            case LogWritten():
                for item, attempt, line in zip(entry.items, entry.attempts, entry.lines, strict=True):
                    self.log(entry.node_id, item, attempt, line)
            case NodeAdded():
                self._added(entry)
            case WidthLearned():
                self._change(entry.node_id, width=entry.width)
            case RunMoved():
                self._run_moved(entry)

    def note(self, at: float, message: str) -> None:
        self.log(-1, -1, 0, LogLine(0, 0, 0, at, logging.WARNING, LOGGER_NAME, message))

    def log(self, node_id: int, item: int, attempt: int, line: LogLine) -> None:
        self.seq += 1
        node = self.by_node.get(node_id)
        name = node.task_name if node else ""
        self.logs.append(
            LogRow(self.seq, node_id, item, attempt, name, line.at, line.level, line.logger, line.message)
        )

    def _add(self, entry: replay.ItemEntry) -> None:
        self.seq += 1
        if entry.indices:
            self.items.setdefault(entry.node_id, []).append((self.seq, entry))
        if not isinstance(entry, Moved):
            self.next_batch = max(self.next_batch, entry.batch_id + 1)

    def _ended(self, entry: AttemptsEnded) -> None:
        if entry.details:
            # An exception object would keep its frames, and with them user data, alive as long as the store.
            entry = replace(entry, details={k: replace(d, live=None) for k, d in entry.details.items()})
        self._add(entry)
        retries, seconds = entry.retried()
        if retries:
            run = self.run
            self.run = replace(run, retries=run.retries + retries, retry_seconds=run.retry_seconds + seconds)
        self._span(entry.node_id, min(filter(None, entry.started), default=None), entry.at)
        self.failures.ended(entry)

    def _span(self, node_id: int, started: float | None, ended: float | None) -> None:
        node = self.by_node.get(node_id)
        if node is not None:
            first = min((t for t in (node.started, started) if t is not None), default=None)
            last = max((t for t in (node.ended, ended) if t is not None), default=None)
            self._change(node_id, started=first, ended=last)

    def _change(self, node_id: int, **changes: Any) -> None:
        if node_id in self.by_node:
            self.by_node[node_id] = replace(self.by_node[node_id], **changes)

    def _added(self, entry: NodeAdded) -> None:
        old = self.paths.get(entry.path)
        if old is not None:
            self._change(old, replaced_by=entry.node_id)
        self.paths[entry.path] = entry.node_id
        policy: Mapping[str, Any] = dict(entry.policy)
        self.by_node[entry.node_id] = NodeRow(
            node_id=entry.node_id,
            path=entry.path,
            task_name=entry.task_name,
            kind=entry.kind,
            width=entry.width,
            created=entry.at,
            tags=frozenset(entry.tags),
            upstream=tuple(entry.upstream),
            fingerprint=entry.fingerprint,
            policy=policy,
            parent=entry.parent,
            counts=_NO_COUNTS,
            started=None,
            ended=None,
        )

    def _run_moved(self, entry: RunMoved) -> None:
        over, run = entry.state in RUN_TERMINAL, self.run
        started = run.started
        if started is None and entry.state is RunState.RUNNING:
            started = entry.at
        self.run = replace(
            run,
            state=entry.state,
            state_name=entry.name,
            message=entry.message,
            detail=replace(entry.detail, live=None) if entry.detail else None,
            started=started,
            ended=entry.at if over else None,
            heartbeat=None if over else run.heartbeat,
            coordinator_seconds=entry.coordinator_seconds or run.coordinator_seconds,
            engine_url=entry.engine_url or run.engine_url,
        )
