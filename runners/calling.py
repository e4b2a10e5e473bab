"""Calling user code and saying how it ended: sync and async functions and generators, caches, signals."""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Any

from . import codec
from .body import TaskBody
from .caching import CacheCall
from .context import ItemContext
from .errors import Fail, Retry, Skip
from .execution import Interrupt
from .messages import Detail, Outcome
from .storage import open_storage


@dataclass(slots=True)
class Ended:
    """How an item ended."""

    outcome: Outcome
    value: Any = None
    detail: Detail | None = None


def call(item: ItemContext) -> Ended:
    """Run one item, or take its result from the cache. Only an `Interrupt` gets out."""
    body = item.body
    try:
        key = None
        if body.cache is not None:
            key = body.cache.compute_key(CacheCall(body.task_name, body.source, item.parameters, item.run))
        if key is not None and not body.refresh_cache:
            storage = open_storage(body.storage_url, body.serializer)
            hit, value = storage.read_cached(key, body.cache_expiration_seconds, time.time())
            if hit:
                return Ended(Outcome.CACHED, value)
        value = _call_function(item)
        if key is not None:
            open_storage(body.storage_url, body.serializer).write_cached(key, value)
        return Ended(Outcome.COMPLETED, value)
    except Interrupt:
        raise
    except Skip as signal:
        return Ended(Outcome.SKIPPED, detail=Detail("Skip", str(signal)))
    except Retry as signal:
        detail = detail_of(signal, in_process=item.execution.in_process, after=signal.after_seconds)
        return Ended(Outcome.RETRY, detail=detail)
    except (
        BaseException
    ) as error:  # SystemExit, KeyboardInterrupt and the like of user code fail its item only
        retriable = not isinstance(error, Fail) and _retriable(body, item, error)
        detail = detail_of(error, in_process=item.execution.in_process, retriable=retriable)
        return Ended(Outcome.FAILED, detail=detail)


def _call_function(item: ItemContext) -> Any:
    fn, args, kwargs = item.body.fn, item.args, item.kwargs
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        return _run_async(item, fn(*args, **kwargs))
    value = fn(*args, **kwargs)
    if inspect.isgenerator(value):
        return list(value)
    if inspect.iscoroutine(value) or inspect.isasyncgen(value):  # a sync wrapper around an async function
        return _run_async(item, value)
    return value


def _run_async(item: ItemContext, made: Any) -> Any:
    return item.execution.event_loop().run(_interruptible(item, made))


async def _interruptible(item: ItemContext, made: Any) -> Any:
    """Await user code such that an interrupt cancels it at its next await."""
    execution, loop = item.execution, asyncio.get_running_loop()
    work = asyncio.ensure_future(drain(made))

    def hook(_kind: type[Interrupt]) -> None:
        loop.call_soon_threadsafe(work.cancel)

    execution.interrupt_hook = hook
    if execution.interrupted is not None:
        work.cancel()
    try:
        return await work
    except asyncio.CancelledError:
        if execution.interrupted is not None:
            raise execution.interrupted from None
        raise


async def drain(made: Any) -> Any:
    """Await a coroutine; collect an async generator into a list."""
    if inspect.isasyncgen(made):
        return [value async for value in made]
    return await made


def _retriable(body: TaskBody, item: ItemContext, error: BaseException) -> bool:
    """Ask the user's retry condition, here where the exception is. A condition that raises says no."""
    if body.retry_condition is None:
        return True
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
        return bool(body.retry_condition(task, task_run, state))
    except Exception:
        return False


def detail_of(
    error: BaseException, *, in_process: bool, retriable: bool = True, after: float | None = None
) -> Detail:
    """Return the record of an exception, with the frames of user code only."""
    trace = _user_frames(error.__traceback__)
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
        message = str(error)
    except Exception:  # a broken __str__ or __repr__
        text = message = f"{type(error).__qualname__} (its message cannot be shown)"
    return Detail(
        type_name=_type_name(type(error)),
        message=message,
        traceback=text,
        exception=codec.dump_exception(error),
        after_seconds=after,
        retriable=retriable,
        live=error.with_traceback(None) if in_process else None,
    )


def _user_frames(trace: TracebackType | None) -> TracebackType | None:
    """Cut off this package's own frames at the outer end."""
    here = __name__.rpartition(".")[0]
    cut = trace
    while cut is not None and cut.tb_frame.f_globals.get("__name__", "").startswith(here + "."):
        cut = cut.tb_next
    return cut if cut is not None else trace


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
