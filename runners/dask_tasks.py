"""Submitting functions of the far side by name, so that the scheduler need not be able to import them."""

from __future__ import annotations

import operator
from typing import Any

from .messages import Batch

LARGE_BLOB = 4 << 20  # bytes; from about here Dask warns of large graphs


def far_side(name: str) -> Any:
    """Return what a Dask worker takes for a function of `dask_worker`."""
    from dask._task_spec import Task
    from distributed.utils import import_term

    return Task(None, import_term, f"{__package__}.dask_worker.{name}")


def submit_helper(client: Any, name: str, *args: Any) -> Any:
    """Run a small function of the far side on results where they are."""
    return client.submit(operator.call, far_side(name), *args, pure=False, retries=0, priority=100)


def submit_batch(
    client: Any, batch: Batch, blob: bytes, upstream: list[Any], token: str, place: str = ""
) -> Any:
    """Submit a batch as one Dask task, for the worker at `place` if it is there, and return its future."""
    import dask

    options = dict(batch.options)
    own = options.pop("priority", 0)
    arguments = {
        "key": f"{batch.stages[-1].task_name}-{token}-{batch.batch_id}",
        "pure": False,
        "retries": 0,
        "fifo_timeout": "0 ms",  # or else batches submitted within 100 ms run in any order
        "priority": batch.priority + own,
        **options,
    }
    if place:
        arguments.update(workers=[place], allow_other_workers=True)
    if len(blob) < LARGE_BLOB:
        return client.submit(operator.call, far_side("run_packed"), blob, *upstream, **arguments)
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
        return client.submit(operator.call, far_side("run_packed"), blob, *upstream, **arguments)
