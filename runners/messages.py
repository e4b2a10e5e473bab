"""The narrow waist: all that crosses between a flow's process and a runner, as plain data.

Downwards go `Batch`es: which items of which nodes to run, with their arguments and where their
inputs are. Upwards come events. Two rules hold for every runner:

1. Live events (`BatchStarted`, `BatchProgress`) are hints. They may be lost, repeated, late.
2. The `Table` in `BatchFinished` is the record. What it says about an item is final.

Everything here is immutable and survives a round trip through `runners.codec`.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Outcome(IntEnum):
    """How one item of a batch ended on the worker: one byte per item and stage in a table."""

    UNSTARTED = 0  # deadline, cancellation: the item goes back and has not spent an attempt
    COMPLETED = 1
    CACHED = 2  # completed without running: the cache had the result
    FAILED = 3  # user code raised, or its arguments or result could not be moved
    TIMED_OUT = 4
    SKIPPED = 5  # user code raised Skip
    RETRY = 6  # user code raised Retry
    CANCELLED = 7  # stopped on request while it ran
    INPUT_LOST = 8  # an upstream result could not be read: not the item's fault
    REFUSED = 9  # the coordinator did not permit a (second) start of an item that may run once only


HAS_RESULT = frozenset({Outcome.COMPLETED, Outcome.CACHED})


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Payload:
    """A Python object on its way to a worker.

    Runners in the flow's process get `value`, all others a pickle: `data` and the `buffers` (of NumPy
    arrays, data frames) that it leaves out of band. What many batches need has a `digest`, by which a
    worker recognises what it has; without `data` it stands for what the worker knows by that digest.
    Buffers that can be written to belong to whoever loads the payload; others are copied by then.
    """

    value: Any = None
    data: bytes | memoryview | None = None
    digest: str = ""
    buffers: Sequence[Any] = ()

    @property
    def nbytes(self) -> int:
        return len(self.data or b"") + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel with any pickle protocol. See `shipping.seal` for the way that copies nothing."""
        data = None if self.data is None else bytes(self.data)
        return Payload, (self.value, data, self.digest, [bytes(buffer) for buffer in self.buffers])


@dataclass(frozen=True, slots=True)
class Stored:
    """Results of one batch in result storage: one file with one entry per position."""

    url: str
    digest: str


@dataclass(frozen=True, slots=True)
class Input:
    """Results of one upstream node that a batch reads; exactly one of the sources is set.

    `indices[k]` is the upstream item whose value stands at `positions[k]` of the source.
    """

    node_id: int
    indices: Sequence[int]
    positions: Sequence[int]
    batch_id: int | None = None  # a finished batch whose results the engine holds ...
    stage: int = 0  # ... and which of its stages was this node's
    stored: Stored | None = None  # a file in result storage
    literal: Payload | None = None  # a list of values made in the flow's process


@dataclass(frozen=True, slots=True)
class Stage:
    """One node's part in a batch. Where several share a batch, all of them run for one position, then for the next.

    A stage that follows is fused with the one before: its item starts only if that has a result there, and may take it.
    One that does not is pooled: it runs whatever becomes of the stages before.
    """

    node_id: int
    task_name: str
    body: Payload  # -> runners.body.TaskBody
    arguments: Payload  # -> runners.arguments.Arguments, for the items of this batch
    attempts: Sequence[int]  # number of the attempt of each item, from 1
    timeout_seconds: float | None = None
    permit: bool = False  # ask the coordinator before each item starts (`rerun_on_loss=False`)
    shared: Payload | None = None  # -> what `Shared` arguments stand for; the same for all batches
    follows: bool = True  # of no meaning for the first


@dataclass(frozen=True, slots=True)
class Batch:
    """Some items of one node, or of several that share the batch, run one after another in one engine submission."""

    run_id: str
    batch_id: int  # unique within the run, never reused
    indices: Sequence[int]  # of the items; position p of the batch is item indices[p]
    stages: tuple[Stage, ...]
    context: Payload  # -> runners.context.RunContext
    inputs: tuple[Input, ...] = ()
    deadline_seconds: float | None = None  # past it nothing more starts: the unstarted tail goes back
    priority: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)  # the task's runner_options

    @property
    def timed(self) -> bool:
        """Whether some of its items have a timeout."""
        return any(stage.timeout_seconds is not None for stage in self.stages)

    @property
    def reads(self) -> list[int]:
        """The batches whose results it reads from the engine, each once."""
        return list(dict.fromkeys(i.batch_id for i in self.inputs if i.batch_id is not None))


# What is said of items that did not stop when they were told to, after why they were told to.
NOT_STOPPED = "could not be stopped: its code may still be running"
ENDED = "did not stop: its worker was ended"
CANCELLED_AND = "was cancelled and "


@dataclass(frozen=True, slots=True)
class Detail:
    """What an item has to say beyond its outcome byte. Only items that did not simply complete have one."""

    type_name: str = ""
    message: str = ""
    traceback: str = ""
    exception: bytes | None = None  # pickled; None when it cannot be unpickled
    after_seconds: float | None = None  # Retry(after_seconds)
    retriable: bool = True  # False: Fail, or retry_condition_fn said no
    abandoned: bool = False  # could not be stopped; its code may still run
    live: BaseException | None = None  # the exception itself, from runners in the flow's process


def unstopped_detail(timeout: float | None, *, ended: bool = False) -> Detail:
    """Return what is said of an item that did not stop.

    Args:
        timeout: the limit in seconds that it ran into; None: it was cancelled.
        ended: its worker was ended; otherwise its code may still be running.
    """
    return Detail(
        type_name="TaskCancelledError" if timeout is None else "TaskTimeoutError",
        message=(CANCELLED_AND if timeout is None else f"ran longer than its timeout of {timeout:g} s and ")
        + (ENDED if ended else NOT_STOPPED),
        abandoned=not ended,
    )


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log record of user code. `seq` counts from 0 within one execution of a batch."""

    seq: int
    position: int  # item of the batch
    stage: int
    at: float  # seconds since the epoch
    level: int
    logger: str
    message: str


@dataclass(frozen=True, slots=True)
class Table:
    """The record of one execution of a batch, in columns.

    Columns have one entry per item and stage: entry `position * n_stages + stage`.
    """

    batch_id: int
    execution_id: str  # minted on the worker when the batch's first item starts
    worker: str
    started: float  # seconds since the epoch, on the worker's clock
    outcomes: bytes  # Outcome values
    offsets: array[float]  # 'd': seconds from `started` to the item's start
    durations: array[float]  # 'd': seconds of user code
    details: Mapping[int, Detail] = field(default_factory=dict)  # by column entry; sparse
    lengths: Mapping[int, int] = field(default_factory=dict)  # len() of results that may be mapped over
    logs: Sequence[LogLine] = ()
    stored: tuple[Stored | None, ...] = ()  # one per stage where results were persisted, else empty
    names: Mapping[int, str] = field(default_factory=dict)  # task run names rendered on the worker
    cpu_seconds: float = 0.0
    logs_dropped: int = 0  # lines that were only sent live, because the batch wrote too many
    moved_bytes: int = 0  # pickled arguments and results, copied inputs; 0 where all stay in the process
    missing: Sequence[int] = ()  # batches of `inputs` whose results were not there, or not whole
    missing_files: Sequence[str] = ()  # addresses of stored `inputs` that are gone or not what was written
    results: bytes = b""  # small results, which the engine has as well: `PackedResults.small`


# --- events: worker -> runner -> sink ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """The runner now has room for `slots` batches at a time."""

    slots: int


@dataclass(frozen=True, slots=True)
class BatchStarted:
    """A hint: a worker has begun a batch."""

    batch_id: int
    execution_id: str
    worker: str
    at: float


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """A hint: how far an execution is. Entries before `entry` have ended, `entry` runs since `since`.

    With `closed` it is a promise: the batch's deadline is over, and nothing after `entry` will start.
    """

    batch_id: int
    execution_id: str
    worker: str
    entry: int  # column entry (see Table) that runs now
    since: float  # seconds since the epoch
    outcomes: bytes = b""  # of entries 0..len-1, as far as ended
    details: Mapping[int, Detail] = field(default_factory=dict)
    logs: Sequence[LogLine] = ()
    closed: bool = False


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """The record of a batch. Its results stay on the engine until fetched or released."""

    table: Table


@dataclass(frozen=True, slots=True)
class BatchLost:
    """The engine has lost a batch: no table will come.

    `suspect` says that the batch was running on what died; without it the batch was only queued there.
    """

    batch_id: int
    reason: str
    suspect: bool = True


@dataclass(frozen=True, slots=True)
class ResultsLost:
    """Results of finished batches are gone from the engine.

    What still needs them will have them made again. Results that the engine makes again by itself are not lost.
    """

    batch_ids: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class BatchRejected:
    """The engine can never run this batch (it cannot be sent): a user's mistake, not a loss."""

    batch_id: int
    detail: Detail


@dataclass(frozen=True, slots=True)
class Call:
    """A request from user code on a worker to the flow's process, answered by `TaskRunner.answer`.

    Workers repeat a call until it is answered, so handling must be idempotent by `call_id`.
    """

    call_id: str
    batch_id: int
    execution_id: str
    entry: int
    kind: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class RunnerFailed:
    """The engine is gone and with it all batches; the run cannot go on with this runner."""

    reason: str


Event = (
    SlotsChanged
    | BatchStarted
    | BatchProgress
    | BatchFinished
    | BatchLost
    | ResultsLost
    | BatchRejected
    | Call
    | RunnerFailed
)
