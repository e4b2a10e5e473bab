"""Bringing results from Dask workers: many batches in one round trip, and of large ones only what is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from .base import Wanted
from .dask_flights import Kept
from .dask_tasks import submit_helper
from .errors import ResultLostError
from .unpacked import Brought

LARGE_RESULT = 1 << 20  # bytes; a few items of a larger result are picked out on the worker
MAX_GATHER = 64 << 20  # bytes that are asked for at once: they are in memory twice until they are unpickled


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be brought for an entry of `fetch_many`."""

    wanted: Wanted
    future: Any
    nbytes: int
    picked: bool  # the future's value has the wanted values only


def bring(
    client: Any, held: MutableMapping[int, Kept], wanted: Sequence[Wanted]
) -> list[Brought | ResultLostError]:
    """Return what Dask has of batches; those that turn out to be gone are held no longer."""
    asked = {
        k: ask(client, kept, entry)
        for k, entry in enumerate(wanted)
        if (kept := held.get(entry[0])) is not None
    }
    results = dict(zip(asked, gather(client, list(asked.values())), strict=True))
    found: list[Brought | ResultLostError] = []
    for k, (batch_id, _, _) in enumerate(wanted):
        result = results.get(k)
        if result is None:
            reason = "have been released, or lost with the cluster"
            found.append(ResultLostError(f"results of batch {batch_id} {reason}"))
        elif isinstance(result, BaseException):
            held.pop(batch_id, None)
            lost = ResultLostError(f"results of batch {batch_id} are gone from the cluster: {result}")
            lost.__cause__ = result
            found.append(lost)
        elif not result.packed.frames:  # Dask was to compute it again, and the worker refused
            held.pop(batch_id, None)
            found.append(ResultLostError(f"results of batch {batch_id} are gone from the cluster"))
        else:
            found.append(Brought(result.packed, asked[k].picked))
    return found


def ask(client: Any, kept: Kept, wanted: Wanted) -> Asked:
    """Return what to gather; a few values of a large result are picked out on the worker that has it."""
    _, stage, positions = wanted
    if kept.size > LARGE_RESULT and 2 * len(positions) <= kept.entries:  # also one of two stages
        nbytes = kept.size * len(positions) // kept.entries
        return Asked(
            wanted, submit_helper(client, "select", kept.future, stage, list(positions)), nbytes, True
        )
    return Asked(wanted, kept.future, kept.size, False)


def gather(client: Any, asked: Sequence[Asked]) -> Iterator[Any]:
    """Bring results in as few round trips as their size allows; an error stands where one is gone."""
    first = 0
    while first < len(asked):
        stop, nbytes = first + 1, asked[first].nbytes
        while stop < len(asked) and nbytes + asked[stop].nbytes <= MAX_GATHER:
            nbytes += asked[stop].nbytes
            stop += 1
        futures = [a.future for a in asked[first:stop]]
        yield from _together(client, futures) or [_alone(client, future) for future in futures]
        first = stop


def _together(client: Any, futures: list[Any]) -> list[Any] | None:
    """Return all values, or None where one of them is gone: Dask does not say which."""
    if len(futures) == 1:
        return None
    try:
        values: list[Any] = client.gather(futures)
    except (Exception, asyncio.CancelledError):
        return None
    return values


def _alone(client: Any, future: Any) -> Any:
    try:
        return client.gather(future)
    except (Exception, asyncio.CancelledError) as error:
        return error
