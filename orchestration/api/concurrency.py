"""Limits inside user code: `concurrency` and `rate_limit`."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runners.context import current_item

from ..driver.leasing import POLL_SECONDS
from ..errors import UserError
from .sessions import LocalSession, active_session

if TYPE_CHECKING:
    from ..stores.base import Grant

Acquire = Callable[[Sequence[str], str, str, int], "Grant"]


@contextmanager
def concurrency(
    names: str | Sequence[str], occupy: int = 1, timeout_seconds: float | None = None
) -> Iterator[None]:
    """Hold slots of one or more limits inside the block; wait until all are free.

    A name without a limit is no obstacle. Limits are set with `millrace limit set NAME SLOTS` and shared by
    all flow runs on one store.

    Raises:
        TimeoutError: they were not free within `timeout_seconds`.
        UserError: outside of a flow run.
    """
    acquire, release, label = _ways()
    wanted = [names] if isinstance(names, str) else list(names)
    holder = f"{label}/{uuid.uuid4().hex[:12]}"
    try:
        _wait_for(acquire, wanted, holder, label, occupy, timeout_seconds)
        yield
    finally:
        release([holder])


def rate_limit(names: str | Sequence[str], occupy: int = 1, timeout_seconds: float | None = None) -> None:
    """Wait until `occupy` tokens of one or more rate limits are there, and take them.

    Set with `millrace limit set NAME SLOTS --per-second N`.

    Raises:
        TimeoutError: they were not there within `timeout_seconds`.
        UserError: outside of a flow run.
    """
    acquire, release, label = _ways()
    wanted = [names] if isinstance(names, str) else list(names)
    holder = f"{label}/{uuid.uuid4().hex[:12]}"
    try:
        _wait_for(acquire, wanted, holder, label, occupy, timeout_seconds)
    finally:
        release([holder])


def _ways() -> tuple[Acquire, Callable[[Sequence[str]], Any], str]:
    """Return how to acquire and release from here, and who asks."""
    session = active_session()
    if session is None:
        raise UserError("concurrency() and rate_limit() work inside flows and tasks only")
    item = current_item.get()
    label = item.task_run_id if item is not None else f"{session.run_id}/flow"
    if isinstance(session, LocalSession):
        store, local = session.driver.journaling.store, session

        def acquire(names: Sequence[str], holder: str, label: str, slots: int) -> Grant:
            return store.acquire(
                names, holder=holder, run_id=local.run_id, label=label, slots=slots, now=store.now()
            )

        return acquire, store.release, label
    remote: Any = session
    return (
        lambda *args: remote.ask("acquire", *args),
        lambda holders: remote.ask("release", holders),
        label,
    )


def _wait_for(
    acquire: Acquire, names: list[str], holder: str, label: str, slots: int, timeout: float | None
) -> None:
    """Ask until granted: other processes may release at any time, and a queue in the store keeps the order."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = threading.Event()
    while True:
        grant = acquire(names, holder, label, slots)
        if grant.granted:
            return
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            who = "; ".join(
                f"{name} (held by {', '.join(h) or 'others'})" for name, h in grant.blocked_by.items()
            )
            raise TimeoutError(f"limits were not free within {timeout:g} s: {who}")
        pause.wait(POLL_SECONDS if left is None else min(POLL_SECONDS, left))
