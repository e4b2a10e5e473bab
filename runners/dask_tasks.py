"""Submitting functions of the far side by name, so that the scheduler need not be able to import them."""

from __future__ import annotations

import operator
import pickle
from typing import Any

from .codec import PROTOCOL
from .messages import Batch, Payload

LARGE_BLOB = 4 << 20  # bytes; from about here Dask warns of large graphs


def far_side(name: str) -> Any:
    """Return what a Dask worker takes for a function of `dask_worker`."""
    from dask._task_spec import Task
    from distributed.utils import import_term

    return Task(None, import_term, f"{__package__}.dask_worker.{name}")


def submit_helper(client: Any, name: str, *args: Any) -> Any:
    """Run a small function of the far side on results where they are."""
    return client.submit(operator.call, far_side(name), *args, pure=False, retries=0, priority=100)


async def send_payload(client: Any, address: str, digest: str, payload: Payload | None) -> None:
    """Have a worker keep a payload, or know that it is not to be had. Tells nothing of errors: the worker asks again.

    This is `client.run`, but the pickled arguments are a frame of their own in the message. Where they are in it,
    each process on the way, the scheduler too, copies them out of one message and into the next.
    """
    from distributed.protocol import to_serialize
    from distributed.protocol.pickle import dumps

    from .dask_worker import take_payload

    data, buffers = (None, ()) if payload is None else (payload.data, payload.buffers)
    args = pickle.dumps((digest, data, [pickle.PickleBuffer(buffer) for buffer in buffers]), PROTOCOL)
    run = {"op": "run", "function": dumps(take_payload), "args": to_serialize(args), "kwargs": dumps({})}
    await client.scheduler.broadcast(
        msg={**run, "wait": True}, workers=[address], nanny=False, on_error="return_pickle"
    )


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
