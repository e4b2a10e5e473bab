"""The final state of a flow run, from what its function returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runners.arguments import ATOMS, children, rebuild

from ..core.states import RunState
from ..errors import CancelledRunError, FlowRunFailedError
from .futures import TaskRunFuture, TaskRunFutureList, fetch_together
from .states import State

if TYPE_CHECKING:
    from .running import RunningFlow

Part = State | TaskRunFuture | TaskRunFutureList


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a flow run ended."""

    state: RunState
    name: str = ""
    message: str = ""
    error: BaseException | None = None
    data: Callable[[], Any] | None = None
    retriable: bool = True

    @classmethod
    def failed(
        cls,
        error: BaseException,
        name: str = "",
        *,
        retriable: bool = True,
        state: RunState = RunState.FAILED,
    ) -> Verdict:
        def data() -> Any:
            raise error

        message = f"{type(error).__name__}: {error}"
        return cls(state, name, message, error, data, retriable)


def verdict_of(run: RunningFlow, result: Any = None, error: BaseException | None = None) -> Verdict:
    """Judge a run whose function has ended and whose task runs have, too."""
    if run.driver.broken is not None:
        return Verdict.failed(run.driver.broken, retriable=False, state=RunState.CRASHED)
    if run.driver.core.cancelled:
        return cancelled(run, run.driver.core.cancelled)
    if error is not None:
        return Verdict.failed(error)
    parts = list(_parts(result))
    total, bad = _counted(parts)
    said = result.own_words() if isinstance(result, State) else ""
    if not bad:
        value = _value(run, result) if parts else result  # now, while the engine still has the results
        return Verdict(RunState.COMPLETED, message=said, data=lambda: value)
    if any(state.is_cancelled() for state in bad):
        kind, words = RunState.CANCELLED, "were cancelled"
        bad = [state for state in bad if state.is_cancelled()]
    else:
        kind, words = RunState.FAILED, "failed"
    message = said or f"{len(bad)}/{total} task runs {words}"
    first = bad[0].result(raise_on_failure=False)
    failure = first if isinstance(first, Exception) else _unlike_exceptions(message, first)

    def data() -> Any:
        raise failure

    return Verdict(kind, message=message, error=failure, data=data)


def cancelled(run: RunningFlow, reason: str) -> Verdict:
    """Return the end of a run that was cancelled on request."""
    stopped = CancelledRunError(f"flow run {run.row.name} was cancelled: {reason}")

    def give_up() -> Any:
        raise stopped

    return Verdict(RunState.CANCELLED, message=reason, error=stopped, data=give_up)


def _unlike_exceptions(message: str, first: Any) -> Exception:
    """Return the error for a failure that must not be raised as it is: a SystemExit would end this process, too."""
    if not isinstance(first, BaseException):
        return FlowRunFailedError(message)
    failure = FlowRunFailedError(f"{message}: {type(first).__name__}: {first}".rstrip(": "))
    failure.__cause__ = first
    return failure


def _parts(result: Any) -> Iterator[Part]:
    """Yield all futures and states in a flow's return value, in order. What is nested may be deep or large."""
    stack, seen = [result], set[int]()
    while stack:
        found = stack.pop()
        if isinstance(found, State | TaskRunFuture | TaskRunFutureList):
            yield found
        elif id(found) not in seen and (inner := _inside(found)) is not None:
            seen.add(id(found))
            stack += [part for part in reversed(inner) if type(part) not in ATOMS]


def _inside(value: Any) -> list[Any] | None:
    """Return what a container has in it; None for anything else."""
    if isinstance(value, Mapping):
        return list(value.values())
    found = children(value)
    return None if found is None else list(found)


def _counted(parts: Iterable[Part]) -> tuple[int, list[State]]:
    """Return how many task runs and states there are, and those that were not successful."""
    total, bad = 0, list[State]()
    for part in parts:
        if isinstance(part, TaskRunFutureList):
            total += len(part)
            bad += part.unsuccessful()
        else:
            total += 1
            state = part.state if isinstance(part, TaskRunFuture) else part
            if not state.is_successful():
                bad.append(state)
    return total, bad


def _value(run: RunningFlow, result: Any) -> Any:
    """Return a flow's return value with results in the place of futures and states."""
    futures: list[TaskRunFuture] = []

    def find(part: Any) -> Any:
        if isinstance(part, TaskRunFuture) and part.run_id == run.session.run_id:
            futures.append(part)
        return part

    def leaf(part: Any) -> Any:
        if isinstance(part, TaskRunFuture | TaskRunFutureList | State):
            return part.result()
        return part

    rebuild(result, find)
    fetch_together(futures, run.session.fetching.singles)
    return rebuild(result, leaf)
