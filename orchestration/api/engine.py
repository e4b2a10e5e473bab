"""The course of a flow run, from its parameters to its final state.

One algorithm serves sync and async flows: `_course` is a generator that yields what blocks. A sync flow calls
it; an async one awaits user code and hands the rest to a thread.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from runners import errors as runner_errors
from runners.calling import detail_of
from runners.context import current_item
from runners.main_guard import refuse_in_child

from ..core.events import CancelRequested, RunInterrupted
from ..core.journal import RunMoved
from ..core.retry import delays
from ..core.states import RUN_TERMINAL, RunState
from ..driver.loop import Write
from ..errors import (
    BackendError,
    FencedError,
    FlowTimeoutError,
    StoreError,
    UserError,
)
from ..stores import open_store
from ..stores.base import RunRow
from ..stores.lookup import completed
from .admission import wait_for_turn
from .arriving import NeverRan, checked, parameters_of, waits
from .awaiting import in_thread
from .deadlines import Deadline
from .flow_logs import flow_logging
from .flows import Flow
from .hooks import call_hook
from .interrupted import shown_short
from .outcomes import Verdict, cancelled, verdict_of
from .parameters import bind, call_arguments, validate
from .retrying import as_persistent, recorded_parameters, reusable
from .running import RunningFlow, make_runner, new_run
from .runtime import current_run
from .sessions import current_session
from .states import State, run_state

log = logging.getLogger("millrace")

R = TypeVar("R")

# The record of the run whose flow function runs here: the parent of flows called inside.
current_row: ContextVar[RunRow | None] = ContextVar("millrace_row", default=None)


@dataclass(frozen=True, slots=True)
class UserCode:
    """Yielded by `_course`: call this, and await it if it gives an awaitable."""

    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Blocking:
    """Yielded by `_course`: call this where it may block."""

    call: Callable[[], Any]
    to_the_end: bool = False  # a cancellation waits for it


Course = Generator[UserCode | Blocking, Any, State]


def run_flow(
    flow: Flow[Any, Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    return_state: bool,
    wait_for: Iterable[Any] | None = (),
) -> Any:
    """Run a flow from a call of it. Async flows give an awaitable.

    Args:
        wait_for: futures to wait for before it runs. If one of them, or one among the arguments, has failed, the flow
            never runs: that is raised, or is its state.
    """
    refuse_in_child(f"flow {flow.name!r}")
    parameters = bind(flow.fn, flow.name, args, kwargs)
    others = list(checked(wait_for))
    upstream = partial(parameters_of, flow.name, parameters, others)
    if flow.is_async and waits((parameters, others)):
        return _run_later(flow, upstream, return_state)
    try:
        return _run(flow, upstream(), return_state)
    except NeverRan as never:
        return never.ended(return_state)


async def _run_later(
    flow: Flow[Any, Any], upstream: Callable[[], Mapping[str, Any]], return_state: bool
) -> Any:
    """Run an async flow when what it waits for is there; its loop goes on meanwhile."""
    try:
        parameters = await in_thread(upstream)
    except NeverRan as never:
        return never.ended(return_state)
    return await _run(flow, parameters, return_state)


def _run(flow: Flow[Any, Any], parameters: Mapping[str, Any], return_state: bool) -> Any:
    if flow.validate_parameters:
        parameters = validate(flow.fn, flow.name, parameters)

    def make() -> RunningFlow:
        return new_run(flow, parameters, parent=current_row.get())

    return _drive(flow, partial(_in_short, make), parameters, return_state)


def resume_flow(
    flow: Flow[Any, Any], run: str, *, secrets: Mapping[str, Any] | None = None, return_state: bool
) -> Any:
    """Continue a run of a flow whose process has ended."""
    refuse_in_child(f"flow {flow.name!r}")
    store = open_store(flow.store)
    row = store.run(run)
    if row.state is RunState.COMPLETED:
        raise completed(row)
    parameters = recorded_parameters(flow, row, secrets or {})

    def make() -> RunningFlow:
        import os
        import socket

        claimed = store.claim(row.run_id, host=socket.gethostname(), pid=os.getpid(), now=store.now())
        recovered = reusable(store, row)
        return RunningFlow(
            as_persistent(flow, recovered),
            claimed,
            parameters,
            store=store,
            runner=make_runner(flow),
            recovered=recovered,
            first_ids=store.next_ids(row.run_id),
        )

    return _drive(flow, partial(_in_short, make), parameters, return_state)


def _in_short(call: Callable[[], R]) -> R:
    """Begin a run. Errors that name their cause and cure come without the hundred lines of where they come from."""
    try:
        return call()
    except (UserError, StoreError) as error:
        raise error.with_traceback(None) from None
    except (runner_errors.UserError, runner_errors.BackendError) as error:
        raise error.with_traceback(None) from error.__cause__


def _drive(
    flow: Flow[Any, Any], make: Callable[[], RunningFlow], parameters: Mapping[str, Any], return_state: bool
) -> Any:
    if flow.is_async:
        return _drive_async(_course(flow, make, parameters), return_state)
    course = _course(flow, make, parameters)
    resume: Callable[[Any], UserCode | Blocking] = course.send
    outcome: Any = None
    while True:
        try:
            order = resume(outcome)
        except StopIteration as end:
            final: State = end.value
            break
        try:
            resume, outcome = course.send, order.call()
        except BaseException as error:
            resume, outcome = course.throw, error
    return final if return_state else final.result()


async def _drive_async(course: Course, return_state: bool) -> Any:
    resume: Callable[[Any], UserCode | Blocking] = course.send
    outcome: Any = None
    while True:
        try:
            order = resume(outcome)
        except StopIteration as end:
            final: State = end.value
            break
        try:
            if isinstance(order, Blocking):
                resume, outcome = course.send, await in_thread(order.call, to_the_end=order.to_the_end)
            else:
                resume, outcome = course.send, await order.call()
        except BaseException as error:
            resume, outcome = course.throw, error
    return final if return_state else final.result()


def _course(flow: Flow[Any, Any], make: Callable[[], RunningFlow], parameters: Mapping[str, Any]) -> Course:
    """Everything that happens in a flow run, in its order."""
    run = yield Blocking(make, to_the_end=True)
    display = _display(run)
    try:
        with display:
            never: str = yield Blocking(partial(wait_for_turn, run))
            if never:
                verdict = cancelled(run, never)
            else:
                yield Blocking(partial(_in_short, run.start), to_the_end=True)
                display.started()
                verdict = yield from _attempts(flow, run, parameters)
            yield Blocking(partial(_record, run, verdict), to_the_end=True)
            display.finish(run.row, run.counts())
        yield Blocking(run.close, to_the_end=True)
        return run_state(verdict.state, verdict.name, verdict.message, verdict.data)
    except BaseException as error:
        ended_by_it = _record_crash(run, error)
        if _is_interrupt(error):
            if ended_by_it:
                display.finish(run.row, run.counts())
            shown_short(error)
        raise
    finally:
        run.close()


def _attempts(
    flow: Flow[Any, Any], run: RunningFlow, parameters: Mapping[str, Any]
) -> Generator[Any, Any, Verdict]:
    """Run the flow function, and again as long as it fails and retries are left."""
    delay = delays(flow.retry_delay_seconds)
    failures = 0
    wake = run.driver.board.poke
    deadline = Deadline(flow.timeout_seconds, flow.name, wake, is_async=flow.is_async)
    pause = 0.0
    while True:
        verdict = yield from _attempt(flow, run, parameters, deadline, pause)
        if verdict.state is not RunState.FAILED or not verdict.retriable or failures >= flow.retries:
            return verdict
        failures += 1
        pause = delay(failures)
        message = f"{verdict.message}; retry {failures} of {flow.retries} in {pause:g} s"
        yield Blocking(partial(run.move, RunState.AWAITING_RETRY, message=message), to_the_end=True)
        run.session.forget_ordinals(run.recoverable())


def _begin(run: RunningFlow, pause: float) -> bool:
    """Wait for `pause` seconds, then move to Running. Returns False if the run was cancelled meanwhile."""
    core = run.driver.core
    if pause and run.driver.board.wait(lambda: bool(core.cancelled), pause):
        return False
    run.move(RunState.RUNNING)
    _call_hooks(run, "on_running", State("Running"))
    return True


def _attempt(
    flow: Flow[Any, Any], run: RunningFlow, parameters: Mapping[str, Any], deadline: Deadline, pause: float
) -> Generator[Any, Any, Verdict]:
    """Run the flow function once, wait for its task runs, and judge."""
    try:
        args, kwargs = call_arguments(flow.fn, parameters)
        failure: Exception | None = None
        result = None
        with deadline:
            if not (yield Blocking(partial(_begin, run, pause))):
                return verdict_of(run)
            try:
                result = yield UserCode(lambda: _in_context(run, flow, args, kwargs))
            except Exception as error:
                if deadline.passed:
                    raise
                failure = error
            yield Blocking(run.session.wait_all)
        verdict: Verdict = yield Blocking(partial(verdict_of, run, result, failure))
        return verdict
    except GeneratorExit:
        raise
    except FlowTimeoutError as error:
        yield from _stop(run, f"the flow ran longer than its timeout of {flow.timeout_seconds:g} s")
        return Verdict.failed(error, name="TimedOut", retriable=False)
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        yield from _stop(
            run, "cancelled by the keyboard" if isinstance(error, KeyboardInterrupt) else "cancelled"
        )
        return Verdict(
            RunState.CANCELLED, message="cancelled while it ran", error=error, data=_raising(error)
        )
    except (FencedError, StoreError):
        raise
    except BaseException as error:  # SystemExit and the like: the flow's own end
        yield from _stop(run, f"the flow raised {type(error).__name__}")
        message = f"{type(error).__name__}: {error}"
        return Verdict(RunState.CRASHED, message=message, error=error, data=_raising(error))


def _raising(error: BaseException) -> Callable[[], Any]:
    """The caller of a flow that was interrupted is interrupted, too, unless it asked for the state."""

    def data() -> Any:
        # where we were waiting tells nobody anything
        raise shown_short(error).with_traceback(None)

    return data


def _in_context(run: RunningFlow, flow: Flow[Any, Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Call the flow function where tasks, loggers and subflows find their run."""
    if flow.is_async:
        return _in_context_async(run, flow, args, kwargs)
    with _context(run):
        value = flow.fn(*args, **kwargs)
        return list(value) if inspect.isgenerator(value) else value


async def _in_context_async(
    run: RunningFlow, flow: Flow[Any, Any], args: list[Any], kwargs: dict[str, Any]
) -> Any:
    with _context(run):
        made: Any = flow.fn(*args, **kwargs)
        if inspect.isasyncgen(made):
            return [value async for value in made]
        return await made


@contextmanager
def _context(run: RunningFlow) -> Iterator[None]:
    tokens = (
        (current_session, current_session.set(run.session)),
        (current_run, current_run.set(run.context)),
        (current_row, current_row.set(run.row)),
        (current_item, current_item.set(None)),  # a flow inside a task is no part of its task run
    )
    try:
        with flow_logging(run):
            yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)  # type: ignore[arg-type]


def _stop(run: RunningFlow, reason: str) -> Generator[Any, Any, None]:
    """Cancel what runs and wait for it; a second Ctrl-C ends everything at once."""
    try:
        run.driver.post(CancelRequested(reason=reason))
        run.move(RunState.CANCELLING, message=reason)
        yield Blocking(run.session.wait_all)
    except (KeyboardInterrupt, asyncio.CancelledError):
        run.driver.post(RunInterrupted("stopped at once by a second interrupt"))
        run.session.wait_all(timeout=5)


def _record(run: RunningFlow, verdict: Verdict) -> None:
    """Write the final state, then call the hooks."""
    detail = detail_of(verdict.error, in_process=False) if verdict.error is not None else None
    run.move(verdict.state, name=verdict.name, message=verdict.message, detail=detail)
    state = run_state(verdict.state, verdict.name, verdict.message, verdict.data)
    kind = {
        RunState.COMPLETED: "on_completion",
        RunState.FAILED: "on_failure",
        RunState.CRASHED: "on_crashed",
        RunState.CANCELLED: "on_cancellation",
    }[verdict.state]
    _call_hooks(run, kind, state)


def _call_hooks(run: RunningFlow, kind: str, state: State) -> None:
    for hook in getattr(run.flow, kind):
        call_hook(hook, kind, (run.flow, run.context, state))


def _record_crash(run: RunningFlow, error: BaseException) -> bool:
    """Record a run whose runner could not be started, or that was torn apart; never leave it Running.

    Returns whether it had no end yet.
    """
    if run.row.state in RUN_TERMINAL or isinstance(error, FencedError):
        return False
    detail = detail_of(error, in_process=False)
    interrupted = _is_interrupt(error)
    state = RunState.CANCELLED if interrupted else RunState.CRASHED
    when = "its runner started" if run.started else "it waited for its turn"
    message = f"cancelled while {when}" if interrupted else f"{type(error).__name__}: {error}"
    run.row = replace(run.row, state=state, state_name="", message=message)
    moved = RunMoved(state, run.clock.now(), "", message, detail)
    if run.driver.alive:  # what waits is written before it is closed
        run.driver.post(RunInterrupted(message))
        run.driver.post(Write((moved,)))
        return True
    try:
        run.store.append(run.row.run_id, run.row.epoch, [moved])
    except BackendError as also:
        log.error("the end of run %s could not be recorded: %s", run.row.name, also)
    return True


def _is_interrupt(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt | asyncio.CancelledError)


def _display(run: RunningFlow) -> Any:
    from ..terminal import display_for

    return display_for(run)
