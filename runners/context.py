"""What user code can learn about the run it is part of, on whatever worker it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .body import TaskBody
    from .channel import Channel
    from .execution import Execution


@dataclass(frozen=True, slots=True)
class RunContext:
    """The flow run, as its task runs see it. Travels once per worker.

    `parameters` lacks those that cannot be pickled, when the task runs in another process.
    """

    run_id: str
    name: str
    flow_name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    started: float = 0.0  # seconds since the epoch
    parent_run_id: str | None = None
    loggers: tuple[tuple[str, int], ...] = ()  # the user's own whose lines are the run's, with their levels


class ItemContext:
    """The task run that the current thread or asyncio task executes. Made per item, so all else is lazy."""

    __slots__ = ("args", "entry", "execution", "kwargs")

    def __init__(self, execution: Execution, entry: int, args: list[Any], kwargs: dict[str, Any]) -> None:
        self.execution = execution
        self.entry = entry
        self.args = args
        self.kwargs = kwargs

    @property
    def run(self) -> RunContext:
        return self.execution.run

    @property
    def channel(self) -> Channel:
        return self.execution.channel

    @property
    def body(self) -> TaskBody:
        return self.execution.bodies[self.entry % self.execution.n_stages]

    @property
    def batch_id(self) -> int:
        return self.execution.batch.batch_id

    @property
    def node_id(self) -> int:
        return self.execution.batch.stages[self.entry % self.execution.n_stages].node_id

    @property
    def index(self) -> int:
        return self.execution.batch.indices[self.entry // self.execution.n_stages]

    @property
    def attempt(self) -> int:
        position, stage = divmod(self.entry, self.execution.n_stages)
        return self.execution.batch.stages[stage].attempts[position]

    @property
    def task_run_id(self) -> str:
        """`RUN/NODE/INDEX`: unique over all runs of a store."""
        return f"{self.run.run_id}/{self.node_id}/{self.index}"

    @property
    def execution_id(self) -> str:
        return f"{self.execution.execution_id}:{self.entry}"

    @property
    def name(self) -> str:
        return self.execution.names.get(self.entry) or f"{self.body.task_name}-{self.index}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The call's arguments by parameter name, defaults included."""
        return self.body.parameters(self.args, self.kwargs)


current_item: ContextVar[ItemContext | None] = ContextVar("millrace_item", default=None)


def listening(wake: Callable[[], object]) -> AbstractContextManager[None]:
    """Wait in C code inside the block: an interrupt of the current item calls `wake`. See `Execution`."""
    item = current_item.get()
    return nullcontext() if item is None else item.execution.listening(wake)
