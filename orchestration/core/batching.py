"""How many items go into a batch, and which are next."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterator, Sequence

TARGET_SECONDS = 0.25  # per batch: 100 times what an engine needs for a submission, and still lively
DEADLINE_SECONDS = 1.0  # past it a worker gives the unstarted tail back
MAX_ITEMS = 10_000
SMOOTHING = 0.3  # weight of the newest batch in the mean
SHORT_SECONDS = 0.05  # items below this are worth prefetching


class Sizer:
    """Chooses batch sizes from the time that items take on workers. Shared by all nodes of a task.

    Starts at one item, at most doubles with each full batch seen, aims at TARGET_SECONDS, and leaves enough
    batches for all slots at the end (factoring: at most half of an equal share of what remains).
    """

    __slots__ = ("mean", "size")

    def __init__(self) -> None:
        self.mean: float | None = None  # seconds per item, overhead included
        self.size = 1

    def observe(self, items: int, seconds: float) -> None:
        """Learn from a batch of which `items` were run within `seconds` on the worker."""
        if items <= 0:
            return
        each = seconds / items
        self.mean = each if self.mean is None else (1 - SMOOTHING) * self.mean + SMOOTHING * each
        ideal = max(1, min(MAX_ITEMS, int(TARGET_SECONDS / max(self.mean, 1e-7))))
        if ideal < self.size:
            self.size = ideal
        elif items >= self.size:
            self.size = min(2 * self.size, ideal)

    def choose(self, ready: int, remaining: int, slots: int) -> int:
        """Return the next batch's size.

        Args:
            ready: items that could go now.
            remaining: items of the node that are not at the engine and have not ended.
        """
        fair = math.ceil(remaining / (2 * max(1, slots)))
        return max(1, min(self.size, ready, fair))

    @property
    def short(self) -> bool:
        """Whether a slot should find its next batch waiting."""
        return (
            self.mean is not None
            and self.mean * self.size < 2 * TARGET_SECONDS
            and (self.mean < SHORT_SECONDS)
        )


class ReadyQueue:
    """Indices of ready items, in spans; items that must run alone are kept apart and come first."""

    __slots__ = ("_alone", "_spans", "_total")

    def __init__(self) -> None:
        self._spans: deque[tuple[int, int]] = deque()
        self._alone: deque[int] = deque()
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[int]:
        yield from self._alone
        for start, stop in self._spans:
            yield from range(start, stop)

    def add(self, indices: Sequence[int]) -> None:
        """Append items that may share a batch."""
        if isinstance(indices, range) and indices.step == 1:
            self._add_span(indices.start, indices.stop)
        else:
            for index in indices:
                self._add_span(index, index + 1)

    def add_alone(self, index: int) -> None:
        """Append an item that gets a batch of its own."""
        self._alone.append(index)
        self._total += 1

    @property
    def alone(self) -> bool:
        """Whether the next item runs alone."""
        return bool(self._alone)

    def take(self, n: int) -> Sequence[int]:
        """Remove and return up to n items, as a range where they are contiguous."""
        if self._alone:
            self._total -= 1
            index = self._alone.popleft()
            return range(index, index + 1)
        start, stop = self._spans[0]
        if stop - start > n:
            self._spans[0] = (start + n, stop)
            self._total -= n
            return range(start, start + n)
        self._spans.popleft()
        self._total -= stop - start
        if stop - start == n or not self._spans:
            return range(start, stop)
        taken = array("i", range(start, stop))
        while len(taken) < n and self._spans:
            start, stop = self._spans[0]
            use = min(stop - start, n - len(taken))
            taken.extend(range(start, start + use))
            if start + use == stop:
                self._spans.popleft()
            else:
                self._spans[0] = (start + use, stop)
            self._total -= use
        return taken

    def discard(self, indices: frozenset[int] | set[int]) -> None:
        """Remove items, wherever they stand."""
        alone = [i for i in self._alone if i not in indices]
        rest = [i for start, stop in self._spans for i in range(start, stop) if i not in indices]
        self.clear()
        self._alone.extend(alone)
        self._total = len(alone)
        self.add(rest)

    def clear(self) -> None:
        self._spans.clear()
        self._alone.clear()
        self._total = 0

    def _add_span(self, start: int, stop: int) -> None:
        if stop <= start:
            return
        self._total += stop - start
        if self._spans and self._spans[-1][1] == start:
            self._spans[-1] = (self._spans[-1][0], stop)
        else:
            self._spans.append((start, stop))
