"""Calling user code and saying how it ended: sync and async functions and generators, caches, signals."""

from __future__ import annotations

import datetime as dt
import inspect
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    SimpleNamespace,
    TracebackType,
)
from typing import Any

from . import codec
from .body import TaskBody
from .caching import CacheCall
from .context import ItemContext
from .errors import Fail, Retry, Skip
from .execution import Interrupt
from .loops import run_async
from .messages import Detail, Outcome
from .storage import open_storage

ASYNC_FLAGS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE
MAX_MESSAGE_CHARS = 20_000  # of an exception; some carry whole documents, and each travels and is stored
MAX_TRACEBACK_CHARS = 100_000
OWN_MODULES = (__name__.rpartition(".")[0] + ".", "orchestration.", "asyncio.", "contextlib.")


# How an item ended: its outcome, its value, its detail. A plain tuple, because one is made for each item and
# a named one costs 0.2 us more.
Ended = tuple[Outcome, Any, Detail | None]

COMPLETED = Outcome.COMPLETED  # reading a member of an enum costs a worker as much as a call


def call(item: ItemContext, body: TaskBody) -> Ended:
    """Run one item, or take its result from the cache. Only an `Interrupt` gets out."""
    try:
        if body.run_name is not None:
            item.execution.names[item.entry] = body.render_name(item.args, item.kwargs) or ""
        if body.cache is None:
            return COMPLETED, call_function(item, body.fn), None
        return _call_cached(item, body)
    except Interrupt:
        raise
    except Skip as signal:
        return Outcome.SKIPPED, None, Detail("Skip", message_of(signal))
    except Retry as signal:
        after = _seconds(signal.after_seconds)
        detail = detail_of(signal, in_process=item.execution.in_process, after=after)
        return Outcome.RETRY, None, detail
    except BaseException as error:  # SystemExit, KeyboardInterrupt and the like fail their item only
        retriable, complaint = (False, "") if isinstance(error, Fail) else _retriable(body, item, error)
        detail = detail_of(error, in_process=item.execution.in_process, retriable=retriable)
        if complaint:
            detail = replace(detail, message=f"{detail.message} ({complaint}, so it is not tried again)")
        return Outcome.FAILED, None, detail


def _call_cached(item: ItemContext, body: TaskBody) -> Ended:
    assert body.cache is not None
    key = body.cache.compute_key(CacheCall(body.task_name, body.source, item.parameters, item.run))
    if key is None:
        return COMPLETED, call_function(item, body.fn), None
    storage = open_storage(body.storage_url, body.serializer)
    if not body.refresh_cache:
        hit, value = storage.read_cached(key, body.cache_expiration_seconds, time.time())
        if hit:
            return Outcome.CACHED, value, None
    value = call_function(item, body.fn)
    storage.write_cached(key, value)
    return COMPLETED, value, None


def call_function(item: ItemContext, fn: Callable[..., Any]) -> Any:
    """Call user code to its end, whatever kind of function it is. Generators are collected into lists."""
    plain = type(fn) is FunctionType and not fn.__code__.co_flags & ASYNC_FLAGS  # as most are: without a call
    if not plain and is_async(fn):
        return run_async(item.execution, lambda: fn(*item.args, **item.kwargs))
    value = fn(*item.args, **item.kwargs)
    kind = type(value)
    if kind is GeneratorType:
        return list(value)
    if kind is CoroutineType or kind is AsyncGeneratorType:  # a sync wrapper around an async function
        return run_async(item.execution, lambda: value)
    return value


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling `fn` makes something to await; also for partials, methods and callable objects."""
    if type(fn) is FunctionType:
        return fn.__code__.co_flags & ASYNC_FLAGS != 0
    while isinstance(fn, partial):
        fn = fn.func
    called = fn if inspect.isroutine(fn) else type(fn).__call__
    return inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)


def _retriable(body: TaskBody, item: ItemContext, error: BaseException) -> tuple[bool, str]:
    """Ask the user's retry condition, here where the exception is. Returns its answer, and a complaint or "".

    A condition that raises, or forgets to answer, says no.
    """
    if body.retry_condition is None:
        return True, ""
    task_run = SimpleNamespace(
        id=item.task_run_id, name=item.name, index=item.index, attempt=item.attempt, tags=body.tags
    )

    def result(raise_on_failure: bool = True) -> BaseException:
        if raise_on_failure:
            raise error
        return error

    state = SimpleNamespace(name="Failed", type="Failed", message=str(error), exception=error, result=result)
    task = SimpleNamespace(name=body.task_name, fn=body.fn, tags=body.tags)
    try:
        answer: Any = body.retry_condition(task, task_run, state)
        if inspect.iscoroutine(answer):
            answer.close()  # an async condition that looks like a plain one
        elif answer is not None:
            return bool(answer), ""
        return False, f"its retry_condition_fn returned a {type(answer).__name__} instead of True or False"
    except Interrupt:
        raise
    except BaseException as problem:
        return False, f"its retry_condition_fn raised {type(problem).__qualname__}: {message_of(problem)}"


def detail_of(
    error: BaseException, *, in_process: bool, retriable: bool = True, after: float | None = None
) -> Detail:
    """Return the record of an exception, with the frames of user code only."""
    return Detail(
        type_name=_type_name(type(error)),
        message=message_of(error),
        traceback=traceback_of(error),
        exception=codec.dump_exception(error),
        after_seconds=after,
        retriable=retriable,
        live=error.with_traceback(None) if in_process else None,
    )


def message_of(error: BaseException) -> str:
    """Return what an exception says, also where its `__str__` is broken."""
    try:
        return _shorten(str(error), MAX_MESSAGE_CHARS)
    except Exception:
        return f"{type(error).__qualname__} (its message cannot be shown)"


def traceback_of(error: BaseException) -> str:
    """Return the traceback as text, with the frames of user code only."""
    try:
        lines = traceback.format_exception(type(error), error, _user_frames(error.__traceback__))
        return _shorten("".join(lines), MAX_TRACEBACK_CHARS)
    except Exception:
        return message_of(error)


def traceback_of_stop(stop: BaseException, ended: BaseException) -> str:
    """Return where an item was interrupted, as the traceback of `ended`, which users know; "" if that is not seen.

    Args:
        stop: the interrupt, as it got out of the item's code. Async code got a `CancelledError` in its place.
    """
    for seen in (stop, stop.__context__):
        trace = _without_inner_end(_user_frames(seen.__traceback__)) if seen is not None else None
        if trace is not None:
            return _shorten(
                "".join(traceback.format_exception(type(ended), ended, trace)), MAX_TRACEBACK_CHARS
            )
    return ""


def _without_inner_end(trace: TracebackType | None) -> TracebackType | None:
    """Return a copy of a traceback without the frames of Millrace and asyncio that were at work at its end."""
    links = []
    while trace is not None:
        links.append(trace)
        trace = trace.tb_next
    while links and _is_own(links[-1]):
        links.pop()
    copy: TracebackType | None = None
    for link in reversed(links):
        copy = TracebackType(copy, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return copy


def _is_own(trace: TracebackType) -> bool:
    return f"{trace.tb_frame.f_globals.get('__name__', '')}.".startswith(OWN_MODULES)


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _seconds(after: object) -> float | None:
    """Return the delay of a Retry as a plain float; None, the task's own delay, for what is no number."""
    if isinstance(after, dt.timedelta):
        return after.total_seconds()
    try:
        return None if after is None else float(after)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _user_frames(trace: TracebackType | None) -> TracebackType | None:
    """Cut off the frames of this package, and of asyncio under it, at the outer end."""
    cut = trace
    while cut is not None and _is_own(cut):
        cut = cut.tb_next
    return cut if cut is not None else trace


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
