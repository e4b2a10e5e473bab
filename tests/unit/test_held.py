"""What a batch reads of other batches' results: loaded when it is read, copied once."""

from __future__ import annotations

import numpy as np
import pytest

from runners.errors import InternalError
from runners.held import Held, held_by
from runners.messages import Input
from runners.results import PackedResults


def test_inputs_of_one_stage_share_it() -> None:
    """It is copied once for the batch. Other stages, and what is not there, are no part of it."""
    packed = PackedResults.pack([[np.zeros(10)], [np.ones(10)]])
    inputs = [Input(1, [0], [0], batch_id=5), Input(2, [0], [0], batch_id=5), Input(3, [0], [0], 5, 1)]
    first, second, other, gone = held_by([*inputs, Input(4, [0], [0], batch_id=6)], [packed] * 3 + [None])
    assert first is second
    assert gone is None
    assert first is not None
    assert other is not None
    assert first.pick([0])[0] is first.pick([0, 0])[1]
    assert other.pick([0])[0].all()
    assert first.copied_bytes == 80


def test_only_what_is_read_is_copied() -> None:
    """Of large values; small ones come together."""
    large = Held(PackedResults.pack([[np.full(200_000, n) for n in range(3)]]), 0)
    assert [array[0] for array in large.pick([2, 0, 2])] == [2, 0, 2]
    assert large.copied_bytes == 2 * 8 * 200_000


def test_nothing_is_opened_before_it_is_read() -> None:
    """So that what is wrong with it fails the input, and not the batch."""
    held = Held(b"\xc1", 0)
    with pytest.raises(InternalError):
        held.pick([0])
    assert Held(PackedResults.pack([[1, 2]]).small(), 0).pick([1]) == [2]
