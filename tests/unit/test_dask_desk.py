"""What Dask does by itself after a worker's death is told, also where another worker died before it could say so."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from runners.dask_desk import Desk
from runners.dask_flights import Flight, Kept
from runners.dask_leave import settle
from runners.messages import Batch, BatchLost, BatchStarted, Payload, Stage


class Client:
    """A cluster without workers, which remembers what was cancelled."""

    status = "running"

    def __init__(self) -> None:
        self.cancelled: list[str] = []

    def sync(self, wait_for: Any, work: Any, seconds: float, callback_timeout: float) -> Any:
        return asyncio.run(wait_for(work, seconds))

    def cancel(self, futures: list[Any]) -> None:
        self.cancelled += [future.key for future in futures]

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {}}


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def desk(told: list[Any]) -> Desk:
    connection: Any = SimpleNamespace(client=Client(), owned=False)
    sink: Any = SimpleNamespace(put=told.append)
    unpacked: Any = None
    made = Desk(connection, sink, "topic", unpacked, lambda slots: slots, lambda *_: None, lambda: None)
    made.workers = {address: {"nthreads": 1} for address in ("w1", "w2")}
    return made


def future(key: str) -> Any:
    return SimpleNamespace(key=key)


def flight(batch_id: int, *, permit: bool = False) -> Flight:
    stage = Stage(0, "t", Payload(), Payload(), [1], permit=permit)
    batch = Batch("run", batch_id, [0], (stage,), Payload())
    return Flight(batch, future=future(f"k-{batch_id}"), worker="w1")


def removed(
    desk: Desk, address: str, *keys: str, expected: bool = False, results: tuple[str, ...] = ()
) -> None:
    told = {"worker": address, "processing-tasks": keys, "expected": expected}
    desk._on_worker_removed({**told, "lost-computed-tasks": results})


def starts(told: list[Any]) -> list[tuple[int, str]]:
    return [(event.batch_id, event.worker) for event in told if isinstance(event, BatchStarted)]


@pytest.mark.parametrize("permit", [False, True])
def test_a_lost_batch_that_dask_began_anew(desk: Desk, told: list[Any], permit: bool) -> None:
    """Dask gives it to another worker before it hears that it must not, and that one dies, too."""
    desk.flights[3] = flight(3, permit=permit)
    removed(desk, "w1", "k-3")
    assert [event.batch_id for event in told if isinstance(event, BatchLost)] == [3]
    assert desk.client.cancelled == ["k-3"]
    removed(desk, "w2", "k-3")
    assert starts(told) == ([] if permit else [(3, "w2")])  # without a permit nothing starts


@pytest.mark.parametrize("repeatable", [False, True])
def test_a_result_that_dask_was_making_again(desk: Desk, told: list[Any], repeatable: bool) -> None:
    """It is told of once per worker's death, and not where the worker left in an orderly way."""
    desk.kept[4] = Kept(future("k-4"), 1, 1, "run", "w1", repeatable, {})
    removed(desk, "w1", "k-4", expected=True)
    assert not starts(told)
    desk.kept[5] = Kept(future("k-5"), 1, 1, "run", "w1", repeatable, {})
    removed(desk, "w2", "k-5", "k-4", "another")
    assert starts(told) == ([(4, "w2")] if repeatable else [])


def test_what_said_so_itself_is_told_once(desk: Desk, told: list[Any]) -> None:
    """The worker's own message has come, with the execution's real name."""
    from runners import codec

    desk.kept[4] = Kept(future("k-4"), 1, 1, "run", "w1", True, {})
    desk._on_message("w2", codec.pack(BatchStarted(4, "x", "host:1", 1.0)), 0)
    removed(desk, "w2", "k-4")
    assert [event.execution_id for event in told if isinstance(event, BatchStarted)] == ["x"]


def test_what_dask_makes_again_at_the_end_of_a_run(
    desk: Desk, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped, and what has begun where nobody saw it begin is told: not its first start, nor one told before."""
    from runners import codec, dask_leave

    monkeypatch.setattr(dask_leave, "HEAR_SECONDS", 0.0)
    for batch_id in (4, 5, 6, 8):
        desk.kept[batch_id] = Kept(future(f"k-{batch_id}"), 1, 1, "run", "w1", True, {})
    desk.flights[3] = flight(3)
    removed(desk, "w1", "k-3", results=("k-4", "k-5", "k-6"))
    del desk.kept[4]  # it is released: nobody reads it any more
    desk._on_message("w2", codec.pack(BatchStarted(5, "x", "host:1", 1.0)), 0)
    stopped: list[int] = []

    async def stop_on_workers(run_id: str, batch_ids: list[int]) -> dict[str, list[int]]:
        stopped.extend(batch_ids)
        return {"w1": [6], "w2": [3, 4, 5]}

    monkeypatch.setattr(desk, "stop_on_workers", stop_on_workers)
    told.clear()
    settle(desk)
    assert sorted(stopped) == [3, 4, 5, 6]
    assert starts(told) == [(3, "w2"), (4, "w2")]
    assert not desk.kept
