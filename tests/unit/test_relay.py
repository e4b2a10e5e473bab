"""Handing results from stage to stage inside a batch."""

from __future__ import annotations

from typing import Any

import pytest

from runners.relay import Relay


def relayed(values: list[Any], *, live: bool, by_index: dict[int, Any] | None = None) -> Relay:
    """Return a relay that all results at position p, of item 10 + p, have been left with."""
    relay = Relay(7, values, live=live, by_index=by_index)
    for position, value in enumerate(values):
        values[position] = relay.leave(position, 10 + position, value)
    return relay


def test_the_next_stage_gets_what_is_its_own() -> None:
    """Between processes a result that can change is copied; in the flow's process it is the same object."""
    made: list[Any] = [1, [2], "three"]
    results = list(made)
    copies = relayed(results, live=False)
    assert [copies.take(p) for p in range(3)] == made
    copies.take(1).append("mine")
    assert made[1] == [2]
    copies.forget(1, 11)
    assert results[1] is made[1]
    live = relayed(results, live=True)
    assert live.take(1) is made[1]


def test_nothing_is_kept_that_is_not_needed_any_more() -> None:
    """Copies, and what arguments look up by item, go with the item."""
    by_index: dict[int, Any] = {}
    made: list[Any] = [[1], 2]
    results = list(made)
    relay = relayed(results, live=False, by_index=by_index)
    assert by_index == {10: [1], 11: 2}
    assert by_index[10] is relay.take(0)
    assert by_index[10] is not made[0]
    for position in range(2):
        relay.forget(position, 10 + position)
    assert not by_index
    assert results[0] is made[0]


def test_what_cannot_be_copied() -> None:
    """It is told where it is left, so that the item that made it fails."""
    with pytest.raises(TypeError):
        relayed([(x for x in "ab")], live=False)
