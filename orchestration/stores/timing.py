"""Where a run's time went, computed from its journal: the same for every store.

A batch is submitted, started by a worker, ended, and heard of. Between start and end it is user code or the
worker's own work; what lies before and after is the engine's. Workers' clocks may differ from the flow's, so
no part is let become negative.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runners.messages import Outcome

from ..core.journal import AttemptsEnded

if TYPE_CHECKING:
    from .base import NodeRow
    from .replay import JournalView


@dataclass(frozen=True, slots=True)
class NodeTiming:
    """What became of the time of one node's items. Seconds are sums, over items or over batches.

    Attributes:
        node: the first one, if the figures are of several.
        nodes: how many nodes the figures are of.
        items: task runs.
        attempts: that have ended, lost ones included.
        started: when user code first started; `ended` when it last ended.
        code_seconds: in user code, over all attempts.
        cpu_seconds: of its batches' workers.
        slot_wait_seconds: items were ready and had no slot.
        limit_wait_seconds: items waited for a concurrency limit.
        retry_wait_seconds: items waited for their next attempt.
        worker_seconds: between a batch's start and end, but not in user code.
        delivery_seconds: from the submission of batches to their start.
        return_seconds: from the end of batches until the flow heard of it.
        batch_median, batch_largest: items in a batch.
        retries: attempts that did not end their task run; `retry_seconds` were spent in their code.
    """

    node: NodeRow
    nodes: int
    items: int
    attempts: int
    started: float | None
    ended: float | None
    code_seconds: float
    cpu_seconds: float
    slot_wait_seconds: float
    limit_wait_seconds: float
    retry_wait_seconds: float
    worker_seconds: float
    delivery_seconds: float
    return_seconds: float
    batches: int
    batch_median: int
    batch_largest: int
    retries: int
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class RunTiming:
    """What became of the time of a run's slots, of which there are as many as were ever busy at once.

    Attributes:
        nodes: by node.
        lines: as people read them: single task runs of one task are one line.
        wall_seconds: from the first submission of a batch to the last end that was heard of.
        code_seconds, worker_seconds: of the slots' time, in user code and around it on the worker.
        engine_seconds: slots were free while batches were on their way to or from a worker.
        idle_seconds: slots were free and no batch was under way.
    """

    nodes: tuple[NodeTiming, ...]
    lines: tuple[NodeTiming, ...]
    slots: int
    wall_seconds: float
    code_seconds: float
    worker_seconds: float
    engine_seconds: float
    idle_seconds: float


@dataclass(slots=True)
class _Batch:
    """One batch, over all nodes that have a part in it."""

    submitted: float
    heard: float
    started: float = 0.0  # 0.0: no item of it is known to have started
    ended: float = 0.0
    code: float = 0.0
    head: int = -1  # the node whose item started first

    def add(self, node_id: int, entry: AttemptsEnded) -> None:
        self.submitted = min(self.submitted, entry.submitted_at)
        self.heard = max(self.heard, entry.at)
        self.code += sum(entry.durations)
        for start, seconds in zip(entry.started, entry.durations, strict=True):
            if start:
                if not self.started or start < self.started:
                    self.started, self.head = start, node_id
                self.ended = max(self.ended, start + seconds)

    def settle(self) -> None:
        """Put the four moments in order, whatever the worker's clock says."""
        self.started = min(max(self.started, self.submitted), self.heard)
        self.ended = min(max(self.ended, self.started), self.heard)

    @property
    def worker(self) -> float:
        return max(0.0, self.ended - self.started - self.code)


class _Tally:
    """The sums of one node, or of several, without what only whole batches know."""

    def __init__(self, node: NodeRow) -> None:
        self.node = node
        self.sizes: dict[int, int] = {}
        self.nodes = self.items = self.attempts = self.retries = 0
        self.code = self.cpu = self.retry_code = 0.0
        self.started = self.ended = 0.0
        self.waited = [0.0, 0.0, 0.0]
        self.led: list[_Batch] = []

    def count(self, node: NodeRow) -> None:
        self.nodes += 1
        self.items += sum(node.counts)
        self.waited = [a + b for a, b in zip(self.waited, node.waited, strict=True)]

    def add(self, entry: AttemptsEnded) -> None:
        self.sizes[entry.batch_id] = self.sizes.get(entry.batch_id, 0) + len(entry.indices)
        self.attempts += len(entry.indices) - entry.outcomes.count(Outcome.UNSTARTED)
        self.code += sum(entry.durations)
        self.cpu += entry.cpu_seconds
        for start, seconds in zip(entry.started, entry.durations, strict=True):
            if start:
                self.started = min(self.started or start, start)
                self.ended = max(self.ended, start + seconds)
        retries, seconds = entry.retried()
        self.retries += retries
        self.retry_code += seconds

    def row(self) -> NodeTiming:
        """Return the sums; `led` are the batches that began with an item of it."""
        led = self.led
        sizes = sorted(self.sizes.values())
        slot, limit, retry = self.waited
        return NodeTiming(
            node=self.node,
            nodes=self.nodes,
            items=self.items or self.attempts,
            attempts=self.attempts,
            started=self.started or None,
            ended=self.ended or None,
            code_seconds=self.code,
            cpu_seconds=self.cpu,
            slot_wait_seconds=slot,
            limit_wait_seconds=limit,
            retry_wait_seconds=retry,
            worker_seconds=sum(batch.worker for batch in led),
            delivery_seconds=sum(batch.started - batch.submitted for batch in led),
            return_seconds=sum(batch.heard - batch.ended for batch in led),
            batches=len(sizes),
            batch_median=sizes[(len(sizes) - 1) // 2] if sizes else 0,
            batch_largest=max(sizes, default=0),
            retries=self.retries,
            retry_seconds=self.retry_code,
        )


def line_of(node: NodeRow) -> str:
    """Return what stands before a node in a list: single task runs of one task share a line."""
    return (node.path if node.kind == "map" else node.task_name).removesuffix("-0")


def timing(view: JournalView) -> RunTiming:
    """Return where the time of a run went, of nodes that no later process has replaced."""
    by_node: dict[int, _Tally] = {}
    by_line: dict[str, _Tally] = {}
    together: dict[int, _Tally] = {}
    batches: dict[int, _Batch] = {}
    inline: set[int] = set()  # a call runs in the flow's own thread and takes no slot
    for node in view.nodes():
        if node.replaced_by is not None:
            continue
        tally = by_node[node.node_id] = _Tally(node)
        line = together[node.node_id] = by_line.setdefault(line_of(node), _Tally(node))
        tally.count(node)
        line.count(node)
        for _, entry in view.entries(node.node_id, range(2**62)):
            if isinstance(entry, AttemptsEnded):
                tally.add(entry)
                line.add(entry)
                if not entry.submitted_at:
                    continue  # of a version that did not say
                if entry.batch_id not in batches:
                    batches[entry.batch_id] = _Batch(entry.submitted_at, entry.at)
                batches[entry.batch_id].add(node.node_id, entry)
                if node.kind == "call":
                    inline.add(entry.batch_id)
    ran = {batch_id: batch for batch_id, batch in batches.items() if batch.started}
    for batch in ran.values():
        batch.settle()
        by_node[batch.head].led.append(batch)
        together[batch.head].led.append(batch)
    rows, lines = (tuple(tally.row() for tally in found.values()) for found in (by_node, by_line))
    return _slots(rows, lines, [batch for batch_id, batch in ran.items() if batch_id not in inline])


def _slots(
    rows: tuple[NodeTiming, ...], lines: tuple[NodeTiming, ...], batches: Sequence[_Batch]
) -> RunTiming:
    """Share out the time of the slots: look at every moment how many were busy, and what was under way."""
    slots = _most_at_once(batches)
    changes: list[tuple[float, int, int]] = []  # (when, change of busy ones, change of those under way)
    for batch in batches:
        changes += [
            (batch.submitted, 0, 1),
            (batch.started, 1, -1),
            (batch.ended, -1, 1),
            (batch.heard, 0, -1),
        ]
    changes.sort()
    busy = under_way = 0
    working = engine = idle = before = 0.0
    for at, more_busy, more_under_way in changes:
        elapsed, free = at - before, slots - busy
        if before:
            working += elapsed * busy
            engine += elapsed * min(free, under_way)
            idle += elapsed * max(0, free - under_way)
        before = at
        busy += more_busy
        under_way += more_under_way
    code = min(working, sum(batch.code for batch in batches))
    wall = changes[-1][0] - changes[0][0] if changes else 0.0
    return RunTiming(rows, lines, slots, wall, code, working - code, engine, idle)


def _most_at_once(batches: Sequence[_Batch]) -> int:
    """Return how many batches ran at once; one that begins when another ends takes its place."""
    running: list[float] = []
    most = 0
    for batch in sorted(batches, key=lambda b: b.started):
        while running and running[0] <= batch.started:
            heapq.heappop(running)
        heapq.heappush(running, batch.ended)
        most = max(most, len(running))
    return most
