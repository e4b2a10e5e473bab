"""Slots of the flow's own process: never exceeded, lent while waiting, free after close."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from runners import SequentialTaskRunner
from runners.errors import RunnerNotStartedError
from runners.execution import CancelInterrupt, Interrupt
from runners.messages import Batch, Payload, Stage
from runners.pool import SlotPool

PATIENCE = 30.0


def batch(batch_id: int) -> Batch:
    return Batch("r", batch_id, [0], (Stage(0, "t", Payload(), Payload(), [1]),), Payload())


class Meter:
    """Counts how many run at a time, and when all have run."""

    def __init__(self, expected: int) -> None:
        self.now = self.most = 0
        self.left = expected
        self.lock = threading.Lock()
        self.done = threading.Event()

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.now -= 1
            self.left -= 1
            if not self.left:
                self.done.set()


def pool_of(slots: int, run: Callable[[SlotPool, Batch], Any]) -> SlotPool:
    pool = SlotPool(slots, lambda job: run(pool, job))
    return pool


def test_slots_are_never_exceeded() -> None:
    """200 jobs on 3 slots: all run, at most 3 at a time."""
    meter = Meter(200)

    def run(_: SlotPool, job: Batch) -> None:
        with meter:
            sum(range(2_000))

    pool = pool_of(3, run)
    pool.put([batch(n) for n in range(200)])
    assert meter.done.wait(PATIENCE)
    assert 1 <= meter.most <= 3
    pool.close()


def test_jobs_run_in_order() -> None:
    """On one slot, first come is first served."""
    seen: list[int] = []
    meter = Meter(50)

    def run(_: SlotPool, job: Batch) -> None:
        with meter:
            seen.append(job.batch_id)

    pool = pool_of(1, run)
    pool.put([batch(n) for n in range(50)])
    assert meter.done.wait(PATIENCE)
    assert seen == list(range(50))
    pool.close()


def test_lent_slots_are_counted() -> None:
    """Each job starts another and waits for it, 200 deep on two slots, and never do more than two work."""
    meter = Meter(201)
    ends = [threading.Event() for _ in range(201)]

    def run(pool: SlotPool, job: Batch) -> None:
        n = job.batch_id
        if n < 200:
            with meter.lock:
                meter.now += 1
                meter.most = max(meter.most, meter.now)
            pool.put([batch(n + 1)])
            with meter.lock:
                meter.now -= 1
            with pool.lent():
                ends[n + 1].wait(PATIENCE)
        with meter:
            ends[n].set()

    pool = pool_of(2, run)
    pool.put([batch(0)])
    assert meter.done.wait(PATIENCE)
    assert meter.most <= 2
    pool.close()


@pytest.mark.parametrize("when", ["give", "take", "both", "inside"])
def test_interrupts_tear_no_count(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Wherever an interrupt hits a job that lends its slot, there are as many slots afterwards as before."""
    meter = Meter(3)
    hits: list[str] = []

    def interrupted(name: str, method: Callable[..., None]) -> Callable[..., None]:
        def call(loan: Any) -> None:
            if not hits and when in (name, "both"):
                hits.append(name)
                raise CancelInterrupt
            method(loan)

        return call

    def run(pool: SlotPool, job: Batch) -> None:
        if job.batch_id == 0:
            try:
                with pool.lent():
                    if when == "inside":
                        raise CancelInterrupt
            except Interrupt:
                hits.append("raised")
        with meter:
            pass

    pool = pool_of(1, run)
    monkeypatch.setattr(pool, "_give", interrupted("give", pool._give))
    monkeypatch.setattr(pool, "_take_again", interrupted("take", pool._take_again))
    pool.put([batch(n) for n in range(3)])
    assert meter.done.wait(PATIENCE)
    assert hits[-1] == "raised"
    with pool._change:
        pool._change.wait_for(lambda: not pool._running, PATIENCE)
        assert pool._free == 1
        assert pool._returning == 0
    assert meter.most == 1
    pool.close()


def test_taking_back() -> None:
    """What waits is handed back and does not run; what runs is named."""
    running, release, meter = threading.Event(), threading.Event(), Meter(2)

    def run(_: SlotPool, job: Batch) -> None:
        with meter:
            running.set()
            release.wait(PATIENCE)

    pool = pool_of(1, run)
    pool.put([batch(n) for n in range(4)])
    assert running.wait(PATIENCE)
    taken, begun = pool.take_back([0, 1, 3, 99])
    assert [job.batch_id for job in taken] == [1, 3]
    assert [job.batch_id for job in begun] == [0]
    release.set()
    assert meter.done.wait(PATIENCE)
    pool.close()


def test_close_ends_idle_threads() -> None:
    """After close no thread waits for work, and what was queued does not run."""
    running, release, seen = threading.Event(), threading.Event(), []
    before = set(threading.enumerate())

    def run(_: SlotPool, job: Batch) -> None:
        seen.append(job.batch_id)
        running.set()
        release.wait(PATIENCE)

    pool = pool_of(1, run)
    pool.put([batch(0), batch(1)])
    assert running.wait(PATIENCE)
    assert [job.batch_id for job in pool.close()] == [0]
    release.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert seen == [0]


def test_close_does_not_keep_lenders_waiting() -> None:
    """A job that wants its slot back after close gets it at once."""
    lent, over, blocked = threading.Event(), threading.Event(), threading.Event()

    def run(pool: SlotPool, job: Batch) -> None:
        if job.batch_id == 0:
            with pool.lent():
                lent.set()
            over.set()
        else:
            blocked.wait(PATIENCE)

    pool = pool_of(1, run)
    pool.put([batch(0), batch(1)])
    assert lent.wait(PATIENCE)
    pool.close()
    assert over.wait(PATIENCE)
    blocked.set()


def test_a_runner_that_does_not_run() -> None:
    """Work for a runner that was not started, or was closed, is an error that says so."""
    runner = SequentialTaskRunner()
    with pytest.raises(RunnerNotStartedError, match="SequentialTaskRunner"):
        runner.submit([batch(1)])
    with runner:
        pass
    with pytest.raises(RunnerNotStartedError):
        runner.cancel([1])
