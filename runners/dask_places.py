"""Where batches go in a Dask cluster: to the worker with the least to do, of these to one that has their inputs.

Dask sends a task to workers that hold its inputs and to no others, however busy they are: what builds upon one
small result would queue up at one worker while the rest has nothing to do, until Dask's stealing, which looks
ten times a second and passes over workers with less than 0.2 s to do, moves it. The place is a wish: Dask
chooses anew where the worker is not there any more, and may still move what has not begun. What reads no results
has no place: a task that finds no worker at all would wait for the one that it wishes for, for ever if that died.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .messages import Batch

LARGE_INPUTS = 8 << 20  # bytes: to move more takes too long, so Dask weighs that against the wait


def place_for(
    batch: Batch,
    workers: Mapping[str, Mapping[str, Any]],
    busy: Iterable[str],
    inputs: Collection[tuple[str, int]],
) -> str:
    """Return the address of the worker that shall run a batch; "" leaves it to Dask.

    Args:
        workers: what Dask says of each, by address.
        busy: for each batch in flight the address where it is.
        inputs: for each upstream batch the address of a worker that has its results, and their bytes.
    """
    chosen_otherwise = batch.options.keys() - {"priority"}
    if not inputs or len(workers) < 2 or chosen_otherwise or sum(size for _, size in inputs) > LARGE_INPUTS:
        return ""
    loads, held = Counter(busy), Counter[str]()
    for address, size in inputs:
        held[address] += size + 1  # as even an empty result has to be asked for

    def cost(address: str) -> tuple[float, int, float]:
        threads = max(1, int(workers[address]["nthreads"]))
        load = loads[address] / threads
        return (load if load >= 1 else 0.0), -held[address], load

    return min(workers, key=cost)
