"""Why a run does not get on, in sentences with times that do not depend on who reads them, or when."""

from __future__ import annotations

import re
import time
from datetime import datetime

from orchestration.core.journal import RunMoved
from orchestration.core.states import RunState
from orchestration.stores.base import RunRow
from orchestration.stores.memory import MemoryStore
from orchestration.web.stuck import why_stuck

TIME = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"


def run(store: MemoryStore, name: str, heartbeat: float) -> RunRow:
    store.create_run(RunRow(name, name, "flow", created=heartbeat, heartbeat=heartbeat, host="here", pid=7))
    store.append(name, 1, [RunMoved(RunState.RUNNING, heartbeat)])
    return store.run(name)


def ask(store: MemoryStore, run_id: str) -> None:
    who = {"holder": f"{run_id}/1", "run_id": run_id, "epoch": 1, "label": f"load of {run_id}"}
    store.acquire(["db"], **who, slots=1, now=store.now() - 20)


def test_a_limit_is_waited_for_since_a_time() -> None:
    """With who holds it since when; the sentence stays the same as time goes by."""
    store = MemoryStore()
    store.set_limit("db", 1)
    _, second, third = (run(store, name, store.now()) for name in ("first", "second", "third"))
    for name in ("first", "second", "third"):
        ask(store, name)
    (told,) = why_stuck(store, third)
    found = re.fullmatch(
        f"waits for limit db since {TIME}, held by load of first since {TIME}; 1 wait before it", told
    )
    assert found, told
    for moment in found.groups():
        assert abs(datetime.fromisoformat(moment).timestamp() - (time.time() - 20)) < 15
    assert why_stuck(store, third) == [told]
    assert "wait before" not in why_stuck(store, second)[0]


def test_a_silent_process_is_named_with_when_it_was_heard_of() -> None:
    """Before it counts as dead."""
    store = MemoryStore()
    (told,) = why_stuck(store, run(store, "silent", store.now() - 20))
    assert re.fullmatch(f"its process 7 on here has not been heard of since {TIME}", told), told
