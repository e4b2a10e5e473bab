"""The end of a run on Dask: nothing of it goes on, and what began unheard has been told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from typing import Any

from .dask_desk import Desk
from .dask_versions import by_value

LEAVE_SECONDS = 2.0  # for workers to stop what runs there
HEAR_SECONDS = 0.2  # for what workers say themselves of what they have begun
FORGET_SECONDS = 1.0


def settle(desk: Desk) -> None:
    """Have Dask make no results again that died with their workers; tell of those that it was making just now.

    Nobody would need them, and nobody would listen to the worker that says that it has begun one.
    """
    seen = {b: worker for b, (_, worker) in desk.remade.items()}
    runs = [(run_id, b) for b, (run_id, _) in desk.remade.items()] + list(desk.lost.values())
    desk.kept.clear()

    async def stop() -> list[tuple[int, str]]:
        begun = [
            (b, address)
            for run_id, ids in _by_run(runs).items()
            for address, there in (await desk.stop_on_workers(run_id, ids)).items()
            for b in there
            if seen.get(b) != address
        ]
        if not desk.begun_anew.issuperset(begun):
            await asyncio.sleep(HEAR_SECONDS)
        return begun

    for batch_id, address in _within(desk, stop()) or ():
        desk.tell_start(batch_id, address)


def leave(desk: Desk) -> None:
    """Stop what still runs, and have a foreign scheduler forget the run's events."""
    forget_seconds = FORGET_SECONDS  # a local, since the function below travels by value
    client, topic, owned = desk.client, desk.topic, desk.connection.owned
    running = [(flight.batch.run_id, b) for b, flight in list(desk.flights.items())]
    if owned and not running:
        return

    def forget(dask_scheduler: Any) -> None:
        # later, because the last messages about it are still on their way
        dask_scheduler.loop.call_later(forget_seconds, dask_scheduler._broker._topics.pop, topic, None)

    async def stop() -> None:
        for run_id, ids in _by_run(running).items():
            await desk.stop_on_workers(run_id, ids)
        if not owned:
            await client.run_on_scheduler(by_value(forget), asynchronous=True)

    _within(desk, stop())


def _by_run(pairs: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for run_id, batch_id in pairs:
        found.setdefault(run_id, []).append(batch_id)
    return found


def _within(desk: Desk, work: Coroutine[Any, Any, Any]) -> Any:
    """Return what comes of a coroutine; None where the cluster does not answer in time or has gone."""
    if desk.client.status != "running":
        work.close()
        return None
    with contextlib.suppress(Exception):
        return desk.client.sync(asyncio.wait_for, work, LEAVE_SECONDS, callback_timeout=2 * LEAVE_SECONDS)
    return None
