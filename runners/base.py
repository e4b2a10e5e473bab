"""The port: what a runner is. A new engine is one new file that implements `TaskRunner`.

A runner runs; it decides nothing. It never retries, reorders by its own policy, merges equal calls or drops
a batch in silence: every submitted batch ends in exactly one of `BatchFinished`, `BatchLost` or
`BatchRejected` at the sink (repeating one is harmless, forgetting one hangs a run).

All methods are called from one thread at a time. They must not block for long, `start`, `fetch` and
`close` excepted. The sink may be called from any thread, also before `start` has returned.
"""

from __future__ import annotations

import abc
import copy
import queue
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from .errors import ResultLostError, RunnerNotStartedError, RunnerOptionError
from .messages import Batch, Event


class Sink(Protocol):
    """Where a runner's events go. `put` is thread-safe, quick, and never raises."""

    def put(self, event: Event) -> None: ...


class QueueSink:
    """The sink of a runner that is used without a flow: a queue of events to read with `get`."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def put(self, event: Event) -> None:
        self._queue.put(event)

    def get(self, timeout: float | None = None) -> Event:
        """Return the next event; `queue.Empty` after `timeout` seconds."""
        return self._queue.get(timeout=timeout)


Wanted = tuple[int, int, Sequence[int]]  # batch_id, stage, positions: the arguments of `TaskRunner.fetch`


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a runner can do, for the coordinator's decisions and for errors at submit time.

    Attributes:
        in_process: batches run in the flow's process: payloads are live objects, never pickles.
        prefetch: batches per slot worth having at the engine while items are short, so that a slot
            never waits for the next one.
        options: names that `@task(runner_options=...)` may use.
        ends_workers: `cancel(force=True)` ends the worker process of a batch, as a rule, and its loss is told.
    """

    in_process: bool = False
    prefetch: int = 1
    options: frozenset[str] = frozenset()
    ends_workers: bool = False


class FreshCopies:
    """Copies and pickles of a runner carry its settings; what belongs to one start of it they make anew."""

    def _reset(self) -> None:
        """Set what belongs to one start."""

    def __getstate__(self) -> dict[str, Any]:
        blank = object.__new__(type(self))
        blank._reset()
        return {name: value for name, value in vars(self).items() if name not in {*vars(blank), "sink"}}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._reset()


class TaskRunner(abc.ABC):
    """Runs batches on an engine. Instances are templates until `start`; a flow run starts a copy."""

    name: ClassVar[str]  # as in `--runner NAME`
    capabilities: ClassVar[Capabilities]

    sink: Sink | None = None

    @abc.abstractmethod
    def start(self, sink: Sink) -> None:
        """Connect to or start the engine, then tell the slots with `SlotsChanged`.

        Raises:
            ConnectionFailedError, MissingExtraError, VersionMismatchError, UserError.
        """

    @abc.abstractmethod
    def submit(self, batches: Sequence[Batch]) -> None:
        """Hand batches to the engine. Problems with a single batch arrive at the sink, not as exceptions.

        One that the engine cannot begin soon may come back `UNSTARTED`, if it is certain not to start any more.
        """

    @abc.abstractmethod
    def cancel(self, batch_ids: Sequence[int], *, force: bool = False) -> None:
        """Stop batches: unstarted items come back `UNSTARTED`, the running one `CANCELLED`.

        Cooperative first: user code gets an exception at its next bytecode. `force` may end the
        worker, where the engine can; batches lost by that are reported as lost. Unknown ids are ignored.
        """

    @abc.abstractmethod
    def fetch(self, batch_id: int, stage: int, positions: Sequence[int]) -> list[Any]:
        """Bring results of a finished batch into this process.

        Raises:
            ResultLostError: the engine no longer has them.
            SerializationError: they cannot be unpickled in this process.
        """

    def fetch_many(self, wanted: Sequence[Wanted]) -> list[list[Any] | ResultLostError]:
        """Bring results of several finished batches, in as few round trips as the engine allows.

        Returns:
            For each entry what `fetch` returns; where it raises `ResultLostError`, the error.
        """
        found: list[list[Any] | ResultLostError] = []
        for batch_id, stage, positions in wanted:
            try:
                found.append(self.fetch(batch_id, stage, positions))
            except ResultLostError as error:
                found.append(error)
        return found

    @abc.abstractmethod
    def release(self, batch_ids: Sequence[int]) -> None:
        """Let the engine forget results. Nobody will fetch them nor name them as an input again."""

    @abc.abstractmethod
    def answer(self, call_id: str, reply: bytes) -> None:
        """Answer a `Call` of user code on a worker. Repeated answers are harmless."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the engine and end what this runner started. May be called twice and at any time."""

    def duplicate(self) -> Self:
        """Return an unstarted copy with the same settings."""
        twin = copy.copy(self)
        twin.sink = None
        return twin

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise `RunnerOptionError` for runner options that this engine cannot honour."""
        unknown = sorted(set(options) - self.capabilities.options)
        if unknown:
            known = ", ".join(sorted(self.capabilities.options)) or "none"
            raise RunnerOptionError(
                f"runner_options {', '.join(map(repr, unknown))} mean nothing to {type(self).__name__} "
                f"(it knows: {known}). Remove them or choose another task_runner."
            )

    def describe(self) -> str:
        """One line for people: the engine and where it is, for instance an address or a dashboard link."""
        return type(self).__name__

    def describe_start(self) -> str:
        """For people who wait: whom `start` waits for, such as "the scheduler at tcp://host:8786"; "" for nobody."""
        return ""

    def dashboard_url(self) -> str:
        """Return the address of the engine's own web page, once started; "" where it has none."""
        return ""

    def __enter__(self) -> Self:
        if self.sink is None:
            self.sink = QueueSink()
        self.start(self.sink)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _emit(self, event: Event) -> None:
        if self.sink is None:
            raise RunnerNotStartedError(f"{type(self).__name__} has not been started")
        self.sink.put(event)
