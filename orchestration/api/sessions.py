"""The way from user code to a run's driver: in the flow's process directly, from workers by calls."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from runners.body import TaskBody
from runners.context import current_item
from runners.elements import length
from runners.errors import ResultFileLostError
from runners.messages import Batch, Call

from ..core.events import CancelRequested, FuturesDropped, LengthsLearned, NodeSubmitted, PermitAsked
from ..core.ledger import positions_in
from ..core.records import INLINE, MAIN, Node, NodeSpec, Policy, Reach, Recovered
from ..core.states import UNSUCCESSFUL
from ..core.states import State as TaskState
from ..driver.outcomes import in_words
from ..driver.packing import NodePayload
from ..errors import DependencyError, UserError
from .fetching import Fetching, stored_values
from .futures import Hold, TaskRunFuture
from .outcome_lists import Outcomes
from .slots import lend, lends_here
from .standing import standing
from .states import State

if TYPE_CHECKING:
    from ..driver.loop import Driver
    from ..stores.base import RecoveredNode
    from .requests import NodeRequest
    from .tasks import Task

log = logging.getLogger("millrace")


class Session(Protocol):
    """What futures and tasks need of a run. `indices` None means all items of the node."""

    run_id: str

    def submit(self, request: NodeRequest) -> int: ...
    def hold(self, node_id: int) -> Hold | None: ...
    def call(self, request: NodeRequest) -> State: ...
    def wait(self, node_id: int, indices: Sequence[int] | None, timeout: float | None) -> bool: ...
    def results(self, node_id: int, indices: Sequence[int], errors_only: bool = False) -> Outcomes: ...
    def state(self, node_id: int, index: int) -> State: ...
    def standing(self, node_id: int, indices: Sequence[int] | None, within: float) -> str: ...
    def unsuccessful(self, node_id: int, indices: Sequence[int]) -> Sequence[int]: ...
    def width(self, node_id: int, *, wait: bool) -> int | None: ...
    def cancel(self, node_id: int, indices: Sequence[int] | None) -> None: ...
    def when_done(self, node_id: int, index: int, action: Callable[[], Any]) -> None: ...
    def watch(self, future: TaskRunFuture, ended: queue.SimpleQueue[Any]) -> None: ...
    def from_queue(
        self, ended: queue.SimpleQueue[Any], waiting: Iterable[TaskRunFuture], timeout: float | None
    ) -> Any: ...


class Defaults(Protocol):
    """What a flow gives its tasks where they do not say themselves."""

    @property
    def persist_results(self) -> bool: ...
    @property
    def result_storage(self) -> str: ...
    @property
    def result_serializer(self) -> str: ...
    @property
    def log_prints(self) -> bool: ...


# The run whose flow function the current thread or asyncio task executes.
current_session: ContextVar[LocalSession | None] = ContextVar("millrace_session", default=None)

_local: dict[str, LocalSession] = {}


def active_session() -> Session | None:
    """Return the session of the run that the calling code is part of, or None."""
    item = current_item.get()
    if item is not None:
        here = _local.get(item.run.run_id)
        if here is not None and lends_here(item.channel):
            return here
        from .remote import remote_session

        return remote_session(item)
    return current_session.get()


def local_session(run_id: str) -> LocalSession | None:
    """Return the session of a run of this process."""
    return _local.get(run_id)


def session_of(run_id: str) -> Session:
    """Return a way to a run, for futures that arrive from elsewhere."""
    active = active_session()  # first: a worker in this process, too, must lend its slot when it waits
    if active is not None and active.run_id == run_id:
        return active
    here = _local.get(run_id)
    if here is not None:
        return here
    raise UserError(f"a future of run {run_id} was used where that run cannot be reached from")


class LocalSession:
    """A run whose driver is in this process."""

    def __init__(
        self,
        run_id: str,
        driver: Driver,
        defaults: Defaults,
        *,
        recovered: Mapping[str, RecoveredNode],
        first_node_id: int = 0,
    ) -> None:
        from .inline import Inline

        self.run_id = run_id
        self.driver = driver
        self.defaults = defaults
        self.tasks: dict[int, Task[Any, Any]] = {}  # by node, for hooks and state names
        self.hooked: set[int] = set()  # nodes of tasks with hooks
        self.submitted: list[int] = []  # nodes, also those that the driver has not taken yet
        self.inline = Inline(self)
        self.fetching = Fetching(self)
        self.permits: dict[str, queue.SimpleQueue[bytes]] = {}
        self._recovered = recovered
        self._ids = itertools.count(first_node_id)
        self._ordinals: dict[str, int] = {}
        self._paths: dict[int, str] = {}  # by node; the driver learns of nodes later
        self._bodies: dict[tuple[int, frozenset[str]], TaskBody] = {}
        self._policies: dict[tuple[int, Any], tuple[Policy, Mapping[str, Any]]] = {}
        self._drop: Callable[[int], object] = lambda node_id: driver.inbox.leave(FuturesDropped(node_id))
        self._unmeasured: dict[
            int, Recovered
        ] = {}  # single results of earlier processes that nobody maps over yet
        self._lock = threading.Lock()
        self.closed = False
        _local[run_id] = self

    def close(self) -> None:
        self.closed = True
        _local.pop(self.run_id, None)

    # --- submitting -----------------------------------------------------------------------------

    def submit(self, request: NodeRequest, on_batch: Callable[[Batch | None], None] | None = None) -> int:
        """Record a node and return its id; the coordinator hears of it at its next turn.

        Args:
            on_batch: takes the batches of a task that a worker has called directly.
        """
        task, inline = request.task, request.kind == "call"
        self._check(request)
        with self._lock:
            node_id = next(self._ids)
            path = self._paths[node_id] = self._path(request)
            body = self._body(task, request.tags)
            policy, described = self._policy(task, request.options)
        self.tasks[node_id] = task
        if task.has_hooks():
            self.hooked.add(node_id)
        args, kwargs, options = request.args, request.kwargs, request.options
        payload = NodePayload(body, args, kwargs, request.shared, request.picked, options)
        self.driver.packer.add(node_id, payload)
        fingerprint = self._fingerprint(request, body)
        recovered = self._recover(path, fingerprint, request, body)
        if inline and recovered is not None:
            recovered = self.inline.take_over(node_id, path, recovered, policy)
        if recovered is not None and recovered.results and recovered.width == 1:
            self._unmeasured[node_id] = recovered
        for dependency in request.dependencies:
            if dependency.reach is Reach.ELEMENTS:
                self._measure(dependency.node_id)
        spec = NodeSpec(
            node_id=node_id,
            path=path,
            task_name=task.name,
            kind=request.kind,
            width=request.width,
            policy=policy,
            dependencies=request.dependencies,
            tags=request.tags,
            fingerprint=fingerprint,
            described=described,
            parent=request.parent,
            runner=INLINE if inline else MAIN,
            recovered=recovered,
            placement=repr(sorted(options.items())) if options else "",
            persists=body.persist,
        )
        if inline:
            self.inline.expect(node_id, on_batch)
        self.driver.post(NodeSubmitted(spec))
        self.submitted.append(
            node_id
        )  # after it: nobody may wait for what an interrupt kept from being posted
        return node_id

    def hold(self, node_id: int) -> Hold | None:
        """Return what the futures of a node share, so that its results are released with the last of them."""
        if node_id in self.hooked:  # which may ask for results at any time
            return None
        return Hold(node_id, self._drop)

    def call(self, request: NodeRequest) -> State:
        """Run a task here and now; return its final state."""
        node_id = self.submit(request)
        self.inline.run(node_id)
        return self.called(node_id)

    def called(self, node_id: int) -> State:
        """Return the state of a task that was called, with its result, which only the caller has use for."""
        state = self.state(node_id, 0)
        taken = self.inline.taken_over(node_id)
        value, error = self.results(node_id, (0,), errors_only=bool(taken))[0]
        value = taken[0] if taken else value
        self.inline.forget(node_id)

        def data() -> Any:
            if error is not None:
                raise error.with_traceback(None)
            return value

        future = TaskRunFuture(self, node_id, 0)
        return State(state.type, state.name, state.message, data).of(future, at_hand=True)

    def forget_ordinals(self, recovered: Mapping[str, RecoveredNode]) -> None:
        """The flow function starts again: its tasks are counted from the beginning."""
        with self._lock:
            self._ordinals.clear()
            self._recovered = recovered
            self.driver.packer.keeps = self.driver.packer.keeps or bool(recovered)

    def _path(self, request: NodeRequest) -> str:
        base = request.task.name
        if request.parent is not None:
            base = f"{self._node_path(request.parent[0])}[{request.parent[1]}]/{base}"
        ordinal = self._ordinals.get(base, 0)
        self._ordinals[base] = ordinal + 1
        return f"{base}-{ordinal}"

    def _body(self, task: Task[Any, Any], tags: frozenset[str]) -> TaskBody:
        key = (id(task), tags)
        if key not in self._bodies:
            self._bodies[key] = task.body(tags, self.defaults)
        return self._bodies[key]

    def _policy(self, task: Task[Any, Any], options: Mapping[str, Any]) -> tuple[Policy, Mapping[str, Any]]:
        """Return what the coordinator needs to know of a task, and that for the record; once for all its nodes."""
        key = (id(task), options.get("priority"))
        if key not in self._policies:
            self._policies[key] = task.policy(options), task.described()
        return self._policies[key]

    def _fingerprint(self, request: NodeRequest, body: TaskBody) -> str:
        """Return what tells on resume whether code or arguments have changed; "" where nothing is stored."""
        if not body.persist:
            return ""
        from .fingerprints import fingerprint_of

        return fingerprint_of(request, body, self._node_path)

    def _node_path(self, node_id: int) -> str:
        return self._paths.get(node_id) or str(node_id)

    def _recover(self, path: str, fingerprint: str, request: NodeRequest, body: TaskBody) -> Recovered | None:
        """Return what an earlier process left of a node: of equal code and arguments the results, too."""
        found = self._recovered.get(path)
        if found is None:
            return None
        width = found.width
        if found.fingerprint != fingerprint and self._begins_with(found, request, body):
            width = request.width  # items keep their indices
        elif found.fingerprint != fingerprint:
            if found.results:
                log.warning(
                    "%s has other code or arguments than when its results were stored: they are not used",
                    path,
                )
            return Recovered(attempts=found.attempts, started=found.started, width=found.width)
        return Recovered(
            attempts=found.attempts,
            results=found.results,
            started=found.started,
            skipped=found.skipped if fingerprint or found.started else frozenset(),
            width=width,
        )

    def _begins_with(self, found: RecoveredNode, request: NodeRequest, body: TaskBody) -> bool:
        """Whether a map is over the recorded items and more after them."""
        if not found.fingerprint or found.width is None or request.width is None:
            return False
        if not 0 < found.width < request.width:
            return False
        from .fingerprints import first_items

        return self._fingerprint(first_items(request, found.width), body) == found.fingerprint

    def measures(self, request: NodeRequest) -> bool:
        """Whether submitting this reads what an earlier process has stored, which may have to be made again first."""
        return any(d.reach is Reach.ELEMENTS and d.node_id in self._unmeasured for d in request.dependencies)

    def _measure(self, node_id: int) -> None:
        """Tell the length of a result that an earlier process stored: somebody maps over it."""
        recovered = self._unmeasured.pop(node_id, None)
        if recovered is None:
            return
        try:
            values = stored_values(recovered)
        except ResultFileLostError:  # it is made again
            self.wait(node_id, (0,), None)
            values = {0: self._value(node_id, 0)}
        lengths = {i: n for i, value in values.items() if (n := length(value)) is not None}
        self.driver.post(LengthsLearned(node_id, lengths))

    def _check(self, request: NodeRequest) -> None:
        if self.closed:
            raise UserError(f"{request.task.name!r} was submitted after its flow run had ended")
        if request.kind != "call":
            self.driver.runner.check_options(request.options)
        if request.parent is None:
            request.parent = _parent(self.run_id)
        self._check_circle(request)

    def _check_circle(self, request: NodeRequest) -> None:
        """Refuse what would wait for the task run that submits it, or for one above that."""
        above = request.parent
        while above is not None:
            for dependency in request.dependencies:
                members = dependency.indices
                if dependency.node_id == above[0] and (members is None or above[1] in members):
                    raise DependencyError(
                        f"{request.task.name!r} would wait for {self._node_path(above[0])}, which is waiting for it. "
                        "Remove that future from its arguments or wait_for."
                    )
            node = self._node(above[0])
            above = node.spec.parent if node is not None else None

    # --- asking ---------------------------------------------------------------------------------

    def wait(self, node_id: int, indices: Sequence[int] | None, timeout: float | None) -> bool:
        """Wait until items have ended. Inside a task run, its slot is lent meanwhile."""
        board = self.driver.board
        item = current_item.get()
        done = board.all_done(node_id, indices)

        def ready() -> bool:  # an interrupted task run stops waiting; what it is told comes when it lets go
            return done() or (item is not None and item.execution.interrupted is not None)

        if done():
            return True
        if board.failure is not None:
            raise board.failure
        if timeout == 0:
            return False
        self._give_way(node_id, indices)
        self.lent(lambda: board.wait(ready, timeout, patient=True))
        return done()

    def _give_way(self, node_id: int, indices: Sequence[int] | None) -> None:
        item = current_item.get()
        if item is not None and item.run.run_id == self.run_id:
            item.execution.give_way(node_id, indices)

    def lent(self, action: Callable[[], Any]) -> Any:
        """Run a blocking action; inside a task run of this process, with its slot lent to others."""
        item = current_item.get()
        if item is None or item.run.run_id != self.run_id or not lends_here(item.channel):
            return action()
        batch_id = item.batch_id
        with item.execution.listening(self.driver.board.poke), lend(item.channel):
            self.driver.lend(batch_id)
            try:
                return action()
            finally:
                self.driver.reclaim(batch_id)

    def results(self, node_id: int, indices: Sequence[int], errors_only: bool = False) -> Outcomes:
        """Return (value, exception) of items that have ended."""
        return self.fetching.outcomes(node_id, indices, errors_only)

    def state(self, node_id: int, index: int) -> State:
        node = self._node(node_id)
        if node is None or not node.opened or index >= node.width:
            return State("Pending")
        state = node.state(index)
        data: Callable[[], Any] | None = None
        if state in (TaskState.COMPLETED, TaskState.SKIPPED) or state >= TaskState.FAILED:
            data = lambda: self._value(node_id, index)  # noqa: E731
        return State(state.title, node.names.get(index) or "", in_words(node, index), data)

    def standing(self, node_id: int, indices: Sequence[int] | None, within: float) -> str:
        """Say how items stand that have not ended `within` seconds."""
        return standing(self, node_id, indices, within)

    def unsuccessful(self, node_id: int, indices: Sequence[int]) -> Sequence[int]:
        """Return the positions in `indices` of items that are neither Completed nor Skipped."""
        node = self._node(node_id)
        if node is None or not node.opened:
            return range(len(indices))
        if isinstance(indices, range) and indices.step == 1 and indices.stop <= node.width:
            return positions_in(node.states[indices.start : indices.stop], UNSUCCESSFUL)
        states, width = node.states, node.width
        return [k for k, index in enumerate(indices) if index >= width or states[index] in UNSUCCESSFUL]

    def _value(self, node_id: int, index: int) -> Any:
        value, error = self.results(node_id, (index,))[0]
        if error is not None:
            raise error.with_traceback(None)  # it may be raised before and after: its frames must not pile up
        return value

    def width(self, node_id: int, *, wait: bool) -> int | None:
        def known() -> bool:
            node = self._node(node_id)
            return node is not None and node.opened

        if not known():
            if not wait:
                return None
            self.lent(lambda: self.driver.board.wait(known))
        node = self._node(node_id)
        return None if node is None else node.width

    # --- acting ---------------------------------------------------------------------------------

    def cancel(self, node_id: int, indices: Sequence[int] | None) -> None:
        self.driver.post(CancelRequested(node_id, None if indices is None else frozenset(indices)))

    def when_done(self, node_id: int, index: int, action: Callable[[], Any]) -> None:
        def safely() -> None:
            try:
                action()
            except Exception:
                log.exception("a done callback of task run %s/%s/%s failed", self.run_id, node_id, index)

        self.driver.board.when_ended(node_id, index, safely)

    def watch(self, future: TaskRunFuture, ended: queue.SimpleQueue[Any]) -> None:
        """Put a future into a queue when it has ended."""
        self.driver.board.when_ended(future.node_id, future.index, lambda: ended.put(future))

    def from_queue(
        self, ended: queue.SimpleQueue[Any], waiting: Iterable[TaskRunFuture], timeout: float | None
    ) -> Any:
        """Return the next future of `as_completed`."""
        if ended.empty():
            for future in waiting:
                self._give_way(future.node_id, (future.index,))
            self.lent(lambda: self.driver.board.wait(lambda: not ended.empty(), timeout))
        return ended.get_nowait()

    def ask_permit(self, call: Call) -> bytes:
        """Ask the core whether an inline item may start."""
        call_id = f"inline/{call.batch_id}/{call.entry}"
        answered: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.permits[call_id] = answered
        self.driver.post(PermitAsked(call_id, call.batch_id, call.execution_id, call.entry))
        try:
            return answered.get()
        finally:
            del self.permits[call_id]

    def answer(self, call_id: str, reply: bytes) -> None:
        """Hand a permit to an inline item, or to the runner whose worker asked for it."""
        if call_id in self.permits:
            self.permits[call_id].put(reply)
        else:
            self.driver.runner.answer(call_id, reply)

    def wait_all(self, timeout: float | None = None) -> bool:
        """Wait until every node has ended."""
        submitted, board, at = self.submitted, self.driver.board, 0

        def ready() -> bool:
            nonlocal at
            while at < len(submitted) and board.done(submitted[at], None):
                at += 1
            return at == len(submitted)

        return board.wait(ready, timeout, patient=True)

    def _node(self, node_id: int) -> Node | None:
        return self.driver.core.nodes.get(node_id)


def _parent(run_id: str) -> tuple[int, int] | None:
    item = current_item.get()
    return (item.node_id, item.index) if item is not None and item.run.run_id == run_id else None
