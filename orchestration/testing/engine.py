"""A simulated engine: workers, batches and faults in virtual time. It lies as real engines and networks do."""

from __future__ import annotations

import random
from array import array
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from runners.messages import (
    BatchFinished,
    BatchLost,
    BatchProgress,
    BatchStarted,
    Detail,
    Outcome,
    ResultsLost,
    SlotsChanged,
    Stored,
    Table,
)

from ..core.commands import SubmitBatch
from ..core.events import CoreEvent, PermitAsked
from .script import Act, Value

HAS_RESULT = (Outcome.COMPLETED, Outcome.CACHED)


@dataclass(frozen=True, slots=True)
class Faults:
    """How often things go wrong, as probabilities, and how long news takes, in seconds.

    Attributes:
        death: a worker dies while it runs a batch.
        zombie: the table of a batch that was reported lost arrives nevertheless.
        hint_lost, hint_repeated: of live events. All live events are late by up to `delay`, in any order.
        hint_late: a live event comes up to a minute late, when its batch has long ended.
        repeated: the engine runs a finished batch again, and delivers both tables.
        input_lost: an item cannot read its inputs.
        results_lost: a batch's results vanish, some time after it has ended. Half of these are told.
        files_lost: a file in storage is damaged or deleted, some time after it was written, or between two lives
            of the run. Nobody tells.
        skew: by how many seconds the clocks of workers are wrong at most, either way.
        leap: the flow's process stands still for an hour before it takes an event.
        ends_workers: no fault: workers that run what cannot be stopped are ended on request.
    """

    death: float = 0.0
    zombie: float = 0.0
    hint_lost: float = 0.0
    hint_repeated: float = 0.0
    hint_late: float = 0.0
    repeated: float = 0.0
    input_lost: float = 0.0
    results_lost: float = 0.0
    files_lost: float = 0.0
    delay: float = 0.0
    skew: float = 0.0
    leap: float = 0.0
    ends_workers: bool = False


class Stage(Protocol):
    """What the engine needs of the world around it."""

    def later(self, seconds: float, action: Callable[[], None]) -> None: ...
    @property
    def now(self) -> float: ...


class Work(Protocol):
    """What the engine needs of the flow that it runs."""

    def act(self, node_id: int, index: int) -> Act: ...
    def value(self, node_id: int, index: int, given: Value | None) -> Value: ...
    def inputs(self, command: SubmitBatch) -> frozenset[int]: ...
    def files_of(self, command: SubmitBatch) -> frozenset[str]: ...
    def is_damaged(self, url: str) -> bool: ...
    def persist(self, batch_id: int, node_id: int, values: Mapping[int, Value]) -> Stored | None: ...
    def post(self, event: CoreEvent) -> None: ...


class Execution:
    """One execution of a batch: its columns as they fill."""

    def __init__(self, command: SubmitBatch, acts: Sequence[Act], execution_id: str) -> None:
        self.command = command
        self.acts = list(acts)
        self.execution_id = execution_id
        n = len(acts)
        self.outcomes = bytearray(n)
        self.offsets = array("d", bytes(8 * n))
        self.durations = array("d", bytes(8 * n))
        self.begun = False
        self.started = 0.0
        self.ran = 0  # items that have been begun
        self.version = 0  # of its plan: what was scheduled for an older one does not happen
        self.over = False
        self.waiting_call = ""
        self.inputs: frozenset[int] = frozenset()  # batches whose results it reads
        self.files: frozenset[str] = frozenset()  # addresses in storage that it reads
        self.missing: tuple[int, ...] = ()
        self.missing_files: tuple[str, ...] = ()


class SimulatedEngine:
    """Runs batches on `workers` workers with a queue each."""

    def __init__(
        self,
        stage: Stage,
        work: Work,
        rng: random.Random,
        workers: int,
        faults: Faults | None,
        made: dict[tuple[int, int], Value],
    ) -> None:
        self.stage = stage
        self.work = work
        self.rng = rng
        self.faults = faults or Faults()
        self.queues: list[deque[Execution]] = [deque() for _ in range(workers)]
        self.alive = [True] * workers
        skew = self.faults.skew
        self.skews = [rng.uniform(-skew, skew) if skew else 0.0 for _ in range(workers)]
        self.results: dict[tuple[int, int], dict[int, Value]] = {}  # batch, stage -> position -> value
        self.released: dict[tuple[int, int], dict[int, Value]] = {}
        self.made = made  # the last value that each item returned
        self.vanished: set[int] = set()  # batches whose results have been lost
        self.starts: Counter[tuple[int, int]] = Counter()  # how often each item's code was started
        self.deaths = 0
        self.gone = False  # the flow's process has died: nobody hears anything any more
        self._made = 0

    # --- the runner's verbs ---------------------------------------------------------------------

    def start(self) -> None:
        self._post(SlotsChanged(sum(self.alive)))

    def submit(self, command: SubmitBatch) -> None:
        """Queue a batch at the live worker with the least to do."""
        acts = [self.work.act(node_id, index) for index in command.indices for node_id in command.node_ids]
        self._made += 1
        execution = Execution(command, acts, f"x{self._made}")
        if self.faults.results_lost:
            execution.inputs = self.work.inputs(command)
        if self.faults.files_lost:
            execution.files = self.work.files_of(command)
        candidates = [w for w, alive in enumerate(self.alive) if alive] or [0]
        worker = min(candidates, key=lambda w: len(self.queues[w]))
        self.queues[worker].append(execution)
        if len(self.queues[worker]) == 1 and self.alive[worker]:
            self._begin(worker)

    def cancel(self, batch_ids: Sequence[int], *, force: bool = False) -> None:
        for worker, queue in enumerate(self.queues):
            for execution in list(queue):
                if execution.command.batch_id not in batch_ids:
                    continue
                if force and execution.begun and self.faults.ends_workers:
                    self._die(worker)
                    break
                self._cancel(worker, execution)

    def release(self, batch_ids: Sequence[int]) -> None:
        """Forget results: who asks for them now gets a KeyError."""
        for batch_id, stage in list(self.results):
            if batch_id in batch_ids:
                self.released[batch_id, stage] = self.results.pop((batch_id, stage))

    def answer(self, call_id: str, permitted: bool) -> None:
        """A permit has been given or refused. Repeated answers are ignored."""
        for worker, queue in enumerate(self.queues):
            if queue and queue[0].waiting_call == call_id:
                queue[0].waiting_call = ""
                self._permitted(worker, queue[0], permitted)

    # --- running --------------------------------------------------------------------------------

    def _begin(self, worker: int) -> None:
        execution = self.queues[worker][0]
        command = execution.command
        execution.begun, execution.started = True, self.stage.now
        started = execution.started + self.skews[worker]
        self._hint(BatchStarted(command.batch_id, execution.execution_id, f"w{worker}", started))
        self._look(execution)
        if command.permit and not (execution.missing or execution.missing_files):
            self._ask(worker, execution)
        else:
            self._lay_out(worker, execution)
        if self.rng.random() < self.faults.death:
            busy = max(0.001, execution.offsets[execution.ran - 1] if execution.ran else 0.1)
            self._schedule(worker, execution, self.rng.uniform(0, busy), lambda: self._die(worker))

    def _look(self, execution: Execution) -> None:
        """Find out which of its inputs are not there any more."""
        execution.missing = tuple(sorted(execution.inputs & self.vanished))
        execution.missing_files = tuple(sorted(filter(self.work.is_damaged, execution.files)))

    def _lay_out(self, worker: int, execution: Execution) -> None:
        """Compute a whole execution ahead: nothing but its cancellation or a death will change it."""
        command, elapsed = execution.command, 0.0
        stages, broken = len(command.node_ids), False
        if execution.missing or execution.missing_files:
            self._starve(worker, execution)
            return
        for position, act in enumerate(execution.acts):  # an entry, where nodes are fused
            if position and command.deadline_seconds is not None and elapsed > command.deadline_seconds:
                break
            broken = broken and position % stages > 0 and command.fused[position % stages - 1].follows
            if broken:
                continue
            execution.ran = position + 1
            execution.offsets[position] = elapsed
            if self.faults.input_lost and self.rng.random() < self.faults.input_lost:
                execution.outcomes[position] = Outcome.INPUT_LOST
                broken = True
                continue
            if act.kills:
                self._schedule(worker, execution, elapsed, lambda: self._die(worker))
                self._hints(worker, execution)
                return
            execution.outcomes[position] = act.outcome
            execution.durations[position] = act.seconds
            self._close(worker, execution, position, elapsed)
            elapsed += act.seconds
            broken = act.outcome not in HAS_RESULT
            if act.deaf and act.outcome == Outcome.TIMED_OUT:
                self._give_up(worker, execution, position, act)
                break
        self._hints(worker, execution)
        self._schedule(worker, execution, elapsed, lambda: self._finish(worker, execution))

    def _close(self, worker: int, execution: Execution, entry: int, begun: float) -> None:
        """If the deadline comes while an item runs: tell then that what is behind it will not start."""
        deadline, ends = execution.command.deadline_seconds, begun + execution.durations[entry]
        if deadline is None or not begun <= deadline < ends or entry + 1 == len(execution.acts):
            return
        event = BatchProgress(
            execution.command.batch_id,
            execution.execution_id,
            f"w{worker}",
            entry,
            execution.started + self.skews[worker] + begun,
            bytes(execution.outcomes[:entry]),
            closed=True,
        )
        self._schedule(worker, execution, deadline, partial(self._hint, event))

    def _give_up(self, worker: int, execution: Execution, entry: int, act: Act) -> None:
        """An item does not stop: tell that it was given up. Nothing is started after it, however long it takes."""
        event = BatchProgress(
            execution.command.batch_id,
            execution.execution_id,
            f"w{worker}",
            entry,
            execution.started + self.skews[worker] + execution.offsets[entry],
            bytes(execution.outcomes[: entry + 1]),
            {entry: Detail("SimulatedError", act.message, retriable=act.retriable, abandoned=True)},
        )
        seconds = execution.offsets[entry] + min(1.0, act.seconds / 2)
        self._schedule(worker, execution, seconds, partial(self._hint, event))

    def _starve(self, worker: int, execution: Execution) -> None:
        """Its inputs have vanished: no item of it starts."""
        stages = len(execution.command.node_ids)
        execution.ran = len(execution.acts)
        for entry in range(0, len(execution.acts), stages):
            execution.outcomes[entry] = Outcome.INPUT_LOST
        self._schedule(worker, execution, 0.0, lambda: self._finish(worker, execution))

    def _hints(self, worker: int, execution: Execution) -> None:
        """Tell now and then how far the execution is."""
        for position in sorted({0, execution.ran // 2, max(0, execution.ran - 1)}):
            event = BatchProgress(
                execution.command.batch_id,
                execution.execution_id,
                f"w{worker}",
                position,
                execution.started + self.skews[worker] + execution.offsets[position],
                bytes(execution.outcomes[:position]),
            )
            self._schedule(worker, execution, execution.offsets[position], partial(self._hint, event))

    def _ask(self, worker: int, execution: Execution) -> None:
        """Ask for leave to start the next item; ask twice, as workers do that hear nothing."""
        position = execution.ran
        if position == len(execution.acts):
            self._finish(worker, execution)
            return
        execution.offsets[position] = self.stage.now - execution.started
        call_id = f"{execution.execution_id}/{position}"
        execution.waiting_call = call_id
        ask = PermitAsked(call_id, execution.command.batch_id, execution.execution_id, position)
        self.stage.later(self._latency(), lambda: self._post(ask))
        if self.rng.random() < self.faults.hint_repeated:
            self.stage.later(self._latency(), lambda: self._post(ask))

    def _permitted(self, worker: int, execution: Execution, permitted: bool) -> None:
        position, act = execution.ran, execution.acts[execution.ran]
        execution.ran += 1
        execution.outcomes[position] = act.outcome if permitted else Outcome.REFUSED
        execution.durations[position] = act.seconds if permitted else 0.0
        if not permitted:
            self._ask(worker, execution)
            return
        self.starts[execution.command.item(position)] += 1
        if act.kills:
            self._schedule(worker, execution, 0.0, lambda: self._die(worker))
        else:
            self._schedule(worker, execution, act.seconds, lambda: self._ask(worker, execution))

    def _finish(self, worker: int, execution: Execution) -> None:
        """An execution has ended: deliver its table, go on with the next."""
        self._leave(worker, execution)
        table = self._table(worker, execution)
        self._deliver(table, execution)
        if self.faults.results_lost and self.rng.random() < self.faults.results_lost:
            self.stage.later(
                self.faults.delay + self.rng.uniform(0, 3.0), partial(self._vanish, table.batch_id)
            )
        if self.rng.random() < self.faults.repeated:
            self._made += 1
            execution.execution_id = f"x{self._made}"
            again = self.stage.now + self.skews[worker]
            self._hint(BatchStarted(table.batch_id, execution.execution_id, f"w{worker}", again))
            self._deliver(self._table(worker, execution), execution)

    def _leave(self, worker: int, execution: Execution) -> None:
        execution.over = True
        execution.version += 1
        queue = self.queues[worker]
        first = queue[0] is execution
        queue.remove(execution)
        if first and queue and self.alive[worker]:
            self.stage.later(0.0, lambda: self._begin_if_idle(worker, queue[0] if queue else None))

    def _begin_if_idle(self, worker: int, execution: Execution | None) -> None:
        queue = self.queues[worker]
        if execution is not None and queue and queue[0] is execution and not execution.begun:
            self._begin(worker)

    def _cancel(self, worker: int, execution: Execution) -> None:
        """Stop the item that runs, unless it is deaf; do not begin another one."""
        if not execution.begun:
            self._finish(worker, execution)
            return
        elapsed = self.stage.now - execution.started
        begun = (p for p in range(execution.ran) if execution.outcomes[p] and execution.offsets[p] <= elapsed)
        current = max(begun, default=0)
        execution.ran = min(execution.ran, current + 1)
        execution.outcomes[current + 1 :] = bytes(len(execution.outcomes) - current - 1)
        execution.waiting_call = ""
        left = execution.offsets[current] + execution.durations[current] - elapsed
        execution.version += 1
        if left > 0 and not execution.acts[current].deaf and execution.outcomes[current] != Outcome.REFUSED:
            execution.outcomes[current] = Outcome.CANCELLED
            left = 0.0
        self._schedule(worker, execution, max(0.0, left), lambda: self._finish(worker, execution))

    # --- faults ---------------------------------------------------------------------------------

    def _die(self, worker: int) -> None:
        """A worker has died, or has only lost its connection: then its table may come yet."""
        self.deaths += 1
        queue, self.queues[worker] = list(self.queues[worker]), deque()
        self.alive[worker] = False
        for place, execution in enumerate(queue):
            execution.version += 1
            execution.over = True
            lost = BatchLost(execution.command.batch_id, f"worker w{worker} has died", suspect=place == 0)
            self.stage.later(self._latency(), partial(self._post, lost))
            kills = any(act.kills for act in execution.acts[: execution.ran])
            if place == 0 and not kills and self.rng.random() < self.faults.zombie:
                table = self._table(worker, execution)
                self.stage.later(3.0 + self._latency(), partial(self._post, BatchFinished(table)))
        self._post(SlotsChanged(sum(self.alive)))
        self.stage.later(1.0, lambda: self._revive(worker))

    def _revive(self, worker: int) -> None:
        self.alive[worker] = True
        self._post(SlotsChanged(sum(self.alive)))
        if self.queues[worker] and not self.queues[worker][0].begun:
            self._begin(worker)

    def _vanish(self, batch_id: int) -> None:
        """The results of a batch are gone, with the worker or node that had them."""
        self.vanished.add(batch_id)
        for held in [held for held in self.results if held[0] == batch_id]:
            del self.results[held]
        if self.rng.random() < 0.5:
            lost = ResultsLost((batch_id,), "its worker has died")
            self.stage.later(self._latency(), partial(self._post, lost))

    # --- news -----------------------------------------------------------------------------------

    def _table(self, worker: int, execution: Execution) -> Table:
        command, acts = execution.command, execution.acts
        stages = len(command.node_ids)
        values: list[dict[int, Value]] = [{} for _ in command.node_ids]
        details: dict[int, Detail] = {}
        lengths: dict[int, int] = {}
        for entry in range(execution.ran):
            outcome, act = execution.outcomes[entry], acts[entry]
            position, stage = divmod(entry, stages)
            node_id, index = command.item(entry)
            if not command.permit and outcome not in (Outcome.INPUT_LOST, Outcome.UNSTARTED):
                self.starts[node_id, index] += 1
            if outcome in HAS_RESULT:
                follows = stage > 0 and command.fused[stage - 1].follows
                given = values[stage - 1].get(position) if follows else None
                value = values[stage][position] = self.work.value(node_id, index, given)
                self.made[node_id, index] = value
                if act.length is not None:
                    lengths[entry] = act.length
            elif outcome and (act.message or not act.retriable or act.after_seconds is not None):
                details[entry] = Detail(
                    "SimulatedError", act.message, retriable=act.retriable, after_seconds=act.after_seconds
                )
        stored = []
        for stage, node_id in enumerate(command.node_ids):
            if (command.batch_id, stage) not in self.released and command.batch_id not in self.vanished:
                self.results.setdefault((command.batch_id, stage), values[stage])
            stored.append(self.work.persist(command.batch_id, node_id, values[stage]))
        return Table(
            command.batch_id,
            execution.execution_id if execution.ran else "",
            f"w{worker}",
            execution.started + self.skews[worker],
            bytes(execution.outcomes),
            execution.offsets[:],
            execution.durations[:],
            details=details,
            lengths=lengths,
            stored=tuple(stored) if any(stored) else (),
            missing=execution.missing,
            missing_files=execution.missing_files,
        )

    def _deliver(self, table: Table, execution: Execution) -> None:
        event = BatchFinished(table)
        self.stage.later(self._latency(), lambda: self._post(event))
        if self.rng.random() < self.faults.hint_repeated:
            self.stage.later(self._latency(), lambda: self._post(event))

    def _hint(self, event: CoreEvent) -> None:
        if self.rng.random() < self.faults.hint_lost:
            return
        for _ in range(2 if self.rng.random() < self.faults.hint_repeated else 1):
            late = self.faults.hint_late and self.rng.random() < self.faults.hint_late
            seconds = self.rng.uniform(0.0, 60.0) if late else self._latency()
            self.stage.later(seconds, lambda: self._post(event))

    def _latency(self) -> float:
        return self.rng.uniform(0, self.faults.delay) if self.faults.delay else 0.0

    def _schedule(
        self, worker: int, execution: Execution, seconds: float, action: Callable[[], None]
    ) -> None:
        """Do something in the course of an execution, if that has not taken another course by then."""
        version = execution.version

        def act() -> None:
            if execution.version == version and not execution.over and self.alive[worker]:
                action()

        self.stage.later(seconds, act)

    def _post(self, event: CoreEvent) -> None:
        if not self.gone:
            self.work.post(event)
