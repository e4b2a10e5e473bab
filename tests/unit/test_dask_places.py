"""To which worker of a Dask cluster a batch goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from runners.dask_places import LARGE_INPUTS, place_for
from runners.messages import Batch, Payload

BATCH = Batch("run", 1, (0,), (), Payload())
TWO = {"a": {"nthreads": 1}, "b": {"nthreads": 1}}
WIDE = {"a": {"nthreads": 4}, "b": {"nthreads": 4}}


@pytest.mark.parametrize(
    ("workers", "busy", "inputs", "place"),
    [
        (TWO, ["a"], [("a", 1000)], "b"),  # where its input is it would have to wait
        (TWO, [], [("b", 1000)], "b"),
        (TWO, ["a", "b"], [("b", 0)], "b"),
        (TWO, ["a", "b", "b"], [("b", 1000)], "a"),
        (TWO, [], [("a", 10), ("b", 20)], "b"),
        (TWO, ["gone", "gone", "a"], [("gone", 5)], "b"),
        (WIDE, ["b", "b"], [("b", 5)], "b"),  # a thread is free there
        (WIDE, ["b", "b"], [("c", 1)], "a"),
        (WIDE, ["b"] * 4, [("b", 5)], "a"),
        ({"a": {"nthreads": 1}, "b": {"nthreads": 4}}, ["a"] * 2 + ["b"] * 5, [("c", 1)], "b"),
    ],
)
def test_the_worker_with_the_least_to_do(
    workers: Mapping[str, Mapping[str, Any]],
    busy: Sequence[str],
    inputs: Sequence[tuple[str, int]],
    place: str,
) -> None:
    """A free thread counts most, then what need not be moved, then what else runs there."""
    assert place_for(BATCH, workers, busy, inputs) == place


def test_what_is_left_to_dask() -> None:
    """Where there is no choice, where users have made it, and where moving takes long."""
    small = [("a", 1)]
    assert place_for(BATCH, TWO, ["a"], []) == ""  # without inputs Dask looks at all workers
    assert place_for(BATCH, {"a": {"nthreads": 2}}, [], small) == ""
    assert place_for(BATCH, {}, [], small) == ""
    for option in ({"workers": "a"}, {"resources": {"GPU": 1}}):
        assert place_for(replace(BATCH, options=option), TWO, ["a"], small) == ""
    assert place_for(replace(BATCH, options={"priority": 3}), TWO, ["a"], small) == "b"
    assert place_for(BATCH, TWO, ["a"], [("a", LARGE_INPUTS + 1)]) == ""
