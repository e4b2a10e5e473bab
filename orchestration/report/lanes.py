"""The timeline of a report: workers as lanes, columns of a fixed number whatever the number of task runs."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..core.states import State
from ..stores.base import TaskRunRow

COLUMNS = 900
MAX_LANES = 64
IDLE = 255

# Of the states that meet in one column the one that somebody must see is shown.
_SHOWN_FIRST = (
    State.CRASHED,
    State.FAILED,
    State.CANCELLED,
    State.UPSTREAM_FAILED,
    State.AWAITING_RETRY,
    State.RUNNING,
    State.SKIPPED,
    State.COMPLETED,
)
_RANK = {int(state): rank for rank, state in enumerate(_SHOWN_FIRST)} | {IDLE: 100}


@dataclass(frozen=True, slots=True)
class Segment:
    """Columns from `first` up to `last`, exclusive, of one state."""

    first: int
    last: int
    state: State


@dataclass(frozen=True, slots=True)
class Lane:
    """What one worker did, or one of its threads.

    Attributes:
        retried: columns in which a task run began that had been tried before.
    """

    worker: str
    segments: Sequence[Segment]
    retried: Sequence[int]
    task_runs: int


@dataclass(frozen=True, slots=True)
class Lanes:
    """All lanes between two times; `left_out` of them did not fit."""

    started: float
    ended: float
    lanes: Sequence[Lane]
    left_out: int = 0


def lanes_of(items: Iterable[TaskRunRow], now: float) -> Lanes | None:
    """Return the timeline of task runs, None where none has started; what still runs ends `now`."""
    by_worker: dict[str, list[tuple[float, float, TaskRunRow]]] = defaultdict(list)
    for item in items:
        if item.started is None:
            continue
        seconds = now - item.started if item.seconds is None else item.seconds
        by_worker[item.worker].append((item.started, item.started + max(0.0, seconds), item))
    if not by_worker:
        return None
    started = min(span[0] for spans in by_worker.values() for span in spans)
    ended = max(span[1] for spans in by_worker.values() for span in spans)
    scale = COLUMNS / max(ended - started, 1e-6)
    packed = [(worker, lane) for worker in sorted(by_worker) for lane in _packed(by_worker[worker])]
    drawn = [_lane(worker, lane, started, scale) for worker, lane in packed[:MAX_LANES]]
    return Lanes(started, ended, drawn, len(packed) - len(drawn))


def _packed(
    spans: list[tuple[float, float, TaskRunRow]],
) -> Iterator[list[tuple[float, float, TaskRunRow]]]:
    """Share out what overlaps to as few lanes as can hold it: a worker may have several threads."""
    spans.sort(key=lambda span: span[:2])
    lanes: list[list[tuple[float, float, TaskRunRow]]] = []
    free: list[tuple[float, int]] = []  # when a lane is free again, and which
    for span in spans:
        # Ends come from a duration and starts from a clock: they may disagree by some microseconds.
        if free and free[0][0] <= span[0] + 1e-4:
            _, k = heapq.heappop(free)
        else:
            k = len(lanes)
            lanes.append([])
        lanes[k].append(span)
        heapq.heappush(free, (span[1], k))
    yield from lanes


def _lane(worker: str, spans: Sequence[tuple[float, float, TaskRunRow]], origin: float, scale: float) -> Lane:
    columns = bytearray([IDLE]) * COLUMNS
    retried = set()
    for started, ended, item in spans:
        first = min(int((started - origin) * scale), COLUMNS - 1)
        last = min(max(first + 1, round((ended - origin) * scale)), COLUMNS)
        rank = _RANK.get(int(item.state), 50)
        for column in range(first, last):
            if rank < _RANK.get(columns[column], 50):
                columns[column] = item.state
        if item.attempts > 1:
            retried.add(first)
    return Lane(worker, list(_segments(columns)), sorted(retried), len(spans))


def _segments(columns: bytearray) -> Iterator[Segment]:
    first = 0
    for state, same in groupby(columns):
        last = first + len(list(same))
        if state != IDLE:
            yield Segment(first, last, State(state))
        first = last
