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


def behind_others() -> tuple[MemoryStore, DriverStub, Leasing]:
    """Have "mine" wait for a slot that "holder" has, behind a, b, c and d of another run."""
    store, driver = MemoryStore(), DriverStub()
    store.set_limit("x", 1)
    for holder in ("holder", *"abcd"):
        others = {"run_id": "s", "epoch": 1, "label": holder, "slots": 1}
        store.acquire(["x"], holder=holder, **others, now=store.now())
    leasing = Leasing(store, "r", 1, driver)  # type: ignore[arg-type]
    leasing.hold(Block("mine", ("x",), "mine", 1), None, timeout=0)
    return store, driver, leasing


def test_who_stands_behind_others_asks_when_they_may_be_served() -> None:
    """At a news only he who may be next asks, and with each lease that ends others come nearer; when due all ask."""
    store, driver, leasing = behind_others()
    asked: list[str] = []
    acquire = store.acquire

    def counted(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["holder"])
        return acquire(*args, **kwargs)

    store.acquire = counted  # type: ignore[method-assign]

    def turn() -> int:
        """Let the driver do what there is to do; return how often the store was asked."""
        asked.clear()
        actions, driver.actions[:] = list(driver.actions), []
        for action in actions:
            action()
        return len(asked)

    turn()
    turn()
    heard = []
    for holder in ("holder", "a", "b", "c", "d"):
        store.release([holder])
        heard.append(turn())
    assert heard[0] == 0, "four are before it"
    assert heard[-1] == 1
    assert [lease.holder for lease in store.leases("x", store.now()) if lease.held] == ["mine"]
    leasing.give_back("mine")
    leasing.close()


def test_who_stands_behind_others_asks_when_it_is_due() -> None:
    """Nobody relies on news: those that ended may have been told of as one, or not at all."""
    store, driver, leasing = behind_others()
    for action in driver.actions:
        action()
    store.release(["holder", *"abcd"])
    due = driver.timers.next()
    assert due is not None
    driver.timers.fire(due)
    assert [lease.holder for lease in store.leases("x", store.now()) if lease.held] == ["mine"]
    leasing.close()
