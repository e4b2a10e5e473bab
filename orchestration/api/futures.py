"""Futures of task runs: light handles on (node, index), whose state is looked up when somebody asks."""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast, overload

from runners.arguments import Ref
from runners.context import current_item

from ..errors import UserError
from .standing import all_standing
from .states import State

if TYPE_CHECKING:
    from .outcome_lists import Outcome, Outcomes
    from .sessions import Session


class Hold:
    """Lives as long as user code may ask for results of a node; all futures of the node share it."""

    __slots__ = ("_drop", "_node_id")

    def __init__(self, node_id: int, drop: Callable[[int], object]) -> None:
        self._node_id = node_id
        self._drop: Callable[[int], object] | None = drop

    def keep(self) -> None:
        """The futures have left this process: who knows when they come back."""
        self._drop = None

    def __del__(self) -> None:
        if self._drop is not None:
            self._drop(self._node_id)


class TaskRunFuture:
    """The result of a task run, now or later.

    Equal futures name the same task run. A future may be passed to other tasks (also inside lists, dicts,
    dataclasses), where it arrives as its value.
    """

    __slots__ = ("_hold", "_outcome", "_session", "index", "node_id", "run_id")

    def __init__(
        self,
        session: Session,
        node_id: int,
        index: int,
        outcome: Outcome | None = None,
        hold: Hold | None = None,
    ) -> None:
        self._session = session
        self._hold = hold
        self._outcome = outcome  # once fetched, kept: also for after the run
        self.run_id = session.run_id
        self.node_id = node_id
        self.index = index

    @property
    def task_run_id(self) -> str:
        """`RUN/NODE/INDEX`: unique over all runs of a store."""
        return f"{self.run_id}/{self.node_id}/{self.index}"

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """Wait for the task run and return its result.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
            Exception: what the task raised, with the remote traceback as `__cause__`.
        """
        if self._outcome is None:
            self._wait(timeout)
            self._outcome = self._session.results(self.node_id, (self.index,))[0]
        value, error = self._outcome
        if error is None:
            return value
        error = error.with_traceback(None)  # frames of earlier raises must not pile up
        if raise_on_failure:
            raise error
        return error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the task run and return its exception, or None if it has none."""
        if self._outcome is not None:
            return self._outcome[1]
        self._wait(timeout)
        return self._session.results(self.node_id, (self.index,), errors_only=True)[0][1]

    def _wait(self, timeout: float | None) -> None:
        if not self._session.wait(self.node_id, (self.index,), timeout):
            raise TimeoutError(self._session.standing(self.node_id, (self.index,), timeout or 0.0))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the task run has ended; False after `timeout` seconds."""
        return self._session.wait(self.node_id, (self.index,), timeout)

    @property
    def state(self) -> State:
        return self._session.state(self.node_id, self.index).of(self)

    def done(self) -> bool:
        return self._session.wait(self.node_id, (self.index,), 0)

    def cancel(self) -> bool:
        """Ask for the task run to be cancelled. Returns False if it has ended already."""
        if self.done():
            return False
        self._session.cancel(self.node_id, (self.index,))
        return True

    def cancelled(self) -> bool:
        return self.state.is_cancelled()

    def add_done_callback(self, fn: Callable[[TaskRunFuture], Any]) -> None:
        """Call `fn(self)` when the task run has ended; at once if it has. What it raises is logged."""
        self._session.when_done(self.node_id, self.index, lambda: fn(self))

    def ref(self) -> Ref:
        return Ref(self.node_id, self.index)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        from .awaiting import in_thread, told

        if (
            current_item.get() is None
        ):  # a task run has a slot to lend while it waits, and needs a thread for it
            await told(self.add_done_callback)
        return await in_thread(self.result)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskRunFuture) and self.task_run_id == other.task_run_id

    def __hash__(self) -> int:
        return hash((self.run_id, self.node_id, self.index))

    def __repr__(self) -> str:
        with suppress(UserError):
            return f"TaskRunFuture({self.task_run_id}, {self.state.name})"
        return f"TaskRunFuture({self.task_run_id})"  # its run cannot be reached from here

    def __reduce__(self) -> Any:
        if self._hold is not None:
            self._hold.keep()
        return _restore, (self.run_id, self.node_id, self.index)


class States(Sequence[State]):
    """The states of a list of futures, by index; `counts` says how many there are of each."""

    def __init__(self, futures: TaskRunFutureList) -> None:
        self._futures = futures

    @property
    def counts(self) -> dict[str, int]:
        """Number of task runs by state name."""
        return dict(Counter(state.type for state in self))

    def __len__(self) -> int:
        return len(self._futures)

    @overload
    def __getitem__(self, at: int) -> State: ...
    @overload
    def __getitem__(self, at: slice) -> list[State]: ...
    def __getitem__(self, at: int | slice) -> State | list[State]:
        if isinstance(at, slice):
            return [future.state for future in self._futures[at]]
        return self._futures[at].state

    def __repr__(self) -> str:
        return f"States({self.counts})"


class TaskRunFutureList(Sequence[TaskRunFuture]):
    """The futures of a map, made when looked at; slices share.

    Its length may not be known before an upstream result has arrived: `len`, indexing and iterating wait for it.
    """

    __slots__ = ("_hold", "_outcomes", "_session", "indices", "node_id", "run_id")

    def __init__(
        self,
        session: Session,
        node_id: int,
        indices: Sequence[int] | None = None,
        outcomes: Outcomes | None = None,
        hold: Hold | None = None,
    ) -> None:
        self._session = session
        self._hold = hold
        self._outcomes = outcomes  # once fetched, kept: also for after the run
        self.run_id = session.run_id
        self.node_id = node_id
        self.indices = indices  # None: all items of the node

    def known_width(self) -> int | None:
        """Return the length if it is known by now."""
        return (
            len(self.indices) if self.indices is not None else self._session.width(self.node_id, wait=False)
        )

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[Any]:
        """Wait for all and return their results in order. Raises the first failure in order, as `result` does."""
        if self._outcomes is None:
            if not self.wait(timeout):
                raise TimeoutError(self._session.standing(self.node_id, self.indices, timeout or 0.0))
            self._outcomes = self._session.results(self.node_id, self._members())
        return self._outcomes.results(raise_on_failure=raise_on_failure)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all have ended; False after `timeout` seconds."""
        return self._session.wait(self.node_id, self.indices, timeout)

    def done(self) -> bool:
        return self.wait(0)

    @property
    def states(self) -> States:
        return States(self)

    def unsuccessful(self) -> list[State]:
        """Return the states of those that are neither Completed nor Skipped, in order."""
        members = self._members()
        return [self[at].state for at in self._session.unsuccessful(self.node_id, members)]

    def cancel(self) -> None:
        """Ask for all that have not ended to be cancelled."""
        self._session.cancel(self.node_id, self.indices)

    def ref(self) -> Ref:
        return Ref(self.node_id, None, self.indices)

    def _members(self) -> Sequence[int]:
        return range(len(self)) if self.indices is None else self.indices

    def __len__(self) -> int:
        if self.indices is not None:
            return len(self.indices)
        width = self._session.width(self.node_id, wait=True)
        assert width is not None, "waiting for a width gives one"
        return width

    @overload
    def __getitem__(self, at: int) -> TaskRunFuture: ...
    @overload
    def __getitem__(self, at: slice) -> TaskRunFutureList: ...
    def __getitem__(self, at: int | slice) -> TaskRunFuture | TaskRunFutureList:
        known = self._outcomes
        if isinstance(at, slice):
            cut = None if known is None else known[at]
            return TaskRunFutureList(self._session, self.node_id, self._members()[at], cut, self._hold)
        return self._at(self._members()[at], None if known is None else known[at])

    def __iter__(self) -> Iterator[TaskRunFuture]:
        for at, index in enumerate(self._members()):
            known = self._outcomes
            yield self._at(index, None if known is None else known[at])

    def _at(self, index: int, outcome: Outcome | None) -> TaskRunFuture:
        return TaskRunFuture(self._session, self.node_id, index, outcome, self._hold)

    def __await__(self) -> Generator[Any, None, list[Any]]:
        from .awaiting import in_thread

        return in_thread(self.result).__await__()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskRunFutureList):
            return False
        mine, theirs = (self.run_id, self.node_id), (other.run_id, other.node_id)
        return mine == theirs and list(self._members()) == list(other._members())

    def __hash__(self) -> int:
        return hash((self.run_id, self.node_id))

    def __repr__(self) -> str:
        width = None
        with suppress(UserError):  # its run cannot be reached from here
            width = self.known_width()
        return f"TaskRunFutureList({self.run_id}/{self.node_id}, {'?' if width is None else width} task runs)"

    def __reduce__(self) -> Any:
        if self._hold is not None:
            self._hold.keep()
        return _restore_list, (self.run_id, self.node_id, self.indices)


def fetch_together(
    futures: Iterable[TaskRunFuture], fetch: Callable[[Sequence[tuple[int, int]]], Iterable[Outcome]]
) -> None:
    """Let futures that have ended have their results, which takes less time than one after the other.

    Args:
        fetch: returns the outcomes of (node, index), in order.
    """
    due = [future for future in futures if future._outcome is None]
    outcomes = fetch([(future.node_id, future.index) for future in due])
    for future, outcome in zip(due, outcomes, strict=True):
        future._outcome = outcome


class DoneAndNotDone(NamedTuple):
    """What `wait` returns."""

    done: set[TaskRunFuture]
    not_done: set[TaskRunFuture]


def flatten(futures: Any) -> list[TaskRunFuture]:
    """Return single futures for a mixture of futures and lists.

    Raises:
        UserError: there is something else among them.
    """
    if isinstance(futures, TaskRunFuture):
        return [futures]
    flat: list[TaskRunFuture] = []
    future: Any
    for future in futures if isinstance(futures, Iterable) else (futures,):
        if isinstance(future, TaskRunFuture):
            flat.append(future)
        elif isinstance(future, Iterable) and not isinstance(future, str):
            flat.extend(flatten(future))
        else:
            raise UserError(f"{future!r} is no future; what is waited for are futures and lists of them")
    return flat


def as_completed(
    futures: Iterable[TaskRunFuture | TaskRunFutureList], timeout: float | None = None
) -> Iterator[TaskRunFuture]:
    """Yield futures as they end, each once, however they end.

    Raises:
        TimeoutError: not all have ended within `timeout` seconds after the first `next`.
    """
    waiting = dict.fromkeys(flatten(futures))
    total = len(waiting)
    deadline = None if timeout is None else time.monotonic() + timeout
    ended: queue.SimpleQueue[TaskRunFuture] = queue.SimpleQueue()
    for future in waiting:
        future._session.watch(future, ended)
    while waiting:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            future = next(iter(waiting))._session.from_queue(ended, waiting, left)
        except queue.Empty:
            raise TimeoutError(all_standing(waiting, total, timeout or 0.0)) from None
        if future in waiting:
            del waiting[future]
            yield future


def wait(
    futures: Iterable[TaskRunFuture | TaskRunFutureList],
    timeout: float | None = None,
    return_when: str = "ALL_COMPLETED",
) -> DoneAndNotDone:
    """Wait for futures; return who has ended and who has not, as `concurrent.futures.wait` does.

    Args:
        return_when: "ALL_COMPLETED", "FIRST_COMPLETED" or "FIRST_EXCEPTION".

    Raises:
        UserError: `return_when` is none of these, or something is no future.
    """
    if return_when not in (ways := ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION")):
        raise UserError(f"return_when is {return_when!r}; it must be one of {', '.join(map(repr, ways))}")
    flat = flatten(futures)
    done: set[TaskRunFuture] = set()
    try:
        for future in as_completed(flat, timeout):
            done.add(future)
            state = future.state
            if return_when == "FIRST_COMPLETED":
                break
            if return_when == "FIRST_EXCEPTION" and not state.is_successful():
                break
    except TimeoutError:
        pass  # who has not ended is in the answer
    done |= {future for future in flat if future.done()}
    return DoneAndNotDone(done, set(flat) - done)


class LaterSession:
    """The session of a future that has travelled: looked for when the future is used, not when it arrives."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def __getattr__(self, name: str) -> Any:
        from .sessions import session_of

        return getattr(session_of(self.run_id), name)


def _restore(run_id: str, node_id: int, index: int) -> TaskRunFuture:
    return TaskRunFuture(cast("Session", LaterSession(run_id)), node_id, index)


def _restore_list(run_id: str, node_id: int, indices: Sequence[int] | None) -> TaskRunFutureList:
    return TaskRunFutureList(cast("Session", LaterSession(run_id)), node_id, indices)
