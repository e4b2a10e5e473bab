"""Waiting for leases in one process: in the order of the store's queue, whatever the order of threads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.driver.clock import SteadyClock
from orchestration.driver.leasing import Block, Leasing
from orchestration.driver.timers import Timers
from orchestration.stores.memory import MemoryStore


class DriverStub:
    """Keeps what it is asked to do."""

    def __init__(self) -> None:
        self.clock = SteadyClock()
        self.timers = Timers()
        self.alive = True
        self.actions: list[Any] = []
        self.core = SimpleNamespace(ledger=SimpleNamespace(live={}))

    def do(self, action: Any) -> None:
        self.actions.append(action)


@pytest.mark.parametrize("rate", [None, 0.001])
def test_who_came_first_is_asked_first(rate: float | None) -> None:
    """Two threads take their places in the store's queue, and come to the driver in the other order: nobody hangs."""
    store, driver = MemoryStore(), DriverStub()
    leasing = Leasing(store, "r", 1, driver)  # type: ignore[arg-type]
    store.set_limit("x", 1, per_second=rate)
    store.acquire(["x"], holder="somebody", run_id="s", epoch=1, label="s", slots=1, now=store.now())
    for holder in ("first", "second"):
        assert not leasing.hold(Block(holder, ("x",), holder, 1), None, timeout=0).granted
    for action in reversed(driver.actions):
        action()
    store.release(["somebody"])
    if rate is not None:
        store.set_limit("x", 1, per_second=1e6)
    leasing._look()
    waiting = {lease.holder for lease in store.leases("x", store.now()) if not lease.held}
    assert "first" not in waiting
    leasing.give_back("first")
    leasing._look()
    assert "second" not in {lease.holder for lease in store.leases("x", store.now()) if not lease.held}
    leasing.close()
