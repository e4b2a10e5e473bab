"""What the suite works with: a started runner, the batches it is given and the events it has told."""

from __future__ import annotations

import itertools
import queue
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from .. import codec
from ..arguments import Aligned, Arguments, Column, Source
from ..base import QueueSink, TaskRunner
from ..body import TaskBody
from ..context import RunContext
from ..messages import (
    Batch,
    BatchFinished,
    BatchLost,
    BatchProgress,
    BatchRejected,
    BatchStarted,
    Call,
    Event,
    Input,
    LogLine,
    Outcome,
    Payload,
    SlotsChanged,
    Stage,
    Table,
)

Terminal = BatchFinished | BatchLost | BatchRejected
NODE = 1  # of a batch's (first) stage; later stages count on


class Gate:
    """Holds items up: they connect and block until the gate opens or is gone."""

    def __init__(self, host: str, patience_seconds: float) -> None:
        self._server = socket.create_server((host, 0), backlog=200)
        self._server.settimeout(patience_seconds)
        self._waiting: list[socket.socket] = []
        self._patience = patience_seconds
        self.address: tuple[str, int] = self._server.getsockname()[:2]

    def await_arrivals(self, count: int = 1) -> None:
        """Wait until `count` more items run and wait here."""
        for _ in range(count):
            connection, _ = self._server.accept()
            self._waiting.append(connection)
            connection.settimeout(self._patience)
            assert connection.recv(1) == b"?", "the item went away"

    def open(self) -> None:
        """Let all pass that wait, and whoever comes later."""
        self._server.close()
        while self._waiting:
            with self._waiting.pop() as connection:
                try:
                    connection.sendall(b"!")
                except OSError:  # its process has ended
                    pass

    def await_departure(self) -> None:
        """Wait until the one who waits is gone, with its process."""
        try:
            assert self._waiting[-1].recv(1) == b""
        except ConnectionError:
            pass

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


class Bench:
    """A started runner with its sink. Waiting is on events, bounded by `patience_seconds`."""

    def __init__(self, runner: TaskRunner, patience_seconds: float, host: str = "127.0.0.1") -> None:
        self.runner = runner
        self.sink = QueueSink()
        self.run_id = f"contract-{uuid.uuid4().hex[:12]}"
        self.patience_seconds = patience_seconds
        self.events: list[Event] = []
        self._host = host
        self._ids = itertools.count(1)
        self._cleanup = ExitStack()

    def start(self) -> Bench:
        self.runner.start(self.sink)
        return self

    @property
    def in_process(self) -> bool:
        return self.runner.capabilities.in_process

    def gate(self) -> Gate:
        return self._cleanup.enter_context(Gate(self._host, self.patience_seconds))

    def open_gates(self) -> None:
        """After a test: nothing of it may hold a slot in the next."""
        self._cleanup.close()

    # --- batches --------------------------------------------------------------------------------

    def payload(self, value: Any, *, cached: bool = False) -> Payload:
        return Payload(value=value) if self.in_process else codec.dump_payload(value, cached=cached)

    def stage(
        self,
        fn: Callable[..., Any],
        args: Sequence[Source] = (),
        kwargs: Mapping[str, Source] | None = None,
        *,
        items: int,
        node_id: int = NODE,
        timeout: float | None = None,
        permit: bool = False,
        **body: Any,
    ) -> Stage:
        """Return a stage; further keywords go into its `TaskBody`."""
        name = getattr(fn, "__name__", "task")
        return Stage(
            node_id=node_id,
            task_name=name,
            body=self.payload(TaskBody(fn, name, **body), cached=True),
            arguments=self.payload(Arguments(tuple(args), kwargs or {})),
            attempts=[1] * items,
            timeout_seconds=timeout,
            permit=permit,
        )

    def batch(
        self,
        *stages: Stage,
        inputs: Sequence[Input] = (),
        indices: Sequence[int] | None = None,
        deadline: float | None = None,
        **more: Any,
    ) -> Batch:
        return Batch(
            run_id=self.run_id,
            batch_id=next(self._ids),
            indices=range(len(stages[0].attempts)) if indices is None else indices,
            stages=stages,
            context=self.payload(RunContext(self.run_id, "bench", "contract"), cached=True),
            inputs=tuple(inputs),
            deadline_seconds=deadline,
            **more,
        )

    def map(self, fn: Callable[..., Any], values: Sequence[Any], **stage: Any) -> Batch:
        """Return the batch of `fn` over `values`."""
        return self.batch(self.stage(fn, [Column(values)], items=len(values), **stage))

    def follow(self, fn: Callable[..., Any], items: int, *, node_id: int) -> Stage:
        """Return a stage whose items each take the same item's result of `node_id`."""
        return self.stage(fn, [Aligned(node_id, range(items))], items=items, node_id=node_id + 1)

    def input_of(self, batch: Batch, stage: int = 0, node_id: int = NODE) -> Input:
        """Return all results of a finished batch's stage as an input."""
        positions = range(len(batch.indices))
        return Input(node_id, batch.indices, positions, batch_id=batch.batch_id, stage=stage)

    # --- events ---------------------------------------------------------------------------------

    def submit(self, *batches: Batch) -> None:
        self.runner.submit(batches)

    def wait(self, what: str, condition: Callable[[Event], bool]) -> Event:
        """Return the first event, told before or yet to come, for which `condition` holds."""
        for event in self.events:
            if condition(event):
                return event
        end = time.monotonic() + self.patience_seconds
        while True:
            try:
                event = self.sink.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                told = "\n  ".join(map(repr, self.events[-20:]))
                raise AssertionError(
                    f"no {what} in {self.patience_seconds} s; told were:\n  {told}"
                ) from None
            self.events.append(event)
            if condition(event):
                return event

    def slots(self) -> int:
        event = self.wait("SlotsChanged", lambda e: isinstance(e, SlotsChanged) and e.slots > 0)
        assert isinstance(event, SlotsChanged)
        return event.slots

    def terminal(self, batch: Batch) -> Terminal:
        """Return the event in which a batch ends."""
        event = self.wait(f"end of batch {batch.batch_id}", lambda e: ends(e, batch))
        assert isinstance(event, Terminal)
        return event

    def table(self, batch: Batch) -> Table:
        """Return the table of a submitted batch when it has finished."""
        event = self.terminal(batch)
        assert isinstance(event, BatchFinished), event
        return event.table

    def run(self, batch: Batch) -> Table:
        self.submit(batch)
        return self.table(batch)

    def results(self, batch: Batch, stage: int = 0) -> list[Any]:
        """Run a batch that completes in all items, and fetch what they returned."""
        table = self.run(batch)
        assert outcomes(table) == [Outcome.COMPLETED] * len(table.outcomes), table.details
        return self.runner.fetch(batch.batch_id, stage, range(len(batch.indices)))

    def started(self, batch: Batch) -> BatchStarted:
        what = f"BatchStarted of batch {batch.batch_id}"
        event = self.wait(what, lambda e: isinstance(e, BatchStarted) and e.batch_id == batch.batch_id)
        assert isinstance(event, BatchStarted)
        return event

    def progress(self, batch: Batch, what: str, condition: Callable[[BatchProgress], bool]) -> BatchProgress:
        """Return the live event of a batch for which `condition` holds."""

        def matches(event: Event) -> bool:
            return isinstance(event, BatchProgress) and event.batch_id == batch.batch_id and condition(event)

        event = self.wait(f"{what} in a BatchProgress of batch {batch.batch_id}", matches)
        assert isinstance(event, BatchProgress)
        return event

    def call(self, batch: Batch) -> Call:
        what = f"Call of batch {batch.batch_id}"
        event = self.wait(what, lambda e: isinstance(e, Call) and e.batch_id == batch.batch_id)
        assert isinstance(event, Call)
        return event

    def permit(self, batch: Batch, entry: int) -> Call:
        """Return the request to start an item of a batch."""

        def matches(event: Event) -> bool:
            asked = isinstance(event, Call) and event.kind == "permit"
            return asked and event.batch_id == batch.batch_id and event.entry == entry  # type: ignore[union-attr]

        event = self.wait(f"permit call of batch {batch.batch_id}", matches)
        assert isinstance(event, Call)
        return event

    def live_lines(self, batch: Batch) -> list[LogLine]:
        """Return the log lines of a batch that have been told so far, each once."""
        lines = {}
        for event in self.events:
            if isinstance(event, BatchProgress) and event.batch_id == batch.batch_id:
                lines.update({line.seq: line for line in event.logs})
        return [lines[seq] for seq in sorted(lines)]


def ends(event: Event, batch: Batch) -> bool:
    """Whether an event is the terminal one of a batch."""
    if isinstance(event, BatchFinished):
        return event.table.batch_id == batch.batch_id
    return isinstance(event, BatchLost | BatchRejected) and event.batch_id == batch.batch_id


def outcomes(table: Table) -> list[Outcome]:
    return [Outcome(byte) for byte in table.outcomes]


def said(lines: Iterable[LogLine]) -> list[tuple[int, str]]:
    """Return the positions and texts of log lines."""
    return [(line.position, line.message) for line in lines]
