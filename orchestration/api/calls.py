"""What calling a task means: a task run of its own inside a flow or task, a plain call elsewhere."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .awaiting import in_thread
from .sessions import LocalSession, active_session

if TYPE_CHECKING:
    from .tasks import Task


def call_task(task: Task[Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run a task now, in this process. Async tasks give an awaitable.

    Keyword arguments `return_state` and `wait_for` are taken out, as in `submit`.
    """
    options = dict(kwargs)
    session = active_session()
    if session is None:
        return task.fn(*args, **kwargs)
    names = _parameters(task)
    return_state = "return_state" not in names and bool(options.pop("return_state", False))
    wait_for = options.pop("wait_for", ()) if "wait_for" not in names else ()
    from .requests import single

    request = single(task, "call", args, options, wait_for, session.run_id)
    if task.is_async and isinstance(session, LocalSession) and _running_loop() is not None:
        return _call_async(session, request, return_state)
    if task.is_async:
        return _later(session, request, return_state)
    state = session.call(request)
    return state if return_state else state.result()


async def _later(session: Any, request: Any, return_state: bool) -> Any:
    state = await in_thread(partial(session.call, request))
    return state if return_state else state.result()


async def _call_async(session: LocalSession, request: Any, return_state: bool) -> Any:
    """Run an async task on the caller's own loop; only the bookkeeping happens in another thread."""
    node_id = session.submit(request)
    await in_thread(partial(session.inline.run, node_id, asyncio.get_running_loop()))
    state = session.called(node_id)
    return state if return_state else state.result()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _parameters(task: Task[Any, Any]) -> Mapping[str, inspect.Parameter]:
    from .requests import signature_of

    try:
        return signature_of(task.fn).parameters
    except (TypeError, ValueError):
        return {}
