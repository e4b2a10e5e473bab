"""The turn of a flow run: `@flow(max_concurrent_runs=...)`.

The wait comes before anything is started: a run that waits holds no cluster. Its heartbeat, which keeps its place in
the queue, is sent from here meanwhile.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..core.dispatching import held_up
from ..core.states import RunState
from ..driver.leasing import LOOK_SECONDS
from ..errors import FencedError, RunNotFoundError
from ..stores.base import HEARTBEAT_SECONDS

if TYPE_CHECKING:
    from ..stores.base import Grant
    from .running import RunningFlow


def limit_of(flow_name: str) -> str:
    """Return the name of the limit that counts a flow's runs."""
    return f"flow:{flow_name}"


def wait_for_turn(run: RunningFlow) -> str:
    """Wait until the run may begin. Returns why it never will, if it is cancelled meanwhile.

    Raises:
        FencedError: another process has taken the run over.
    """
    most = run.flow.max_concurrent_runs
    if most is None or _is_part_of_another(run):
        return ""
    name, store, told = limit_of(run.flow.name), run.store, threading.Event()
    known = {limit.name: limit for limit in store.limits(store.now())}.get(name)
    if known is None or (known.slots, known.per_second) != (most, None):
        store.set_limit(name, most)  # what the code says counts, as it says it now
    stop_listening = store.listen(told.set)
    granted = False
    try:
        beat, said = store.now(), ""
        while not run.session.closed:  # by the cancellation of an async flow, which cannot stop this thread
            told.clear()
            grant = _ask(run, name)
            if grant.granted:
                granted = not run.session.closed
                return ""
            why = held_up(name, grant.blocked_by[name])
            if why != said:
                run.move(RunState.PENDING, name="AwaitingLimit", message=why)
                said = why
            now = store.now()
            due = now - beat >= HEARTBEAT_SECONDS
            look = store.heartbeat if due else lambda run_id, epoch, now: store.requests(run_id, epoch)
            asked, beat = look(run.row.run_id, run.row.epoch, now), now if due else beat
            if asked.fenced:
                raise FencedError(f"run {run.row.run_id} was taken over by another process; this one stops")
            if asked.cancel:
                return f"cancelled while it waited for limit {name}"
            store.reap(now)
            told.wait(LOOK_SECONDS)
        return "cancelled"
    finally:
        stop_listening()
        if not granted:
            store.release([_holder(run)])


def _ask(run: RunningFlow, name: str) -> Grant:
    return run.store.acquire(
        [name],
        holder=_holder(run),
        run_id=run.row.run_id,
        epoch=run.row.epoch,
        label=f"flow run {run.row.name}",
        slots=1,
        now=run.store.now(),
    )


def _holder(run: RunningFlow) -> str:
    return f"{run.row.run_id}/run"


def _is_part_of_another(run: RunningFlow) -> bool:
    """Whether a run of the same flow has started this one, and waits for it: it runs in that one's place."""
    above = run.row.parent_run_id
    while above is not None:
        try:
            row = run.store.run(above)
        except RunNotFoundError:  # it is recorded elsewhere
            return False
        if row.flow_name == run.flow.name:
            return True
        above = row.parent_run_id
    return False
