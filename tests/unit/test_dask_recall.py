"""What waits at a busy worker of a Dask cluster while another has nothing to do is taken back, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from runners import dask_worker
from runners.dask_bans import Bans
from runners.dask_flights import Flight
from runners.dask_places import LARGE_INPUTS
from runners.dask_recall import SETTLE_SECONDS, UNHEARD_SECONDS, Recall
from runners.messages import Batch, Input, Payload, Stage


class Cluster:
    """A desk with two workers of one thread, which say what they have `begun` when asked; `silent` ones do not."""

    def __init__(self) -> None:
        self.away = False
        self.topic = "topic"
        self.lock = threading.Lock()
        self.bans = Bans()
        self.client = self
        self.workers: dict[str, Any] = {"a": {"nthreads": 1}, "b": {"nthreads": 1}}
        self.silent: set[str] = set()
        self.begun: dict[str, list[int]] = {}
        self.elsewhere: set[int] = set()  # batches that do not wait at a
        self.flights: dict[int, Flight] = {}
        self.kept: dict[int, Any] = {}
        self.now = 100.0
        self.asked: list[tuple[str, list[int]]] = []
        self.told: list[
            tuple[list[int], list[int]]
        ] = []  # what a worker would learn that joins while others are asked
        self.back: list[int] = []
        self.news: list[Callable[[], None]] = []
        self.recall = Recall(self, lambda: self.now)  # type: ignore[arg-type]

    def spawn(self, make: Callable[[], Any]) -> None:
        self.news.append(lambda: asyncio.run(make()))

    def tell(self, news: Callable[[], None]) -> None:
        self.news.append(news)

    async def run(self, function: Any, *args: Any, on_error: str, asynchronous: bool) -> Any:
        asked = list(args[-1])
        self.asked.append((function.__name__.partition("_")[0], asked))
        self.told.append(self.bans.all())
        if function is dask_worker.waiting_batches:
            return {"a": [b for b in asked if b in self.flights and b not in self.elsewhere], "b": []}
        return {address: self.begun.get(address, []) for address in self.workers.keys() - self.silent}

    def give_back(self, batch_ids: Sequence[int]) -> None:
        for batch_id in batch_ids:
            del self.flights[batch_id]
        self.back += batch_ids

    def submit(self, *batch_ids: int, worker: str = "", item: int = 0, **batch: Any) -> None:
        for batch_id in batch_ids:
            stage = Stage(1, "t", Payload(), Payload(), [1])
            made = Batch("run", batch_id, [item or batch_id], (stage,), Payload(), **batch)
            self.flights[batch_id] = Flight(
                made, future=SimpleNamespace(key=f"k-{batch_id}"), submitted=self.now, worker=worker
            )
            self.recall.sent()

    def end(self, batch_id: int) -> None:
        del self.flights[batch_id]
        self.recall.ended()

    def wait(self, seconds: float) -> list[int]:
        """Let time pass, in steps; return the batches that have been taken back so far."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + max(0.001, self.recall.wait_seconds))
            self.look()
        return self.back

    def look(self, *, anyway: bool = False) -> list[int]:
        """Look once, and let everything happen that follows; return the batches that have been taken back so far."""
        self.recall.look(anyway=anyway)
        while self.news:
            self.news.pop(0)()
        return self.back


@pytest.fixture
def cluster() -> Cluster:
    """One batch has just ended; another runs on, with two behind it."""
    made = Cluster()
    made.submit(1, worker="a")
    made.submit(2, worker="b")
    made.submit(3, 4)
    assert made.wait(10) == []  # both are busy
    made.end(2)
    return made


def test_what_waits_for_a_busy_worker_goes_back(cluster: Cluster) -> None:
    """The oldest, and only as many as there is room for, once it is known that the idle worker has none of them."""
    assert cluster.wait(0.9 * SETTLE_SECONDS) == []
    assert cluster.wait(0.2 * SETTLE_SECONDS) == [3]
    assert cluster.asked == [("waiting", [3]), ("bar", [3])]
    cluster.submit(5, worker="b")  # the same item, sent anew
    assert cluster.wait(10) == [3]


def test_who_joins_meanwhile_begins_none_of_them(cluster: Cluster) -> None:
    """From when the first worker is told: the batch is barred, and stopped once it is taken back."""
    cluster.wait(1.1 * SETTLE_SECONDS)
    assert cluster.told == [([], []), ([], [3])]
    assert cluster.bans.all() == ([3], [])


def test_who_joins_later_may_begin_what_could_not_be_taken_back(cluster: Cluster) -> None:
    cluster.silent = {"a"}
    cluster.wait(1.1 * SETTLE_SECONDS)
    assert ([], [3]) in cluster.told
    assert cluster.bans.all() == ([], [])


def test_what_the_worker_begins_by_itself_stays(cluster: Cluster) -> None:
    cluster.flights[3].worker = "b"
    assert cluster.wait(10) == []
    assert cluster.asked == []


def test_what_may_be_about_to_begin_stays(cluster: Cluster) -> None:
    """Submitted just now, it is on its way; it goes back if it has been for too long."""
    del cluster.flights[3], cluster.flights[4]
    cluster.submit(5)
    assert cluster.wait(0.9 * UNHEARD_SECONDS) == []
    assert cluster.wait(0.2 * UNHEARD_SECONDS) == [5]


def test_room_for_what_is_on_its_way_is_no_room(cluster: Cluster) -> None:
    """A new batch is about to begin where there is room, so that nothing else need go there."""
    cluster.submit(5)
    assert cluster.wait(0.9 * UNHEARD_SECONDS) == []
    cluster.flights[5].worker = "b"
    assert cluster.wait(10) == []


def test_a_worker_whose_task_waits_for_others_has_room(cluster: Cluster) -> None:
    cluster.submit(5, worker="b")
    assert cluster.wait(10) == []
    cluster.flights[5].asking.add("call")
    assert cluster.look(anyway=True) == [3]


@pytest.mark.parametrize(
    "batch", [{"options": {"workers": ["a"]}}, {"options": {"resources": {"GPU": 1}}}, {"inputs": True}]
)
def test_what_has_a_place_stays_there(cluster: Cluster, batch: dict[str, Any]) -> None:
    """The user's wish, or inputs too large to be moved, decide where it goes; a priority decides nothing."""
    del cluster.flights[3], cluster.flights[4]
    if "inputs" in batch:
        cluster.kept[0] = SimpleNamespace(size=LARGE_INPUTS + 1)
        batch = {"inputs": (Input(0, [0], (0,), batch_id=0),)}
    cluster.submit(5, **batch)
    assert cluster.wait(10) == []
    cluster.submit(6, options={"priority": 3})
    cluster.look(anyway=True)
    assert cluster.wait(10) == [6]


def test_what_has_begun_after_all_goes_on(cluster: Cluster) -> None:
    """Its worker says so, or says nothing: then it may have. It may begin anywhere again."""
    cluster.begun["b"] = [3]
    assert cluster.wait(1.5 * SETTLE_SECONDS) == []
    assert cluster.asked == [("waiting", [3]), ("bar", [3]), ("unbar", [3])]
    cluster.begun.clear()
    cluster.silent.add("a")
    assert cluster.wait(1) == []
    assert len(cluster.asked) > 3
    assert [what for what, _ in cluster.asked] == ["waiting", "bar", "unbar"] * (len(cluster.asked) // 3)


def test_what_does_not_wait_for_a_thread_stays(cluster: Cluster) -> None:
    """It is on its way, or about to begin: nobody is to refuse it."""
    cluster.elsewhere = {3, 4}
    assert cluster.wait(1) == []
    assert {what for what, _ in cluster.asked} == {"waiting"}


def test_what_has_ended_meanwhile_is_not_given_back(cluster: Cluster) -> None:
    """Cancelled, for instance. Its end has been told."""
    cluster.elsewhere = {4}
    cluster.begun = Ending(cluster, 3)
    assert cluster.wait(1) == []
    assert 3 not in cluster.flights


class Ending(dict[str, list[int]]):
    """What workers say that have begun nothing, while a batch ends."""

    def __init__(self, cluster: Cluster, batch_id: int) -> None:
        super().__init__()
        self.end = partial(cluster.flights.pop, batch_id, None)

    def get(self, *_: Any) -> list[int]:
        self.end()
        return []


def test_workers_are_asked_rarely_where_it_is_in_vain(cluster: Cluster) -> None:
    """The news of a start may take longer than usual. All that has begun; who asks each time makes it worse."""
    cluster.elsewhere = {3, 4}
    cluster.wait(60)
    assert 2 < len(cluster.asked) < 20


def test_an_item_that_can_begin_nowhere_is_not_moved_all_the_time(cluster: Cluster) -> None:
    """Its worker may be paused, or other clients' work may be there: it waits twice as long each time."""
    del cluster.flights[3], cluster.flights[4]
    for batch_id in range(5, 50):
        cluster.submit(batch_id, item=7)
        if batch_id not in cluster.wait(1):
            break
    assert 3 <= len(cluster.back) <= 6


def test_nothing_is_asked_while_there_is_no_connection(cluster: Cluster) -> None:
    cluster.away = True
    cluster.look(anyway=True)
    assert cluster.asked == []


def begun_of(topic: str, batch_ids: Iterable[int]) -> set[int]:
    """Try to start batches in this process; return those that may."""
    batches = [Batch("run", b, [0], (), Payload()) for b in batch_ids]
    return {batch.batch_id for batch in batches if dask_worker._admit(topic, batch, f"key-{topic}")}


@pytest.mark.parametrize("free", [0, 1])
def test_what_waits_for_a_thread(free: int) -> None:
    tasks = {
        f"k-{b}": SimpleNamespace(state=state) for b, state in enumerate(("executing", "ready", "waiting"))
    }
    state = SimpleNamespace(tasks=tasks, executing_count=2 - free, nthreads=2)
    keys = {b: f"k-{b}" for b in range(4)}  # the last one has not come
    assert dask_worker.waiting_batches(keys, SimpleNamespace(state=state)) == ([] if free else [1])


def test_a_worker_starts_nothing_that_is_barred() -> None:
    """It tells what it has begun, which goes on. What is not taken back after all may start again."""
    assert begun_of("bars", [1]) == {1}
    assert dask_worker.bar_batches("bars", [1, 2, 3]) == [1]
    assert begun_of("bars", [2, 3, 4]) == {4}
    dask_worker.stop_batches("bars", "run", [3])
    dask_worker.unbar_batches("bars", [2, 3])
    assert begun_of("bars", [2, 3]) == {2}  # the other one has been cancelled meanwhile
