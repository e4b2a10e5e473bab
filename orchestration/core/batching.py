"""How many items go into a batch, and which are next."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

FIRST_SIZE = 1  # items in a task's first batch
GROWTH = 2  # at most, from one full batch to the next ...
QUICK_GROWTH = 8  # ... while a batch takes less than GRAIN_SECONDS: its round trip costs more
TARGET_SECONDS = 0.25  # per batch: 100 times what an engine needs for a submission, and still lively
GRAIN_SECONDS = 0.01  # less work is not worth a batch of its own: it would cost an engine nearly as much
DEADLINE_SECONDS = 1.0  # past it a worker gives the unstarted tail back
MAX_ITEMS = 10_000
MAX_BYTES = 32 << 20  # of arguments and results per batch: it moves as a whole, and is held as a whole
SMOOTHING = 0.3  # least weight of the newest batch in the mean
SHORT_SECONDS = 0.05  # items below this are worth fusing
MAX_AHEAD = 16  # batches per slot that are less than AHEAD_SECONDS of work together
AHEAD_SECONDS = 0.005
PREFETCH_SECONDS = 0.3  # and below this worth prefetching: a round trip would be a few percent of them
SINGLE_PREFETCH_SECONDS = (
    0.5  # of a single task run, which others wait for more often than for an item of a map
)


_LEAST_SECONDS = 1e-7  # of an item: nothing is quicker


class Lesson(NamedTuple):
    """What a run has learned of a task: seconds and bytes per item, and whether its code waits for other task runs."""

    seconds: float
    bytes_each: float
    waits: bool = False


def most_items(seconds_each: float, bytes_each: float) -> int:
    """Return how many items a batch has at most, by time, bytes and number."""
    by_time, by_bytes = TARGET_SECONDS / max(seconds_each, _LEAST_SECONDS), MAX_BYTES / max(bytes_each, 1.0)
    return max(1, int(min(MAX_ITEMS, by_time, by_bytes)))


class Sizer:
    """Chooses batch sizes from the time that items take on workers. Shared by all nodes of a task.

    Starts at one item, grows with each full batch seen (GROWTH, QUICK_GROWTH), aims at TARGET_SECONDS, keeps below
    MAX_BYTES, and leaves enough batches for all slots at the end (factoring: at most half of an equal share of what
    remains, but no crumbs: GRAIN_SECONDS of work).
    """

    __slots__ = ("_seen", "bytes_each", "mean", "size", "waits")

    def __init__(self, lesson: Lesson | None = None) -> None:
        """Begin with nothing, or with what an earlier run has taught: then a batch may be worth GRAIN_SECONDS."""
        self.mean: float | None = None  # seconds per item, overhead included
        self.bytes_each = 0.0  # of an item's arguments and result
        self.size = FIRST_SIZE
        self.waits = False  # its code has been seen to wait for other task runs
        self._seen = 0.0  # items behind the mean, those of long ago counting less
        if lesson is not None:
            self.mean, self.bytes_each, self.waits = lesson
            quick = int(GRAIN_SECONDS / max(self.mean, _LEAST_SECONDS))
            self.size = max(FIRST_SIZE, min(quick, most_items(self.mean, self.bytes_each)))

    @property
    def lesson(self) -> Lesson | None:
        """What a later run of the same task may begin with."""
        return None if self.mean is None else Lesson(self.mean, self.bytes_each, self.waits)

    def observe(self, items: int, seconds: float, moved_bytes: int = 0, *, grow: bool = True) -> None:
        """Learn from a batch of which `items` were run within `seconds` on the worker.

        Args:
            moved_bytes: of their arguments and results.
            grow: False if the same batch has let the size grow before.
        """
        if items <= 0:
            return
        each, size = seconds / items, moved_bytes / items
        self.mean = each if self.mean is None else self.mean
        # a batch larger than all before says more than they did: theirs was mostly what a batch costs by itself;
        # items that became slower count at once
        share = items / (items + self._seen)
        self._seen = (1 - SMOOTHING) * self._seen + items
        self.mean += max(SMOOTHING, share if each < self.mean else 0.0) * (each - self.mean)
        self.bytes_each += max(SMOOTHING, share) * (size - self.bytes_each)
        ideal = most_items(self.mean, self.bytes_each)
        if ideal < self.size:
            self.size = ideal
        elif grow and items >= self.size:
            self.size = min((QUICK_GROWTH if seconds < GRAIN_SECONDS else GROWTH) * self.size, ideal)

    def choose(self, ready: int, remaining: int, slots: int, each: float | None = None) -> int:
        """Return the next batch's size.

        Args:
            ready: items that could go now.
            remaining: items of the node that are not at the engine and have not ended.
            each: seconds per item, if it takes others with it; else the mean counts.
        """
        each = self.mean if each is None else each
        fair = math.ceil(remaining / (2 * max(1, slots)))
        if each is not None:
            fair = max(fair, int(GRAIN_SECONDS / max(each, _LEAST_SECONDS)))
        return max(1, min(self.size, ready, fair))

    def is_crumb(self, ready: int) -> bool:
        """Whether so many items are too little work to go while all slots are busy: more may come meanwhile."""
        return self.mean is not None and ready * self.mean < GRAIN_SECONDS

    def batches_ahead(self, items: int) -> int:
        """Return how many batches of so few items a slot may have, so that it is not idle between them."""
        seconds = items * (self.mean or AHEAD_SECONDS)
        return max(1, min(MAX_AHEAD, int(AHEAD_SECONDS / max(seconds, _LEAST_SECONDS))))

    @property
    def short(self) -> bool:
        """Whether a slot should find its next batch waiting."""
        return (
            self.mean is not None
            and self.mean * self.size < 2 * TARGET_SECONDS
            and self.mean < PREFETCH_SECONDS
        )

    @property
    def short_if_single(self) -> bool:
        """Whether a slot should find its next batch waiting, if that is a single task run."""
        return self.mean is not None and self.mean < SINGLE_PREFETCH_SECONDS


class ReadyQueue:
    """Indices of ready items, in spans; items that must run alone, or in small groups, are kept apart and come first.

    An item is in it at most once. Discarding one costs nothing: it is skipped when its turn comes.
    """

    __slots__ = ("_apart", "_gone", "_head", "_spans", "_total")

    def __init__(self) -> None:
        # made when needed, and no deque: most nodes are single items, and an empty deque takes 600 bytes
        self._spans: list[tuple[int, int]] | None = None
        self._head = 0  # spans before it have been taken
        self._apart: deque[Sequence[int]] | None = None
        self._gone: set[int] | None = None  # discarded items that still stand there
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[int]:
        gone = self._gone or ()
        yield from (i for group in self._apart or () for i in group if i not in gone)
        for start, stop in (self._spans or [])[self._head :]:
            yield from (i for i in range(start, stop) if i not in gone)

    def add(self, indices: Sequence[int]) -> None:
        """Append items that may share a batch."""
        if isinstance(indices, range) and indices.step == 1:
            self._add_span(indices.start, indices.stop)
        else:
            for index in indices:
                self._add_span(index, index + 1)

    def add_apart(self, indices: Sequence[int], most: int = 1) -> None:
        """Append items that go before others, in batches of at most `most`."""
        if self._apart is None:
            self._apart = deque()
        self._apart.extend(indices[at : at + most] for at in range(0, len(indices), most))
        self._total += len(indices)

    @property
    def apart(self) -> int:
        """How many of the next items may share a batch at most because they are kept apart; 0 if they are not."""
        while self._apart:
            group = self._apart[0]
            if not self._gone or self._gone.isdisjoint(group):
                return len(group)
            self._apart.popleft()
            left = [index for index in group if index not in self._gone]
            self._gone.difference_update(group)
            if left:
                self._apart.appendleft(left)
        return 0

    def take(self, n: int) -> Sequence[int]:
        """Remove and return up to n items, as a range where they are contiguous."""
        if self.apart:
            assert self._apart is not None
            group = self._apart.popleft()
            taken: Sequence[int] = _contiguous(array("i", group[:n]))
            if len(group) > n:
                self._apart.appendleft(group[n:])
        elif self._gone:
            taken = self._take_rest(n)
        else:
            taken = self._take_spans(n)
        self._total -= len(taken)
        if not self._total:
            self.clear()
        return taken

    def discard(self, indices: Sequence[int]) -> None:
        """Remove items, all of which are in the queue."""
        if len(indices) == self._total:
            self.clear()
        elif len(indices):
            if self._gone is None:
                self._gone = set()
            self._gone.update(indices)
            self._total -= len(indices)

    def clear(self) -> None:
        self._spans = self._apart = self._gone = None
        self._head = self._total = 0

    def _take_spans(self, n: int) -> Sequence[int]:
        spans, head = self._spans, self._head
        assert spans, "take() from an empty queue"
        start, stop = spans[head]
        if stop - start >= n or head + 1 == len(spans):
            return self._cut(n)
        taken = array("i")
        while len(taken) < n and self._head < len(spans):
            taken.extend(self._cut(n - len(taken)))
        return taken

    def _cut(self, n: int) -> range:
        """Take up to n items off the first span."""
        spans = self._spans
        assert spans
        start, stop = spans[self._head]
        if stop - start > n:
            spans[self._head] = (start + n, stop)
            return range(start, start + n)
        self._head += 1
        if self._head > 1000 and 2 * self._head > len(spans):
            del spans[: self._head]
            self._head = 0
        return range(start, stop)

    def _take_rest(self, n: int) -> Sequence[int]:
        """Take items without those that have been discarded."""
        spans, gone = self._spans, self._gone
        assert spans
        assert gone
        taken = array("i")
        while len(taken) < n and self._head < len(spans):
            for index in self._cut(n - len(taken)):
                if index in gone:
                    gone.discard(index)
                else:
                    taken.append(index)
        return _contiguous(taken)

    def _add_span(self, start: int, stop: int) -> None:
        if stop <= start:
            return
        if self._spans is None:
            self._spans = []
        self._total += stop - start
        if len(self._spans) > self._head and self._spans[-1][1] == start:
            self._spans[-1] = (self._spans[-1][0], stop)
        else:
            self._spans.append((start, stop))


def _contiguous(taken: array[int]) -> Sequence[int]:
    """Return a range where items are one behind the other, else the items."""
    if taken[-1] - taken[0] + 1 == len(taken) and all(map(int.__lt__, taken, taken[1:])):
        return range(taken[0], taken[-1] + 1)
    return taken
