"""Answers what task runs on workers ask of their run: to submit, to wait, to fetch, to cancel.

A call is repeated until it is answered, so each is taken once by its id, and its answer is kept for repeats.
While a call has to wait, the slot of the task run that asked is lent to others.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from runners.codec import dumps, loads, unpack
from runners.messages import Batch, BatchFinished, Call, Table

from ..core.events import PermitAsked

if TYPE_CHECKING:
    from .requests import NodeRequest
    from .sessions import LocalSession

log = logging.getLogger("millrace.driver")

KEPT_ANSWERS = 10_000
MAX_THREADS = 32  # started as they are needed; who asks for lost results keeps one until these are there


class Gateway:
    """The flow's end of `RemoteSession`."""

    def __init__(self, session: LocalSession) -> None:
        self._session = session
        self._driver = session.driver
        self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="millrace-gateway")
        self._answers: OrderedDict[str, bytes | None] = OrderedDict()  # None: being worked on
        self._verbs: dict[str, Callable[..., Any]] = {
            "submit": session.submit,
            "results": self._results,
            "state": self._state,
            "standing": session.standing,
            "unsuccessful": session.unsuccessful,
            "width_now": lambda node_id: session.width(node_id, wait=False),
            "cancel": session.cancel,
            "call_open": self._open_call,
            "store_url": self._store_url,
        }
        self._inline: dict[int, deque[Batch | None]] = {}  # batches of nodes that workers run themselves
        self._asking: dict[int, Call] = {}  # who waits for the next of these

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def take(self, call: Call) -> None:
        """Take a call. In the driver's thread: nothing here may block."""
        if call.kind == "permit":
            self._driver.post(PermitAsked(call.call_id, call.batch_id, call.execution_id, call.entry))
            return
        if call.call_id in self._answers:
            answer = self._answers[call.call_id]
            if answer is not None:
                self._driver.runner.answer(call.call_id, answer)
            return
        if call.kind == "call_open" and call.batch_id not in self._driver.core.ledger.live:
            return  # an execution that was lost, or that Dask has started again by itself: nobody waits for its calls
        self._answers[call.call_id] = None
        while len(self._answers) > KEPT_ANSWERS:
            self._answers.popitem(last=False)
        if call.kind in ("wait", "wait_width", "wait_any"):
            self._wait(call)
        elif call.kind == "call_next":
            self._next(call)
        elif call.kind in ("acquire", "release"):
            self._limit(call)
        else:
            self._pool.submit(self._work, call)

    def _work(self, call: Call) -> None:
        try:
            args = loads(call.payload)
            with self._lent(call) if self._may_wait(call.kind, args) else contextlib.nullcontext():
                value = self._verbs[call.kind](*args)
            self._reply(call, value)
        except BaseException as error:  # it is the caller's, on the worker
            self._reply(call, error, failed=True)

    def _may_wait(self, kind: str, args: Sequence[Any]) -> bool:
        return kind == "results" or (kind in ("submit", "call_open") and self._session.measures(args[0]))

    @contextlib.contextmanager
    def _lent(self, call: Call) -> Iterator[None]:
        """Lend the slot of the caller: what it asks for may have to be made again first."""
        self._driver.lend(call.batch_id)
        try:
            yield
        finally:
            self._driver.reclaim(call.batch_id)

    def _reply(self, call: Call, value: Any, *, failed: bool = False) -> None:
        try:
            answer = dumps((failed, value))
        except Exception as error:
            answer = dumps((True, TypeError(f"the answer cannot be pickled: {error}")))
        self._answers[call.call_id] = answer
        with contextlib.suppress(Exception):  # a runner that is closing
            self._driver.runner.answer(call.call_id, answer)

    # --- waiting, without a thread per waiter -----------------------------------------------------

    def _wait(self, call: Call) -> None:
        refs, timeout = loads(call.payload)
        board = self._driver.board

        def opened(node_id: int) -> bool:
            node = self._driver.core.nodes.get(node_id)
            return node is not None and node.opened

        done: list[Callable[[], bool]]
        if call.kind == "wait_width":
            done = [partial(opened, node_id) for node_id, _ in refs]
        else:
            done = [board.all_done(node_id, indices) for node_id, indices in refs]
        enough = any if call.kind == "wait_any" else all

        def ready() -> bool:
            return not box or enough(test() for test in done)

        def answer() -> None:
            if box:
                box.pop()
                if lent:
                    self._driver.reclaim(call.batch_id)
                self._reply(call, [ref for ref, test in zip(refs, done, strict=True) if test()])

        box, lent = [call], False
        if ready() or timeout == 0 or board.failure is not None:
            answer()
            return
        lent = True
        self._driver.lend(call.batch_id)
        board.when([node_id for node_id, _ in refs], ready, answer)
        if timeout is not None:
            self._driver.timers.at(self._driver.clock.now() + timeout, answer)

    # --- limits -----------------------------------------------------------------------------------

    def _limit(self, call: Call) -> None:
        """Take limits for a block of code on a worker, or give them back."""
        leasing = self._driver.leasing
        try:
            if call.kind == "release":
                leasing.give_back_remotely(call.batch_id, *loads(call.payload))
                self._reply(call, None)
            else:
                block, timeout = loads(call.payload)
                leasing.hold_remotely(block, call.batch_id, timeout, partial(self._reply, call))
        except BaseException as error:
            self._reply(call, error, failed=True)

    # --- tasks that a worker has called directly ----------------------------------------------------

    def _open_call(self, request: NodeRequest) -> int:
        waiting: deque[Batch | None] = deque()
        known: list[int] = []

        def deliver(batch: Batch | None) -> None:  # in the driver's thread, as `_next`
            waiting.append(batch)
            if known and known[0] in self._asking:
                call = self._asking.pop(known[0])
                self._driver.reclaim(call.batch_id)
                self._hand_over(known[0], call)

        node_id = self._session.submit(request, deliver)
        known.append(node_id)
        self._inline[node_id] = waiting
        board = self._driver.board
        board.when(
            (node_id,),
            lambda: board.done(node_id, None),
            lambda: self._driver.do(lambda: self._session.inline.deliver(node_id, None)),
        )
        return node_id

    def _next(self, call: Call) -> None:
        """A worker reports the last batch of a node that it runs, and asks for the next."""
        node_id, table = loads(call.payload)
        if table is not None:
            message = unpack(table)
            assert isinstance(message, Table), "workers report tables"
            self._driver.post(BatchFinished(message))
        if self._inline[node_id]:
            self._hand_over(node_id, call)
        else:  # perhaps for long: until others have run that it waits for
            self._asking[node_id] = call
            self._driver.lend(call.batch_id)

    def _hand_over(self, node_id: int, call: Call) -> None:
        batch = self._inline[node_id].popleft()
        if batch is None:
            state = self._session.state(node_id, 0)
            error = self._session.results(node_id, (0,), errors_only=True)[0][1]
            taken = self._session.inline.taken_over(node_id)
            ended = None, [taken], (state.type, state.name, state.message, error)
            if taken:  # a stored result may take long to pickle
                self._pool.submit(self._reply, call, ended)
            else:
                self._reply(call, ended)
            del self._inline[node_id]
        else:
            self._pool.submit(self._send_batch, call, batch)

    def _send_batch(self, call: Call, batch: Batch) -> None:
        try:
            fetched = [self._session.fetching.input(source) for source in batch.inputs]
            self._reply(call, (batch, fetched, None))
        except BaseException as error:
            self._reply(call, error, failed=True)

    # --- verbs ------------------------------------------------------------------------------------

    def _results(self, node_id: int, indices: Sequence[int], errors_only: bool) -> Any:
        return self._session.results(node_id, indices, errors_only)

    def _state(self, node_id: int, index: int) -> tuple[str, str, str]:
        state = self._session.state(node_id, index)
        return state.type, state.name, state.message

    def _store_url(self, host: str) -> str | None:
        url = self._driver.journaling.store.address
        if url == "memory" or (url.startswith("sqlite") and host != socket.gethostname()):
            return None  # a file of this machine
        return url
