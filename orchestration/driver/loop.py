"""The driver of one flow run: its thread, its turns, its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from runners.base import TaskRunner
from runners.codec import dump_exception
from runners.errors import ResultLostError, SerializationError
from runners.messages import (
    Batch,
    BatchFinished,
    BatchRejected,
    BatchStarted,
    Call,
    Detail,
    LogLine,
    RunnerFailed,
)
from runners.tables import starved
from runners.worker import cancel_batches

from ..core.commands import (
    AnswerPermit,
    AskLeases,
    CancelBatches,
    Command,
    ForgetNodes,
    ReleaseBatches,
    SubmitBatch,
    WithdrawLeases,
)
from ..core.coordinator import Coordinator
from ..core.events import (
    CoreEvent,
    FusionRefused,
    NodeSubmitted,
    RunInterrupted,
    SlotLent,
    SlotReclaimed,
    Tick,
)
from ..core.journal import Entry, LogWritten
from ..core.records import INLINE
from ..errors import BackendError, CrashedRunError, FencedError, InternalError
from ..stores.base import Store
from .board import Board
from .clock import Clock
from .inbox import Inbox
from .journaling import Journaling
from .leasing import Leasing
from .packing import InputGone, Packer
from .timers import Timers

log = logging.getLogger("millrace.driver")

FOLLOW_SECONDS = (
    0.005  # between calls of maps that build upon each other; on an idle machine they take a tenth
)
FOLLOW_MOST_SECONDS = 0.01  # for all of them: what a batch's round trip takes

Observer = Callable[[Sequence[Entry]], None]


@dataclass(frozen=True, slots=True)
class Write:
    """Put entries into the journal, after all events that came before."""

    entries: tuple[Entry, ...]
    done: threading.Event | None = None  # set when they are safe


@dataclass(frozen=True, slots=True)
class Do:
    """Run something in the driver's thread."""

    action: Callable[[], None]


class Driver:
    """Moves one flow run: events in, turns in its own thread, commands out.

    Attributes:
        board: where to wait for task runs.
        observers: called after each turn with what was journalled, in the driver's thread.
        on_call: handles `Call`s of workers that are no permits.
        inline: takes batches of directly called tasks; `runs_here` says whether in this process.
        answer: takes permits.
        broken: what has stopped the runner or the driver, if something has.
        cpu_seconds: that the driver's thread has used: for deciding, packing, journalling, telling.
    """

    def __init__(
        self, run_id: str, epoch: int, core: Coordinator, runner: TaskRunner, store: Store, clock: Clock
    ) -> None:
        self.run_id = run_id
        self.core = core
        self.runner = runner
        self.clock = clock
        self.inbox = Inbox()
        self.timers = Timers()
        self.board = Board(core.nodes)
        self.board.on_wait = self.inbox.knock
        self.packer: Packer
        self.observers: list[Observer] = []
        self.on_call: Callable[[Call], None] = lambda call: None
        self.inline: Callable[[int, Batch], None] = lambda node_id, batch: None
        self.runs_here: Callable[[int], bool] = lambda node_id: True
        self.answer: Callable[[str, bytes], None] = runner.answer
        self.broken: BaseException | None = None
        self.cpu_seconds = 0.0
        self.journaling = Journaling(store, run_id, epoch)
        self.leasing = Leasing(store, run_id, epoch, self)
        self._thread = threading.Thread(target=self._run, name=f"millrace-driver-{run_id[:8]}", daemon=True)
        self._closing = False

    # --- from other threads ---------------------------------------------------------------------

    def start(self) -> None:
        """Start the runner, then the turns. What the runner raises is raised here."""
        self.runner.start(self.inbox)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether events are still taken."""
        return self._thread.is_alive()

    def post(self, event: Any) -> None:
        self.inbox.put(event)

    def write(self, *entries: Entry) -> None:
        """Journal entries, and wait until they are safe."""
        done = threading.Event()
        self.post(Write(entries, done))
        while not done.wait(0.5):
            if not self._thread.is_alive():
                raise self.board.failure or InternalError("the driver has stopped")
        if self.board.failure is not None:
            raise self.board.failure

    def do(self, action: Callable[[], None]) -> None:
        """Run something in the driver's thread, soon."""
        self.post(Do(action))

    def warn(self, message: str) -> None:
        """Write a warning into the run's log."""
        line = LogLine(0, 0, 0, self.clock.now(), logging.WARNING, log.name, message)
        self.post(Write((LogWritten(-1, (0,), (0,), (line,)),)))

    def stop(self) -> None:
        """End the turns after what is waiting. The runner still has its results."""
        self._closing = True
        self.inbox.put(Do(lambda: None))
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        self.board.fail(CrashedRunError(f"flow run {self.run_id} has ended, and this did not end with it"))
        self.leasing.close()

    def close(self) -> None:
        """End the turns, then close the runner. Starts of code that it tells of meanwhile are recorded."""
        self.stop()
        self.runner.close()
        starts = [event for event in self.inbox.take(0) if isinstance(event, BatchStarted)]
        if self.broken is None and starts:
            entries: list[Entry] = []
            _sort(self.core.handle_all(starts, self.clock.now()), entries, [])
            self.journaling.append(entries, closing=lambda: True)

    # --- turns ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not (self._closing and self.inbox.empty):
                self._turn(self._with_followers(self.inbox.take(self._patience())))
                self.cpu_seconds = time.thread_time()
        except BaseException as error:  # whoever waits must hear of it, whatever it is
            self._break(error)

    def _with_followers(self, events: list[Any]) -> list[Any]:
        """Wait for maps over a map that was just submitted: those that come in time share its first batches, too.

        For some milliseconds, and only while the flow goes on: not if it waits for results, nor if anything else
        has happened.
        """
        most = time.monotonic() + FOLLOW_MOST_SECONDS
        came = events
        while came and all(map(self._may_have_followers, came)) and time.monotonic() < most:
            came = self.inbox.take_more(FOLLOW_SECONDS, lambda: self.board.awaited)
            events += came
        return events

    def _may_have_followers(self, event: Any) -> bool:
        return type(event) is NodeSubmitted and event.spec.kind == "map" and self.core.is_short(event.spec)

    def _patience(self) -> float | None:
        """Return for how long there is nothing to do without an event."""
        due = [t for t in (self.core.next_timer(), self.timers.next()) if t is not None]
        return max(0.0, min(due) - self.clock.now()) if due else None

    def _turn(self, events: Sequence[Any]) -> None:
        """Let the core handle what has happened; journal it; then act, and tell."""
        now = self.clock.now()
        entries: list[Entry] = []
        actions: list[Any] = []
        afterwards: list[Callable[[], Any]] = []
        self.board.begin_turn()
        facts: list[CoreEvent] = []
        timer = self.core.next_timer()
        if timer is not None and timer <= now:
            facts.append(Tick())
        for event in events:
            if type(event) not in _NO_FACTS:  # as nearly all
                facts.append(event)
            elif isinstance(event, Write):  # it comes after what was told before
                _sort(self.core.handle_all(facts, now), entries, actions)
                facts = []
                entries += event.entries
                if event.done is not None:
                    afterwards.append(event.done.set)
            elif isinstance(event, Do):
                afterwards.append(event.action)
            elif isinstance(event, Call):
                afterwards.append(partial(self.on_call, event))
            else:
                facts.append(self._runner_failed(event))
        _sort(self.core.handle_all(facts, now), entries, actions)
        entries += self.core.counted()
        if entries:
            self.journaling.append(entries, closing=lambda: self._closing)
        self.board.end_turn(entries)
        self._perform(actions)
        self._tell(entries)
        self.timers.fire(now)
        for action in afterwards:
            action()

    def _tell(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        for observer in self.observers:
            try:
                observer(entries)
            except Exception:  # showing progress must not stop it
                log.exception("an observer of run %s failed", self.run_id)
        for node_id in self.board.tell(entries):
            if self.core.nodes[node_id].unfinished == 0:
                self.packer.ended(node_id)
        self.leasing.batches_ended(self.core.ledger.live)

    # --- actions --------------------------------------------------------------------------------

    def _perform(self, actions: Sequence[Any]) -> None:
        batches: list[Batch] = []
        released: list[int] = []
        for action in actions:
            match action:
                case SubmitBatch():
                    batch = self._pack(action)
                    if batch is not None:
                        batches.append(batch)
                case CancelBatches(batch_ids, force):
                    if batches:  # a cancellation must not overtake what it is about
                        self.runner.submit(batches)
                        batches = []
                    self.runner.cancel(batch_ids, force=force)
                case ReleaseBatches(batch_ids):
                    released += batch_ids
                case ForgetNodes(node_ids):
                    self.packer.forget(node_ids)
                case AskLeases():
                    self.leasing.ask(action)
                case WithdrawLeases(batch_ids):
                    self.leasing.withdraw(batch_ids)
                case AnswerPermit(call_id, permitted):
                    self.answer(call_id, b"yes" if permitted else b"no")
        if batches:
            self.runner.submit(batches)
        if released:  # last: work must not wait behind it on its way to the engine
            self.runner.release(released)

    def _pack(self, command: SubmitBatch) -> Batch | None:
        """Return the batch; one that cannot be packed is rejected, inline ones go to their threads."""
        inline = command.runner == INLINE
        try:
            batch = self.packer.pack(command, live=self.runs_here(command.node_id) if inline else None)
        except InputGone as error:
            sizes = len(command.indices), len(command.node_ids)
            self.post(BatchFinished(starved(command.batch_id, *sizes, str(error))))
            return None
        except Exception as error:
            if command.fused:  # whose fault it is shows when each goes alone
                self.post(FusionRefused(command.batch_id))
                return self._pack(replace(command, fused=()))
            self.post(BatchRejected(command.batch_id, self._unpackable(command, error)))
            return None
        if inline:
            self.inline(command.node_id, batch)
            return None
        return batch

    def _unpackable(self, command: SubmitBatch, error: Exception) -> Detail:
        made: Exception
        if isinstance(error, SerializationError | InternalError | ResultLostError):
            made = error
        else:
            name = self.core.nodes[command.node_id].spec.task_name
            made = SerializationError(
                f"{self.packer.blame(command, error)} of task {name!r} cannot be pickled, so it cannot travel to "
                f"a worker of {type(self.runner).__name__}: {error}. Pass plain data, create it inside the "
                "task, or use ThreadPoolTaskRunner."
            )
            made.__cause__ = error
        return Detail(
            type_name=f"runners.errors.{type(made).__name__}",
            message=str(made),
            exception=dump_exception(made),
            retriable=False,
        )

    # --- slots of waiting task runs -------------------------------------------------------------

    def lend(self, batch_id: int) -> None:
        self.post(SlotLent(batch_id))

    def reclaim(self, batch_id: int) -> None:
        self.post(SlotReclaimed(batch_id))

    # --- breaking -------------------------------------------------------------------------------

    def _runner_failed(self, event: RunnerFailed) -> RunInterrupted:
        """The runner is gone, the store is not: the record gets its end, the flow gets the error."""
        reason = f"{type(self.runner).__name__}: {event.reason}"
        self.broken = self.broken or BackendError(reason)
        return RunInterrupted(reason, "orchestration.errors.BackendError")

    def _break(self, error: BaseException) -> None:
        """Nothing can be recorded any more: what runs is stopped, and nothing more begins."""
        self.broken = error
        if not isinstance(error, FencedError | BackendError):
            log.error("the driver of run %s has failed", self.run_id, exc_info=error)
        self._stop_batches()
        self.board.fail(error)
        for event in self.inbox.take(0):
            if isinstance(event, Write) and event.done is not None:
                event.done.set()

    def _stop_batches(self) -> None:
        """Stop what is at the engine now, not when the flow next waits: its leases may be others' by now."""
        flights = [flight for flight in self.core.ledger.live.values() if flight.submitted]
        inline = [flight.batch_id for flight in flights if flight.runner == INLINE]
        cancel_batches(self.run_id, inline)
        try:
            self.runner.cancel([flight.batch_id for flight in flights if flight.runner != INLINE])
        except Exception as error:  # closing it ends them, if it can
            log.debug("batches of run %s could not be stopped: %s", self.run_id, error)


def _sort(commands: Sequence[Command], entries: list[Entry], actions: list[Any]) -> None:
    """Part journal entries from actions, each in order."""
    for command in commands:
        kind = type(command)
        if kind in _ACTIONS:
            actions.append(command)
        else:
            entries.append(command)  # type: ignore[arg-type]


_NO_FACTS = frozenset({Write, Do, Call, RunnerFailed})
_ACTIONS = frozenset(
    {SubmitBatch, CancelBatches, ReleaseBatches, ForgetNodes, AskLeases, WithdrawLeases, AnswerPermit}
)
