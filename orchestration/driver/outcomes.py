"""The exceptions that stand for how task runs ended."""

from __future__ import annotations

from collections.abc import Mapping

from runners.codec import loads
from runners.errors import (
    RemoteTraceback,
    RunnersError,
    SerializationError,
    TaskRunError,
    TaskTimeoutError,
)
from runners.messages import Detail

from ..core.readiness import label
from ..core.records import Node
from ..core.states import State
from ..errors import CancelledRunError, CrashedRunError, MappingError, UpstreamFailedError


def exception_of(node: Node, index: int, nodes: Mapping[int, Node]) -> BaseException | None:
    """Return the exception that asking for an item's result raises; None if it has a result or has not ended."""
    state, name = node.state(index), label(node, index)
    detail, reason = node.details.get(index), node.reasons.get(index, "")
    match state:
        case State.FAILED:
            return failure(detail, name)
        case State.UPSTREAM_FAILED:
            error = UpstreamFailedError(f"{name} never ran: {reason}")
            root = node.roots.get(index)
            if root is not None and root != (node.node_id, index):
                error.__cause__ = exception_of(nodes[root[0]], root[1], nodes)
            return error
        case State.CRASHED:
            return CrashedRunError(f"{name} was lost for good: {reason or 'its worker died'}")
        case State.CANCELLED:
            return CancelledRunError(f"{name} was cancelled" + (f": {reason}" if reason else ""))
    return None


def in_words(node: Node, index: int) -> str:
    """Return what a user is told of an item's state: the exception of a failed one, else the reason."""
    detail = node.details.get(index)
    if node.state(index) is State.FAILED and detail is not None:
        kind = detail.type_name.rpartition(".")[2]
        return f"{kind}: {detail.message}" if kind and detail.message else kind or detail.message
    return node.reasons.get(index) or ""


def failure(detail: Detail | None, name: str) -> BaseException:
    """Return the exception of a failed item: the user's own where it can be had, with the remote traceback."""
    if detail is None:
        return TaskRunError(f"{name} failed")
    error = _original(detail) or _stand_in(detail, name)
    if detail.traceback and not isinstance(error.__cause__, RemoteTraceback):
        error.__cause__ = RemoteTraceback(detail.traceback)  # its text has the causes of the user's own, too
    return error


def _original(detail: Detail) -> BaseException | None:
    if detail.live is not None:
        return detail.live
    if detail.exception is None:
        return None
    try:
        error = loads(detail.exception)
    except Exception:  # its class may be importable on the worker only
        return None
    return error if isinstance(error, BaseException) else None


def _stand_in(detail: Detail, name: str) -> BaseException:
    message = f"{name} {detail.message}"
    match detail.type_name.rpartition(".")[2]:
        case "TaskTimeoutError":
            return TaskTimeoutError(message)
        case "MappingError":
            return MappingError(detail.message)
        case "SerializationError" | "ResultSerializationError":
            return SerializationError(f"{name}: {detail.message}")
        case "RunnersError":
            return RunnersError(detail.message)
    return TaskRunError(f"{name} raised {detail.type_name}: {detail.message}", detail.type_name)
