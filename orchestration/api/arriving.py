"""What a flow called in a flow is given: results in the place of futures and states, once they are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runners.arguments import rebuild

from ..errors import UpstreamFailedError, UserError
from .annotations import allow_failure, quote, unmapped
from .futures import TaskRunFuture, TaskRunFutureList
from .states import State

Upstream = TaskRunFuture | TaskRunFutureList | State


def waits(value: Any) -> bool:
    """Whether something in a value has to be waited for."""
    found = False

    def leaf(part: Any) -> Any:
        nonlocal found
        if isinstance(part, unmapped | allow_failure):
            found = found or waits(part.value)
        found = found or isinstance(part, Upstream)
        return part

    rebuild(value, leaf)
    return found


def arrived(value: Any, *, tolerant: bool = False) -> Any:
    """Return a value with results in the place of futures and states, also those in containers.

    Args:
        tolerant: exceptions stand for failures, which are raised otherwise.
    """

    def leaf(part: Any) -> Any:
        if isinstance(part, quote):
            return part.value
        if isinstance(part, unmapped | allow_failure):
            return arrived(part.value, tolerant=tolerant or isinstance(part, allow_failure))
        return part.result(raise_on_failure=not tolerant) if isinstance(part, Upstream) else part

    return rebuild(value, leaf)


class NeverRan(Exception):
    """What a flow was to be given, or waited for, has failed."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause

    def ended(self, return_state: bool) -> State:
        """Return the state of the flow that never ran, or raise why."""
        cause = self.cause.with_traceback(None)

        def data() -> Any:
            raise cause from cause.__cause__

        if not return_state:
            data()
        return State("UpstreamFailed", message=f"{type(cause).__name__}: {cause}", data=data)


def parameters_of(name: str, parameters: Mapping[str, Any], wait_for: Iterable[Any]) -> dict[str, Any]:
    """Wait for everything upstream of a flow; return its parameters with results in the place of futures.

    Raises:
        NeverRan: something upstream was not successful, and is not in `allow_failure`.
    """
    try:
        _await_others(name, wait_for)
        return {key: arrived(value) for key, value in parameters.items()}
    except Exception as error:
        raise NeverRan(error) from None


def _await_others(name: str, wait_for: Iterable[Any]) -> None:
    """Wait for what a flow is ordered behind, however it is nested; raise UpstreamFailedError if it failed."""

    def leaf(part: Any) -> Any:
        if isinstance(part, allow_failure):
            arrived(part.value, tolerant=True)
        elif isinstance(part, unmapped):
            rebuild(part.value, leaf)
        elif isinstance(part, TaskRunFutureList):
            for future in part:
                leaf(future)
        elif isinstance(part, TaskRunFuture | State):
            error = part.exception() if isinstance(part, TaskRunFuture) else _error_of(part)
            if error is not None:
                raise UpstreamFailedError(f"flow {name!r} never ran, because it waited for {part}") from error
        return part

    rebuild(wait_for, leaf)


def checked(wait_for: Iterable[Any] | None) -> Iterable[Any]:
    """Return what `wait_for=` was given; None: nothing.

    Raises:
        UserError: it is one future, or no collection at all.
    """
    if wait_for is None:
        return ()
    if isinstance(wait_for, TaskRunFuture) or not isinstance(wait_for, Iterable):
        raise UserError(f"wait_for is {wait_for!r}; it must be a list of futures: wait_for=[future]")
    return wait_for


def _error_of(state: State) -> BaseException | None:
    if state.is_successful():
        return None
    error = state.result(raise_on_failure=False)
    return error if isinstance(error, BaseException) else UpstreamFailedError(str(state))
