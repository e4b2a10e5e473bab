"""Bringing results from Dask workers: many batches in one round trip, and of large ones only what is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .base import Wanted
from .dask_flights import Kept
from .dask_tasks import submit_helper
from .errors import ResultLostError, SerializationError
from .results import PackedResults
from .storage import MISSING

LARGE_RESULT = 1 << 20  # bytes; a few items of a larger result are picked out on the worker
MAX_GATHER = 64 << 20  # bytes that are asked for at once: they are in memory twice until they are unpickled


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be brought for an entry of `fetch_many`."""

    wanted: Wanted
    future: Any
    nbytes: int
    picked: bool  # the future's value has the wanted values only


def ask(client: Any, kept: Kept, wanted: Wanted) -> Asked:
    """Return what to gather; a few values of a large result are picked out on the worker that has it."""
    _, stage, positions = wanted
    if kept.size > LARGE_RESULT and 2 * len(positions) < kept.entries:
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


def pick(batch_id: int, values: Sequence[Any], positions: Sequence[int]) -> list[Any] | ResultLostError:
    """Return the values at positions, or the error if one of them is missing."""
    found = [values[p] for p in positions]
    if any(value is MISSING for value in found):
        return ResultLostError(f"batch {batch_id} was computed again and lacks results that it once had")
    return found


def unpickled(batch_id: int, packed: PackedResults, stage: int) -> list[Any]:
    """Return the values of a stage by position."""
    try:
        return packed.load(stage)
    except Exception as error:  # whatever unpickling user objects raises
        raise SerializationError(
            f"results of batch {batch_id} cannot be unpickled in the flow's process: {error}"
        ) from error
