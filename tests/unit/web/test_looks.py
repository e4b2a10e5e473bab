"""How soon the store is looked at again, by how much has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.core.journal import RunMoved
from orchestration.core.states import RunState
from orchestration.stores.sqlite import SqliteStore
from orchestration.testing.store_entries import NOW, ended, new_run, node
from orchestration.web.looks import BUSY_SECONDS, IDLE_SECONDS, LOOK_SECONDS, RunLook


@pytest.mark.parametrize(("changed", "pause"), [(20, LOOK_SECONDS), (2_000, BUSY_SECONDS)])
def test_what_nobody_can_follow_is_told_less_often(tmp_path: Path, changed: int, pause: float) -> None:
    """While single task runs change ten times a second, while hundreds do four times; a run that has ended may wait."""
    store = SqliteStore(tmp_path / "millrace.db")
    run_id = new_run(store)
    store.append(run_id, 1, [node(1, 5_000)])
    look = RunLook(store, run_id)
    assert look()[1] == LOOK_SECONDS
    store.append(run_id, 1, [ended(1, range(changed))])
    assert look()[1] == pause
    assert look()[1] == LOOK_SECONDS, "nothing has changed since"
    store.append(run_id, 1, [RunMoved(RunState.COMPLETED, NOW + 2)])
    assert look()[1] == IDLE_SECONDS
    store.close()
