"""Bringing results from Ray: many batches in one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from .base import Wanted
from .errors import ResultLostError
from .results import PackedResults, opened
from .unpacked import Brought


def bring(held: Mapping[int, Any], wanted: Sequence[Wanted]) -> list[Brought | ResultLostError]:
    """Return what Ray has of batches, given their refs; each batch is asked for once, whatever its stages."""
    refs = {b: ref for b, _, _ in wanted if (ref := held.get(b)) is not None}
    values = dict(zip(refs, get_many(list(refs.values())), strict=True))
    found: list[Brought | ResultLostError] = []
    for batch_id, stage, positions in wanted:
        if batch_id not in values:
            found.append(ResultLostError(f"results of batch {batch_id} have been released"))
        elif isinstance(values[batch_id], ResultLostError):
            found.append(values[batch_id])
        else:
            found.append(_few(values[batch_id], stage, positions))
    return found


def _few(packed: PackedResults, stage: int, positions: Sequence[int]) -> Brought:
    """Return a few of many large values by themselves: no other is copied out of shared memory then."""
    if 0 < 2 * len(positions) < len(packed.frames[stage]):
        return Brought(packed.pick(stage, positions), picked=True)
    return Brought(packed)


def get_many(refs: Sequence[Any]) -> list[Any]:
    """Return the values of refs; a `ResultLostError` stands where one is gone."""
    if len(refs) > 1:
        try:
            return [opened(value) for value in ray.get(list(refs))]
        except ray.exceptions.RayError:
            pass  # of which one, Ray does not say
    return [_get(ref) for ref in refs]


def _get(ref: Any) -> Any:
    try:
        return opened(ray.get(ref))
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        lost = ResultLostError(f"Ray has lost the results of a batch: {reason}")
        lost.__cause__ = error
        return lost
