"""Tasks that are called rather than submitted: they run in the calling thread, under the same coordinator.

The thread is the worker: it takes the batches that the core forms for its node, runs them and reports tables,
until the item has ended. Retries, limits and timeouts are decided where they always are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runners.context import current_item
from runners.errors import ResultFileLostError
from runners.messages import Batch, BatchFinished, BatchProgress, BatchStarted, Call
from runners.worker import Results, run_batch

from ..driver.outcomes import exception_of
from ..errors import InternalError
from .fetching import stored_values

if TYPE_CHECKING:
    from ..core.specs import Policy, Recovered
    from .sessions import LocalSession

log = logging.getLogger("millrace")


class Inline:
    """The inline nodes of one run in the flow's process."""

    def __init__(self, session: LocalSession) -> None:
        self._session = session
        self._boxes: dict[int, queue.SimpleQueue[Batch | None]] = {}
        self._remote: dict[int, Callable[[Batch | None], None]] = {}
        self._results: dict[int, Results] = {}
        self._taken_over: dict[int, list[Any]] = {}

    def take_over(self, node_id: int, path: str, recovered: Recovered, policy: Policy) -> Recovered:
        """Read the result that an earlier process has stored of a task that is called, for its caller.

        Only the caller gets it, and at once: nobody could have it made again later. So what is of no use any more
        is found here, before the coordinator hears of the node.

        Returns:
            What is recovered of the task; without its result if the file is lost.
        """
        try:
            values = stored_values(recovered)
        except ResultFileLostError as error:
            how = "runs again" if policy.rerun_on_loss else "must not run again (rerun_on_loss=False)"
            log.warning("%s has lost its result, and %s: %s", path, how, error.reason)
            return replace(recovered, results={})
        if 0 in values:
            self._taken_over[node_id] = [values[0]]
        return recovered

    def taken_over(self, node_id: int) -> Sequence[Any]:
        """Return the result that an earlier process has stored of a task that is called: one, or none."""
        return self._taken_over.pop(node_id, ())

    def expect(self, node_id: int, remote: Callable[[Batch | None], None] | None = None) -> None:
        """Somebody is going to run this node's batches: a thread here, or a worker by way of the gateway."""
        if remote is not None:
            self._remote[node_id] = remote
        else:
            self._boxes[node_id] = queue.SimpleQueue()

    def is_remote(self, node_id: int) -> bool:
        """Whether a worker runs this node: its batches must be packed as bytes."""
        return node_id in self._remote

    def deliver(self, node_id: int, batch: Batch | None) -> None:
        """A batch of an inline node is due, or None: it has ended. Called in the driver's thread."""
        if node_id in self._remote:
            self._remote[node_id](batch)
        elif node_id in self._boxes:
            self._boxes[node_id].put(batch)
            self._session.driver.board.poke()

    def run(self, node_id: int, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Run the node's batches in this thread until it has ended.

        Args:
            loop: where coroutines of async tasks run; None gives the batch an event loop of its own.
        """
        session, box = self._session, self._boxes[node_id]
        board = session.driver.board
        board.when((node_id,), lambda: board.done(node_id, None), lambda: self.deliver(node_id, None))
        try:
            while True:
                batch = self._next(box)
                if batch is None:
                    break
                fetched = [session.fetching.input(source) for source in batch.inputs]
                channel = InlineChannel(session)
                results, table = run_batch(batch, fetched, channel, in_process=True, guest_loop=loop)
                self._results[batch.batch_id] = results
                session.driver.post(BatchFinished(table))
        finally:
            del self._boxes[node_id]
        if board.failure is not None and not board.done(node_id, None):
            raise board.failure

    def _next(self, box: queue.SimpleQueue[Batch | None]) -> Batch | None:
        if box.empty():
            board = self._session.driver.board
            self._session.lent(lambda: board.wait(lambda: not box.empty()))
        return box.get_nowait()

    def kept(self, batch_id: int) -> Results | None:
        """Return the results of an inline batch."""
        return self._results.get(batch_id)

    def forget(self, node_id: int) -> None:
        """Drop the results of a node that has ended: its caller has them."""
        node = self._session.driver.core.nodes[node_id]
        for batch_id in set(node.batches):
            self._results.pop(batch_id, None)

    def problem(self, node_id: int, index: int) -> BaseException:
        """Return why a task that was called has no result although it completed."""
        node = self._session.driver.core.nodes[node_id]
        error = exception_of(node, index, self._session.driver.core.nodes)
        if error is None:
            raise InternalError(f"{node.spec.path}[{index}] completed, but its result is nowhere")
        return error


class InlineChannel:
    """The channel of tasks that run inline in the flow's process."""

    def __init__(self, session: LocalSession) -> None:
        self._session = session
        outer = current_item.get()
        self._outer = outer.channel if outer is not None and outer.execution.in_process else None

    def emit(self, event: BatchStarted | BatchProgress) -> None:
        self._session.driver.post(event)

    def call(self, batch_id: int, execution_id: str, entry: int, kind: str, payload: bytes) -> bytes:
        """Answer permits through the core, as for all runners."""
        return self._session.ask_permit(Call("", batch_id, execution_id, entry, kind, payload))

    @contextlib.contextmanager
    def lend(self) -> Iterator[None]:
        """Give back the slot of the task run that called this one, if it has one."""
        from .slots import lend

        with lend(self._outer) if self._outer is not None else contextlib.nullcontext():
            yield
