"""For driving a runner through its port without a flow: batches made by hand, and events as they come."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cloudpickle
import pytest

from runners import codec
from runners.arguments import Arguments, Column, Ref, Static
from runners.base import QueueSink, TaskRunner
from runners.body import TaskBody
from runners.context import RunContext
from runners.messages import Batch, BatchFinished, BatchLost, BatchRejected, Input, Payload, Stage, Table

END = (BatchFinished, BatchLost, BatchRejected)


def _payload(value: Any, module: str, *, cached: bool = False) -> Payload:
    """Pickle by value what is of a test module: workers cannot import those."""
    cloudpickle.register_pickle_by_value(sys.modules[module])
    try:
        return codec.dump_payload(value, cached=cached)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[module])


class Port:
    """A started runner, its events so far, and short ways to make batches and to wait for what comes."""

    def __init__(self, runner: TaskRunner, sink: QueueSink) -> None:
        self.runner = runner
        self.sink = sink
        self.events: list[Any] = []
        self.run_id = uuid.uuid4().hex
        self._next = 0

    def batch(
        self,
        fn: Callable[..., Any],
        values: Sequence[Any] = (None,),
        *,
        inputs: Sequence[Batch] = (),
        timeout: float | None = None,
        options: Mapping[str, Any] | None = None,
        permit: bool = False,
        deadline: float | None = None,
    ) -> Batch:
        """A batch that calls `fn` once per value; with `inputs`, once, with the list of all their results."""
        self._next += 1
        body = TaskBody(fn, fn.__name__, log_prints=True)
        if inputs:
            values = (None,)
            refs = [Ref(100 + i) for i in range(len(inputs))]
            arguments = Arguments((Static(refs, True),))
        else:
            arguments = Arguments((Column(tuple(values)),))
        wanted = tuple(
            Input(100 + i, up.indices, tuple(range(len(up.indices))), batch_id=up.batch_id)
            for i, up in enumerate(inputs)
        )
        stage = Stage(
            1,
            fn.__name__,
            _payload(body, fn.__module__, cached=True),
            _payload(arguments, fn.__module__),
            (1,) * len(values),
            timeout_seconds=timeout,
            permit=permit,
        )
        context = codec.dump_payload(RunContext(self.run_id, "jumpy-puppy", "flow"), cached=True)
        indices = tuple(range(len(values)))
        return Batch(
            self.run_id, self._next, indices, (stage,), context, wanted, deadline, 0, dict(options or {})
        )

    def until(self, wanted: Callable[[Any], bool], timeout: float = 30, since: int = 0) -> Any:
        """Return the first event, of those from number `since` on and those to come, that is wanted."""
        seen = since
        end = time.monotonic() + timeout
        while True:
            for event in self.events[seen:]:
                if wanted(event):
                    return event
            seen = len(self.events)
            self.events.append(self.sink.get(timeout=max(0.01, end - time.monotonic())))

    def of(self, kind: type, batch: Batch, timeout: float = 30) -> Any:
        """Return the first event of a kind that is about a batch."""
        return self.until(lambda e: isinstance(e, kind) and _batch_id(e) == batch.batch_id, timeout)

    def end(self, batch: Batch, timeout: float = 30) -> Any:
        """Return how a batch ended: finished, lost or rejected."""
        return self.until(lambda e: isinstance(e, END) and _batch_id(e) == batch.batch_id, timeout)

    def table(self, batch: Batch, timeout: float = 30) -> Table:
        event = self.end(batch, timeout)
        assert isinstance(event, BatchFinished), event
        return event.table

    def run(self, batch: Batch, timeout: float = 30) -> Table:
        self.runner.submit([batch])
        return self.table(batch, timeout)

    def ends(self, batch: Batch) -> list[Any]:
        """All ends of a batch that have been told so far."""
        return [e for e in self.events if isinstance(e, END) and _batch_id(e) == batch.batch_id]


def _batch_id(event: Any) -> int | None:
    table = getattr(event, "table", None)
    return table.batch_id if table is not None else getattr(event, "batch_id", None)


@pytest.fixture(scope="session")
def open_port() -> Callable[[TaskRunner], Port]:
    """Start a runner. Whoever calls this closes the runner."""

    def start(runner: TaskRunner) -> Port:
        sink = QueueSink()
        runner.start(sink)
        return Port(runner, sink)

    return start


class Proxy:
    """Passes bytes between whoever connects to `address` and a target.

    Args:
        target: `host:port`, with or without a scheme.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition("/")[2].rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: list[socket.socket] = []
        self._lock = threading.Lock()
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections. New ones may be made."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
            except OSError:  # closed
                return
            with self._lock:
                self._links += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for link in (source, target):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def make_proxy() -> Iterator[Callable[[str], Proxy]]:
    """Give proxies to targets, which are closed after the test."""
    made: list[Proxy] = []

    def make(target: str) -> Proxy:
        made.append(Proxy(target))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()
