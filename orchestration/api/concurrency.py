"""Limits inside user code: `concurrency` and `rate_limit`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from runners.context import current_item

from ..driver.leasing import Block
from ..errors import UserError
from .sessions import LocalSession, active_session

if TYPE_CHECKING:
    from ..stores.base import Grant

_NOTHING: Mapping[str, int] = MappingProxyType({})
_held: ContextVar[Mapping[str, int]] = ContextVar(
    "millrace_held", default=_NOTHING
)  # by blocks around the code


@contextmanager
def concurrency(
    names: str | Sequence[str], occupy: int = 1, timeout_seconds: float | None = None
) -> Iterator[None]:
    """Hold slots of one or more limits inside the block; wait until all are free.

    A name without a limit is no obstacle. Limits are set with `millrace limit set NAME SLOTS` and shared by
    all flow runs on one store. What blocks around this one hold is not taken again.

    Raises:
        TimeoutError: they were not free within `timeout_seconds`.
        UserError: outside of a flow run; or a block around this one holds fewer slots than this one needs.
    """
    wanted = _not_held(names, occupy)
    release = _take(wanted, occupy, timeout_seconds)
    token = _held.set({**_held.get(), **dict.fromkeys(wanted, occupy)})
    try:
        yield
    finally:
        _held.reset(token)
        release()


def rate_limit(names: str | Sequence[str], occupy: int = 1, timeout_seconds: float | None = None) -> None:
    """Wait until `occupy` tokens of one or more rate limits are there, and take them.

    Set with `millrace limit set NAME SLOTS --per-second N`.

    Raises:
        TimeoutError: they were not there within `timeout_seconds`.
        UserError: outside of a flow run.
    """
    _take(_listed(names), occupy, timeout_seconds)()


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _not_held(names: str | Sequence[str], slots: int) -> list[str]:
    """Return the limits that blocks around the calling code do not hold: it would wait for itself."""
    held = _held.get()
    for name in _listed(names):
        if 0 < held.get(name, 0) < slots:
            raise UserError(
                f"concurrency({name!r}, {slots}) is inside a block that holds {held[name]} of that limit, and might "
                f"wait for itself. Let the outer block hold {slots}."
            )
    return [name for name in _listed(names) if name not in held]


def _take(names: Sequence[str], slots: int, timeout: float | None) -> Callable[[], Any]:
    """Wait until limits are granted; return what gives them back.

    Raises:
        TimeoutError
    """
    session = active_session()
    if session is None:
        raise UserError("concurrency() and rate_limit() work inside flows and tasks only")
    item = current_item.get()
    label = item.name if item is not None else "the flow function"
    block = Block(f"{session.run_id}/block/{uuid.uuid4().hex}", tuple(names), label, slots)
    if isinstance(session, LocalSession):
        leasing = session.driver.leasing
        release: Callable[[], Any] = partial(leasing.give_back, block.holder)
        hold = partial(leasing.hold, block, item.batch_id if item is not None else None, timeout)
    else:
        remote: Any = session
        release = partial(remote.ask, "release", block.holder)
        hold = partial(remote.ask, "acquire", block, timeout)
    try:
        grant: Grant = hold()
    except BaseException:
        release()
        raise
    if not grant.granted:
        release()
        raise TimeoutError(f"limits were not free within {timeout:g} s: {_in_the_way(grant)}")
    return release if grant.names else lambda: None


def _in_the_way(grant: Grant) -> str:
    return "; ".join(
        f"{name} (held by {', '.join(who) or 'others'})" for name, who in grant.blocked_by.items()
    )
