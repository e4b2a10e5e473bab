"""The state of a task run or flow run, as users see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from ..core.states import RunState
from ..core.states import State as TaskState

if TYPE_CHECKING:
    from .futures import TaskRunFuture

SUCCESSFUL = frozenset({"Completed", "Skipped"})
FINAL = frozenset({s.title for s in TaskState if s >= TaskState.COMPLETED} | {"Completed", "Failed"})


class State:
    """How a run stands. As an argument of a task or flow it stands for the run's result, as a future does.

    Attributes:
        type: one of DESIGN's state names, such as "Completed" or "UpstreamFailed".
        name: the same, or what says more: "Cached", "TimedOut".
        message: in words.
        timestamp: seconds since the epoch, where known.
    """

    __slots__ = ("_at_hand", "_data", "_future", "message", "name", "timestamp", "type")

    def __init__(
        self,
        type: str,
        name: str = "",
        message: str = "",
        data: Callable[[], Any] | None = None,
        timestamp: float | None = None,
    ) -> None:
        self.type = type
        self.name = name or type
        self.message = message
        self.timestamp = timestamp
        self._data = data
        self._future: TaskRunFuture | None = None
        self._at_hand = True

    def of(self, future: TaskRunFuture, *, at_hand: bool = False) -> Self:
        """Note whose state it is, which keeps the result from being released.

        Args:
            at_hand: the result is only here, with a caller, and not at the engine.
        """
        self._future, self._at_hand = future, at_hand
        return self

    def stands_for(self, run_id: str, *, tolerant: bool) -> TaskRunFuture | None:
        """Return the future to put in its place in arguments of a run's task; None: its result is to be put there."""
        future = self._future
        if future is None or future.run_id != run_id:
            return None
        return None if self._at_hand and (tolerant or self.is_successful()) else future

    def own_words(self) -> str:
        """Return the message of a state that was made by hand, and is no run's; else an empty text."""
        return self.message if self._data is None else ""

    def result(self, raise_on_failure: bool = True) -> Any:
        """Return the result. A failed one raises its exception, or with `raise_on_failure=False` returns it."""
        try:
            return None if self._data is None else self._data()
        except BaseException as error:  # also the KeyboardInterrupt or SystemExit that ended a flow run
            if raise_on_failure:
                raise
            return error

    def is_completed(self) -> bool:
        return self.type == "Completed"

    def is_skipped(self) -> bool:
        return self.type == "Skipped"

    def is_successful(self) -> bool:
        return self.type in SUCCESSFUL

    def is_failed(self) -> bool:
        return self.type in ("Failed", "UpstreamFailed")

    def is_crashed(self) -> bool:
        return self.type == "Crashed"

    def is_cancelled(self) -> bool:
        return self.type == "Cancelled"

    def is_running(self) -> bool:
        return self.type == "Running"

    def is_pending(self) -> bool:
        return self.type in ("Pending", "Ready", "AwaitingLimit", "Submitted")

    def is_paused(self) -> bool:
        return self.type == "Paused"

    def is_final(self) -> bool:
        return self.type in FINAL

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return other in (self.type, self.name)
        return isinstance(other, State) and (self.type, self.name) == (other.type, other.name)

    def __hash__(self) -> int:
        return hash(self.type)

    def __reduce__(self) -> Any:
        known = (self.type, self.name, self.message, self.timestamp)
        if self._future is not None and not self._at_hand:
            return _restore, (*known, self._future, None, None)
        try:
            return _restore, (*known, None, self.result(), None)
        except BaseException as error:  # which the other process raises in turn
            return _restore, (*known, None, None, error)

    def __repr__(self) -> str:
        return f"{self.name}({self.message!r})" if self.message else f"{self.name}()"


def _restore(
    type: str,
    name: str,
    message: str,
    timestamp: float | None,
    future: TaskRunFuture | None,
    value: Any,
    error: BaseException | None,
) -> State:
    def data() -> Any:
        if future is not None:
            return future.result()
        if error is not None:
            raise error
        return value

    state = State(type, name, message, data, timestamp)
    return state if future is None else state.of(future)


def run_state(
    state: RunState, name: str = "", message: str = "", data: Callable[[], Any] | None = None
) -> State:
    """Return a flow run's state as users see it."""
    return State(state.title, name, message, data)
