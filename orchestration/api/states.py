"""The state of a task run or flow run, as users see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from ..core.states import RunState
from ..core.states import State as TaskState

SUCCESSFUL = frozenset({"Completed", "Skipped"})
FINAL = frozenset({s.title for s in TaskState if s >= TaskState.COMPLETED} | {"Completed", "Failed"})


class State:
    """How a run stands.

    Attributes:
        type: one of DESIGN's state names, such as "Completed" or "UpstreamFailed".
        name: the same, or what says more: "Cached", "TimedOut".
        message: in words.
        timestamp: seconds since the epoch, where known.
    """

    __slots__ = ("_data", "_hold", "message", "name", "timestamp", "type")

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
        self._hold: object = None

    def held_by(self, hold: object) -> Self:
        """Keep alive what keeps the result from being released."""
        self._hold = hold
        return self

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

    def __repr__(self) -> str:
        return f"{self.name}({self.message!r})" if self.message else f"{self.name}()"


def run_state(
    state: RunState, name: str = "", message: str = "", data: Callable[[], Any] | None = None
) -> State:
    """Return a flow run's state as users see it."""
    return State(state.title, name, message, data)
