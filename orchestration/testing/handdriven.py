"""A coordinator driven by hand, for tests of one question: you are the engine, the store and the clock."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from runners.messages import (
    BatchFinished,
    BatchLost,
    BatchProgress,
    BatchStarted,
    Detail,
    LogLine,
    Outcome,
    ResultsLost,
    SlotsChanged,
    Stored,
    Table,
)

from ..core import invariants
from ..core.commands import AnswerPermit, AskLeases, Command, SubmitBatch, WithdrawLeases
from ..core.coordinator import Coordinator
from ..core.events import CancelRequested, CoreEvent, LeasesAnswered, NodeSubmitted, PermitAsked, Tick
from ..core.journal import Entry, Moved
from ..core.specs import Dependency, NodeSpec, Policy
from ..core.states import State
from .replayed import Replayed

T = TypeVar("T")


class HandDriven:
    """Keeps what the coordinator has said, and checks invariants and journal after every event.

    Attributes:
        said: all commands so far.
        batches: those at the engine, oldest first.
        asks: requests for leases without a grant, oldest first.
    """

    def __init__(self, *, slots: int = 2, uniform: float = 0.5, prefetch: int = 1) -> None:
        self.core = Coordinator("run", lambda: uniform, prefetch=prefetch)
        self.now = 0.0
        self.said: list[Command] = []
        self.batches: dict[int, SubmitBatch] = {}
        self.asks: dict[int, AskLeases] = {}
        self.replayed = Replayed()
        self._made = 0
        if slots:
            self.tell(SlotsChanged(slots))

    # --- events ---------------------------------------------------------------------------------

    def tell(self, event: CoreEvent) -> list[Command]:
        """Hand an event to the coordinator; return what it says to it."""
        commands = self.core.handle(event, self.now)
        self.said += commands
        for command in commands:
            if isinstance(command, SubmitBatch):
                self.batches[command.batch_id] = command
                self.asks.pop(command.batch_id, None)
            elif isinstance(command, AskLeases):
                self.asks[command.batch_id] = command
            elif isinstance(command, WithdrawLeases):
                for batch_id in command.batch_ids:
                    self.asks.pop(batch_id, None)
            elif isinstance(command, Entry):
                self.replayed.apply(command)
        invariants.check(self.core)
        self.replayed.check(self.core)
        return commands

    def add(
        self,
        *dependencies: Dependency,
        width: int | None = 1,
        policy: Policy | None = None,
        **more: Any,
    ) -> int:
        """Submit a node called `t<its id>`; return its id."""
        node_id = self._made
        self._made += 1
        fields: dict[str, Any] = {
            "path": f"t{node_id}",
            "task_name": f"t{node_id}",
            "kind": "single" if width == 1 else "map",
            "policy": policy or Policy(),
        } | more
        recovered = fields.get("recovered")
        if recovered is not None:
            self.replayed.take_over(node_id, recovered)
        self.tell(NodeSubmitted(NodeSpec(node_id, width=width, dependencies=dependencies, **fields)))
        return node_id

    def start(self, batch_id: int | None = None, execution: str = "") -> None:
        """A worker has begun a batch, by default the oldest."""
        batch = self._batch(batch_id)
        self.tell(BatchStarted(batch.batch_id, execution or f"x{batch.batch_id}", "w", self.now))

    def progress(
        self,
        batch_id: int,
        entry: int,
        *,
        outcomes: bytes = b"",
        details: Mapping[int, Detail] | None = None,
        logs: Sequence[LogLine] = (),
        closed: bool = False,
    ) -> None:
        """A worker tells how far it is."""
        told = outcomes, details or {}, logs, closed
        self.tell(BatchProgress(batch_id, f"x{batch_id}", "w", entry, self.now, *told))

    def end(
        self,
        outcomes: Outcome | Iterable[int] = Outcome.COMPLETED,
        batch_id: int | None = None,
        **more: Any,
    ) -> list[Command]:
        """A batch ends, by default the oldest, each item with an outcome or all with one."""
        batch = self._batch(batch_id)
        del self.batches[batch.batch_id]
        return self.tell(BatchFinished(self.table(batch, outcomes, **more)))

    def table(
        self,
        batch: SubmitBatch,
        outcomes: Outcome | Iterable[int] = Outcome.COMPLETED,
        *,
        details: Mapping[int, Detail] | None = None,
        lengths: Mapping[int, int] | None = None,
        stored: Stored | None = None,
        seconds: float = 1.0,
        moved_bytes: int = 0,
        execution: str = "",
        missing: Sequence[int] = (),
        missing_files: Sequence[str] = (),
    ) -> Table:
        """Return the table of a batch."""
        n = len(batch.indices) * len(batch.node_ids)
        column = bytes([outcomes]) * n if isinstance(outcomes, Outcome) else bytes(outcomes)
        return Table(
            batch.batch_id,
            execution or f"x{batch.batch_id}",
            "w",
            self.now,
            column,
            array("d", [seconds * k for k in range(n)]),
            array("d", [seconds]) * n,
            moved_bytes=moved_bytes * n,
            details=details or {},
            lengths=lengths or {},
            stored=(stored,) if stored is not None else (),
            missing=missing,
            missing_files=missing_files,
        )

    def lose(self, batch_id: int | None = None, *, suspect: bool = True) -> None:
        """The engine has lost a batch, by default the oldest."""
        batch = self._batch(batch_id)
        del self.batches[batch.batch_id]
        self.tell(BatchLost(batch.batch_id, "the worker has died", suspect))

    def lose_results(self, *batch_ids: int, reason: str = "w has died") -> list[Command]:
        """Results of batches that have ended are gone."""
        return self.tell(ResultsLost(batch_ids, reason))

    def permit(self, batch_id: int, entry: int, *, call: str = "", execution: str = "") -> bool:
        """A worker asks whether it may start an item; return the answer."""
        call = call or f"{batch_id}/{entry}"
        asked = PermitAsked(call, batch_id, execution or f"x{batch_id}", entry)
        return [c.permitted for c in self.tell(asked) if isinstance(c, AnswerPermit)] == [True]

    def tell_finished(self, table: Table) -> list[Command]:
        """A table has come, whether or not anybody waits for it."""
        self.batches.pop(table.batch_id, None)
        return self.tell(BatchFinished(table))

    def tell_slots(self, slots: int) -> None:
        """The engine has room for so many batches now."""
        self.tell(SlotsChanged(slots))

    def cancel(self, node_id: int | None = None, *indices: int, reason: str = "not needed") -> list[Command]:
        """Somebody cancels the run, a node, or items of it."""
        return self.tell(CancelRequested(node_id, frozenset(indices) if indices else None, reason))

    def answer(self, batch_id: int, granted: bool, **blocked_by: Sequence[str]) -> list[Command]:
        """The store answers a request for leases."""
        return self.tell(LeasesAnswered(batch_id, granted, blocked_by))

    def wait(self, seconds: float) -> list[Command]:
        """Time passes."""
        self.now += seconds
        return self.tell(Tick())

    def finish_all(self) -> None:
        """Let all batches complete until there are none, timers included."""
        while self.batches or self.core.next_timer() is not None:
            if self.batches:
                self.end()
            else:
                self.now = max(self.now, self.core.next_timer() or 0.0)
                self.tell(Tick())

    # --- questions ------------------------------------------------------------------------------

    def states(self, node_id: int) -> list[State]:
        node = self.core.nodes[node_id]
        return [node.state(i) for i in range(node.width)]

    def state(self, node_id: int, index: int = 0) -> State:
        return self.core.nodes[node_id].state(index)

    def reason(self, node_id: int, index: int = 0) -> str:
        return self.core.nodes[node_id].reasons.get(index) or ""

    def attempts(self, node_id: int, index: int = 0) -> int:
        return self.core.nodes[node_id].attempts[index]

    def all_said(self, kind: type[T]) -> list[T]:
        """Return what the coordinator has said of one kind, oldest first."""
        return [command for command in self.said if isinstance(command, kind)]

    def all_batches(self) -> list[SubmitBatch]:
        """Return all batches that have ever been submitted."""
        return self.all_said(SubmitBatch)

    def moves(self, node_id: int) -> list[tuple[State, list[int]]]:
        """Return the journalled moves of a node."""
        return [(m.state, list(m.indices)) for m in self.all_said(Moved) if m.node_id == node_id]

    def _batch(self, batch_id: int | None) -> SubmitBatch:
        return self.batches[min(self.batches) if batch_id is None else batch_id]
