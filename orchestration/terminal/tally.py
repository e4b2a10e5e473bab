"""What a run has come to, from the entries of its journal. Fed in the driver's thread, so it counts by batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from runners.messages import Detail, LogLine, Outcome

from ..core.journal import (
    LOST,
    AttemptsEnded,
    Counted,
    Entry,
    LogWritten,
    Moved,
    NodeAdded,
    RunMoved,
    WidthLearned,
)
from ..core.states import RunState, State
from .progress import NodeProgress, Speed
from .words import label

MAX_FAILURES = 50
MAX_WAITING_LINES = 2_000  # of log that nobody has printed yet; more are counted, and in the record

_NO_COUNTS = (0,) * len(State)
_FINAL_FAILURES = bytes((State.FAILED, State.CRASHED))


@dataclass(slots=True)
class NodeTally:
    """A node as far as the display is concerned.

    Attributes:
        line: what its line is called: single task runs of one task share one, each map has its own.
    """

    name: str
    kind: str
    width: int | None
    line: str
    counts: tuple[int, ...] = _NO_COUNTS
    begun: bool = False


@dataclass(slots=True)
class Failure:
    """Task runs of one task, in however many nodes, that ended by one type of error."""

    type_name: str
    message: str
    traceback: str
    first: str
    count: int = 0
    place: tuple[int, int] = (0, 0)  # node and index of the first


@dataclass(frozen=True, slots=True)
class ShownLine:
    """A log line with whose it is."""

    whose: str
    line: LogLine


class Tally:
    """The counts, failures and log lines of one run. An observer of its driver."""

    def __init__(self, run_name: str, min_level: int) -> None:
        self.nodes: dict[int, NodeTally] = {}
        self.speeds: dict[str, Speed] = {}  # by line
        self.retries = 0
        self.lost = 0
        self.cached = 0
        self.failures: dict[tuple[str, str], Failure] = {}
        self.state = RunState.PENDING
        self.message = ""
        self.lines_dropped = 0
        self._run_name = run_name
        self._min_level = min_level
        self._lines: deque[ShownLine] = deque()
        self._lock = threading.Lock()  # of `nodes`: added to by the driver, iterated by the display

    def observe(self, entries: Sequence[Entry]) -> None:
        """Take note of a turn."""
        for entry in entries:
            if type(entry) is Counted:
                node = self.nodes.get(entry.node_id)
                if node is not None:
                    node.counts = entry.counts
                    if not node.begun and any(entry.counts[State.SUBMITTED :]):
                        node.begun = True
                        self.speeds.setdefault(node.line, Speed()).begin(time.monotonic())
            elif type(entry) is AttemptsEnded:
                self._attempts(entry)
            elif type(entry) is Moved:
                if entry.state is State.FAILED:
                    self._fail(entry.node_id, entry.indices[0], Detail("", entry.reason), len(entry.indices))
            elif type(entry) is NodeAdded:
                self._add(entry)
            elif type(entry) is LogWritten:
                self._logs(entry)
            elif type(entry) is WidthLearned:
                self.nodes[entry.node_id].width = entry.width
            elif type(entry) is RunMoved:
                self.state, self.message = entry.state, entry.message

    def progress(self, now: float, prefix: str = "") -> list[NodeProgress]:
        """Return how far the nodes are, single task runs of one task together."""
        with self._lock:
            nodes = list(self.nodes.values())
        together: dict[str, list[NodeTally]] = {}
        for node in nodes:
            together.setdefault(node.line, []).append(node)
        found = []
        for line, group in together.items():
            width = group[0].width if len(group) == 1 else sum(node.width or 0 for node in group)
            counts = (
                group[0].counts
                if len(group) == 1
                else [*map(sum, zip(*(n.counts for n in group), strict=True))]
            )
            made = NodeProgress(prefix + line, width, counts)
            speed = self.speeds.setdefault(line, Speed()).update(now, made.done)
            found.append(NodeProgress(made.name, width, counts, speed))
        return found

    def take_lines(self) -> list[ShownLine]:
        """Return the log lines since the last call."""
        taken = []
        while self._lines:
            taken.append(self._lines.popleft())
        return taken

    def _add(self, entry: NodeAdded) -> None:
        line = entry.task_name
        if entry.kind == "map":
            line = line_of(entry.task_name, entry.path)
        with self._lock:
            self.nodes[entry.node_id] = NodeTally(entry.task_name, entry.kind, entry.width, line)

    def _attempts(self, entry: AttemptsEnded) -> None:
        self.retries += entry.states.count(State.AWAITING_RETRY)
        self.lost += entry.outcomes.count(LOST)
        self.cached += entry.outcomes.count(Outcome.CACHED)
        if not entry.details:
            return
        for k, detail in entry.details.items():
            if entry.states[k] in _FINAL_FAILURES:
                self._fail(entry.node_id, entry.indices[k], detail, 1)

    def _fail(self, node_id: int, index: int, detail: Detail, count: int) -> None:
        node, place = self.nodes.get(node_id), (node_id, index)
        key = ("" if node is None else node.name, detail.type_name)
        found = self.failures.get(key)
        if found is None:
            if len(self.failures) >= MAX_FAILURES:
                return
            found = self.failures[key] = Failure(detail.type_name, "", "", "")
        found.count += count
        if not found.first or place < found.place:  # the lowest one, so that each run shows the same
            found.place, found.first = place, self._whose(node_id, index)
            found.message, found.traceback = detail.message, detail.traceback

    def _logs(self, entry: LogWritten) -> None:
        for index, line in zip(entry.items, entry.lines, strict=True):
            if line.level < self._min_level:
                continue
            if len(self._lines) >= MAX_WAITING_LINES:
                self.lines_dropped += 1
            else:
                self._lines.append(ShownLine(self._whose(entry.node_id, index), line))

    def _whose(self, node_id: int, index: int) -> str:
        node = self.nodes.get(node_id)
        return self._run_name if node is None else label(node.name, node.kind, index)


def line_of(task_name: str, path: str) -> str:
    """Return a map's name on its line: the task's, for a later map of the same task with its number."""
    number = path.rpartition("-")[2]
    return task_name if number in ("", "0") else f"{task_name}-{number}"
