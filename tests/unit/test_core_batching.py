"""Batch sizes and the queue of ready items, against naive models."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestration.core.batching import (
    GRAIN_SECONDS,
    GROWTH,
    MAX_ITEMS,
    QUICK_GROWTH,
    TARGET_SECONDS,
    ReadyQueue,
    Sizer,
)

SECONDS = st.floats(1e-7, 100.0)


@given(st.lists(st.tuples(st.integers(1, 20_000), SECONDS), max_size=30))
def test_a_size_grows_in_steps_and_never_leaves_its_bounds(batches: list[tuple[int, float]]) -> None:
    """Whatever is measured, sizes grow step by step and stay between 1 and the maximum."""
    sizer = Sizer()
    for items, seconds in batches:
        before = sizer.size
        sizer.observe(items, seconds)
        growth = QUICK_GROWTH if seconds < GRAIN_SECONDS else GROWTH
        assert 1 <= sizer.size <= min(growth * before, MAX_ITEMS)
        assert sizer.size == 1 or sizer.size * (sizer.mean or 0) <= TARGET_SECONDS * 1.001


def test_no_ops_need_few_batches_to_grow() -> None:
    """While a batch takes next to no time, each engine's round trip counts: sizes grow eightfold."""
    sizer = Sizer()
    sizes = []
    for _ in range(5):
        sizes.append(sizer.size)
        sizer.observe(sizer.size, 1e-4 + sizer.size * 1e-6)
    assert sizes == [1, 8, 64, 512, 4096]


def test_the_first_batch_does_not_spoil_the_mean() -> None:
    """What a batch costs by itself is not taken for the time of its items once larger ones are known."""
    sizer = Sizer()
    sizer.observe(1, 0.001)
    sizer.observe(8, 0.001 + 8e-6)
    sizer.observe(512, 0.001 + 512e-6)
    assert sizer.mean is not None
    assert sizer.mean < 1e-5  # and not the 3e-4 of a mean over batches


def test_items_that_become_slow_count_at_once() -> None:
    """After thousands of quick items few slow ones bring the size down."""
    sizer = Sizer()
    for _ in range(6):
        sizer.observe(sizer.size, sizer.size * 1e-5)
    assert sizer.size > 1000
    sizer.observe(1, 1.0)
    assert sizer.size == 1


def test_slow_items_run_singly() -> None:
    """Items of a second get batches of one, for all parallelism there is."""
    sizer = Sizer()
    for _ in range(10):
        sizer.observe(1, 1.0)
    assert sizer.choose(1000, 1000, 4) == 1
    assert not sizer.short


def test_fast_items_come_to_fill_the_target() -> None:
    """Full batches of short items double until a batch takes about the target time."""
    sizer = Sizer()
    for _ in range(20):
        sizer.observe(sizer.size, sizer.size * 0.001)
    assert sizer.size == 250
    assert sizer.short


@given(SECONDS, st.floats(0, 1e9))
def test_what_an_earlier_run_has_taught_is_a_start(seconds: float, nbytes: float) -> None:
    """The first batch is worth milliseconds or one item, and few slow items correct what is no longer true."""
    known = Sizer()
    known.observe(10, 10 * seconds, int(10 * nbytes))
    sizer = Sizer(known.lesson)
    assert sizer.size == 1 or sizer.size * seconds <= GRAIN_SECONDS * 1.001
    assert sizer.size <= known.size or known.size == 1 or seconds < GRAIN_SECONDS
    sizer.observe(1, 100.0)
    assert sizer.size == 1


def test_a_batch_that_was_not_full_teaches_no_growth() -> None:
    """Many small batches that were sent before the first came back do not let it grow many times."""
    sizer = Sizer()
    for _ in range(8):
        sizer.observe(1, 0.001)
    assert sizer.size == QUICK_GROWTH
    for _ in range(8):
        sizer.observe(QUICK_GROWTH - 1, 0.02)
    assert sizer.size == QUICK_GROWTH


def test_large_items_go_in_small_batches() -> None:
    """However little time they take: what a batch moves and holds is bounded."""
    sizer = Sizer()
    for _ in range(20):
        sizer.observe(sizer.size, sizer.size * 1e-5, sizer.size * 10_000_000)
    assert sizer.size == 3


def test_the_tail_has_no_crumbs() -> None:
    """Items of a microsecond do not go one by one at the end: each batch costs the engine milliseconds."""
    sizer = Sizer()
    for _ in range(20):
        sizer.observe(sizer.size, sizer.size * 1e-6)
    assert sizer.choose(40, 40, 8) == 40
    assert sizer.is_crumb(40)
    for _ in range(20):
        sizer.observe(1, 0.1)
    assert sizer.choose(40, 40, 8) <= 3
    assert not sizer.is_crumb(1)


@given(st.integers(1, 500), st.integers(0, 500), st.integers(0, 64), st.integers(1, 1000))
def test_the_tail_stays_balanced(ready: int, more: int, slots: int, size: int) -> None:
    """A batch is at most half of a slot's equal share of what remains, and at least one item."""
    sizer = Sizer()
    sizer.size = size
    chosen = sizer.choose(ready, ready + more, slots)
    assert 1 <= chosen <= min(size, ready)
    assert chosen == 1 or (chosen - 1) * 2 * max(1, slots) < ready + more


class QueueMachine(RuleBasedStateMachine):
    """A ReadyQueue beside two lists."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = ReadyQueue()
        self.apart: list[list[int]] = []
        self.rest: list[int] = []
        self.next = 0

    @rule(gap=st.integers(0, 2), width=st.integers(0, 9))
    def add_range(self, gap: int, width: int) -> None:
        start = self.next + gap
        self.next = start + width
        self.queue.add(range(start, start + width))
        self.rest += range(start, start + width)

    @rule(gaps=st.lists(st.integers(1, 3), max_size=5), backwards=st.booleans())
    def add_some(self, gaps: list[int], backwards: bool) -> None:
        indices = []
        for gap in gaps:
            self.next += gap
            indices.append(self.next)
        self.next += 1
        if backwards:
            indices.reverse()
        self.queue.add(indices)
        self.rest += indices

    @rule(width=st.integers(0, 9), most=st.integers(1, 4))
    def add_apart(self, width: int, most: int) -> None:
        indices = range(self.next + 1, self.next + 1 + width)
        self.queue.add_apart(indices, most)
        self.apart += [list(indices[at : at + most]) for at in range(0, width, most)]
        self.next += width + 1

    @precondition(lambda self: self.apart or self.rest)
    @rule(n=st.integers(1, 12))
    def take(self, n: int) -> None:
        assert self.queue.apart == (len(self.apart[0]) if self.apart else 0)
        taken = self.queue.take(n)
        if self.apart:
            group = self.apart[0]
            assert list(taken) == group[:n]
            del group[:n]
            self.apart = [group for group in self.apart if group]
            return
        assert 1 <= len(taken) <= n
        assert list(taken) == self.rest[: len(taken)]
        assert len(taken) == min(n, len(self.rest)) or isinstance(taken, range)
        del self.rest[: len(taken)]

    @precondition(lambda self: self.apart or self.rest)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.sampled_from(self.all), unique=True, max_size=6))
        self.queue.discard(gone)
        self.apart = [left for group in self.apart if (left := [i for i in group if i not in gone])]
        self.rest = [i for i in self.rest if i not in gone]

    @rule()
    def clear(self) -> None:
        self.queue.clear()
        self.apart, self.rest = [], []

    @invariant()
    def holds_the_same(self) -> None:
        assert len(self.queue) == len(self.all)
        assert list(self.queue) == self.all

    @property
    def all(self) -> list[int]:
        return [index for group in self.apart for index in group] + self.rest


TestReadyQueue = QueueMachine.TestCase


def test_discarded_items_are_skipped() -> None:
    """Those that run alone as well as those in spans, at the front and in the middle."""
    queue = ReadyQueue()
    queue.add_apart([20, 21, 22])
    queue.add(range(6))
    queue.discard([20, 22, 0, 3])
    assert list(queue) == [21, 1, 2, 4, 5]
    assert queue.take(9) == range(21, 22)
    assert not queue.apart
    assert list(queue.take(3)) == [1, 2, 4]
    assert queue.take(3) == range(5, 6)
    assert not len(queue)


def test_contiguous_items_are_taken_as_a_range() -> None:
    """Neighbouring spans join, and what is taken of them needs no list."""
    queue = ReadyQueue()
    queue.add(range(5))
    queue.add(range(5, 9))
    assert queue.take(7) == range(7)
    assert queue.take(7) == range(7, 9)
    assert not len(queue)
