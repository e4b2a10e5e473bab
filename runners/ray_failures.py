"""What an exception from Ray means for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import exceptions as ray_errors

from .calling import detail_of
from .errors import UserError, VersionMismatchError
from .messages import ENDED, Batch, BatchFinished, BatchLost, BatchRejected, Detail
from .tables import starved_table, unstarted_table

Ending = BatchFinished | BatchLost | BatchRejected

INSTALL_HINT = (
    "Install it on every node (pip install 'millrace[ray]', the version of the flow's process), or let Ray "
    "do so: RayTaskRunner(init_kwargs={'runtime_env': {'pip': ['millrace[ray]']}})"
)


def ending(
    batch: Batch, error: BaseException, own: set[str], read: Mapping[str, int], *, forced: bool, started: bool
) -> Ending:
    """Return how a batch ended whose table cannot be had.

    Args:
        own: ids of the objects that the batch returns.
        read: ids of the objects that it reads, with the batches that made them.
        forced: its worker may have been killed on request.
        started: a worker has said that the batch began.
    """
    if isinstance(error, ray_errors.TaskCancelledError):
        if forced and started:
            return BatchLost(batch.batch_id, f"it {ENDED}")
        return BatchFinished(unstarted_table(batch))  # a running batch ends with its own table
    if isinstance(error, ray_errors.RayTaskError):
        return _raised(batch, error, read)
    if isinstance(error, ray_errors.ObjectLostError):
        if _object(error) in own:
            return BatchLost(batch.batch_id, f"its results were lost after it ran: {_first_line(error)}")
        return _starved(batch, error, read)
    if isinstance(
        error,
        ray_errors.RuntimeEnvSetupError
        | ray_errors.TaskUnschedulableError
        | ray_errors.TaskPlacementGroupRemoved,
    ):
        return _rejected(batch, UserError(f"Ray cannot run this task with its runner_options: {error}"))
    if forced:
        return BatchLost(batch.batch_id, f"it {ENDED}")
    return BatchLost(batch.batch_id, _reason(error))


def _reason(error: BaseException) -> str:
    match error:
        case ray_errors.OutOfMemoryError():
            return f"its worker process was killed because the node ran out of memory: {_first_line(error)}"
        case ray_errors.WorkerCrashedError():
            return "its worker process died (killed, crashed, or os._exit)"
        case ray_errors.NodeDiedError():
            return f"the node that it ran on died: {_first_line(error)}"
        case _:
            return f"{type(error).__name__}: {_first_line(error)}"


def _starved(batch: Batch, error: BaseException, read: Mapping[str, int]) -> Ending:
    """An object that the batch reads was lost: results of another batch, or what many batches are called with."""
    made_by = read.get(_object(error))
    if made_by is None:
        return BatchLost(batch.batch_id, f"an input was lost: {_first_line(error)}", suspect=False)
    return BatchFinished(starved_table(batch, (made_by,), _first_line(error)))


def _object(error: BaseException) -> str:
    return str(getattr(error, "object_ref_hex", ""))


def _raised(batch: Batch, error: Any, read: Mapping[str, int]) -> Ending:
    """The far side itself raised: user code never gets that far."""
    cause = error.cause if isinstance(getattr(error, "cause", None), BaseException) else error
    if isinstance(cause, ray_errors.ObjectLostError):  # of an argument
        return _starved(batch, cause, read)
    if isinstance(cause, ray_errors.TaskCancelledError):
        return BatchLost(batch.batch_id, "interrupted on its worker")
    if isinstance(cause, ModuleNotFoundError) and (cause.name or "").split(".")[0] == "runners":
        return _rejected(batch, VersionMismatchError(f"a Ray worker has no millrace. {INSTALL_HINT}"))
    if isinstance(cause, VersionMismatchError):
        return _rejected(batch, cause)
    if isinstance(cause, ray_errors.ObjectStoreFullError | ray_errors.OutOfDiskError):
        message = (
            "the results of this batch do not fit into Ray's object store, nor on the disk it spills to: "
            f"{_first_line(cause)}. Return less, or start Ray with a larger object_store_memory."
        )
        return _rejected(batch, UserError(message))
    return BatchLost(batch.batch_id, f"the worker failed: {type(cause).__name__}: {_first_line(cause)}")


def _rejected(batch: Batch, error: BaseException) -> BatchRejected:
    return BatchRejected(batch.batch_id, detail_of(error, in_process=False, retriable=False))


def rejected(batch: Batch, error: BaseException) -> BatchRejected:
    """Return the event of a batch that Ray did not take."""
    detail = detail_of(error, in_process=False, retriable=False)
    return BatchRejected(
        batch.batch_id, detail if detail.message else Detail(detail.type_name, "Ray refused it")
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
