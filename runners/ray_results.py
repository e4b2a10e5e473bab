"""Bringing results from Ray: many batches in one request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from .errors import ResultLostError
from .results import opened


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
