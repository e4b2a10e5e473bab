"""Results as bytes: pickled once, buffers out of band, own objects for each consumer."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest

from runners.errors import InternalError
from runners.results import (
    SMALL_RESULTS,
    CheckedResults,
    PackedResults,
    copied_bytes,
    opened,
    pack_values,
)
from runners.storage import MISSING


def test_results_come_back_by_stage() -> None:
    """Each stage has its values by position."""
    packed = PackedResults.pack([[1, "a"], [None, [2]]])
    assert packed.load(0) == [1, "a"]
    assert packed.load(1) == [None, [2]]


def test_buffers_stay_out_of_band() -> None:
    """A large array is not copied into the pickle, neither here nor on the engine's way."""
    array = np.arange(100_000)
    packed = PackedResults.pack([[array]])
    (((data, (buffer,), _),),) = packed.frames
    assert len(data) < 1_000
    assert np.shares_memory(np.frombuffer(buffer, array.dtype), array)
    buffers: list[pickle.PickleBuffer] = []
    moved = pickle.dumps(packed, 5, buffer_callback=buffers.append)
    assert len(moved) < 1_000
    again = pickle.loads(moved, buffers=[b.raw() for b in buffers])
    assert (again.load(0)[0] == array).all()


def test_consumers_do_not_share() -> None:
    """What one consumer does to its array is not seen by the next, nor by the original."""
    array = np.zeros(10)
    packed = PackedResults.pack([[array]])
    packed.load(0)[0][:] = 1
    assert not packed.load(0)[0].any()
    assert not array.any()


def sent(packed: PackedResults, move: Callable[[Any], Any]) -> PackedResults:
    """Return results as they come out of an engine that gives buffers back as `move` says."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(packed, 5, buffer_callback=buffers.append)
    again: PackedResults = pickle.loads(data, buffers=[move(buffer) for buffer in buffers])
    return again


MOVES: list[Callable[[Any], Any]] = [bytes, bytearray, lambda buffer: buffer]  # Ray, Dask, and not at all


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_what_could_be_written_to_still_can(move: Callable[[Any], Any], size: int) -> None:
    """Whatever the engine's memory is, readers have copies; what was read-only stays so, and is read in place."""
    frozen = np.zeros(size)
    frozen.flags.writeable = False
    packed = sent(PackedResults.pack([[np.zeros(size), frozen]]), move)
    for first, second in (packed.load(0), packed.load(0), packed.pick(0, [0, 1]).load(0)):
        assert not second.flags.writeable
        assert any(np.shares_memory(second, np.frombuffer(b)) for _, bs, _ in packed.frames[0] for b in bs)
        first += 1
        assert first.max() == 1
    assert not packed.load(0)[0].any()


def test_large_values_are_pickled_one_by_one() -> None:
    """Who reads one copies no other, and picking copies none. What values share is packed once, though."""
    arrays = [np.full(100_000, n) for n in range(4)]
    packed = PackedResults.pack([arrays])
    assert len(packed.frames[0]) == 4
    picked = packed.pick(0, [2, 0])
    assert [array[0] for array in picked.load(0)] == [2, 0]
    assert np.shares_memory(np.frombuffer(picked.frames[0][0][1][0], arrays[2].dtype), arrays[2])
    assert copied_bytes(packed.frames[0][1]) == arrays[1].nbytes
    assert len(PackedResults.pack([[(arrays[0], n) for n in range(10)]]).frames[0]) == 1
    assert len(PackedResults.pack([[np.zeros(10)] * 3 + [MISSING]]).frames[0]) == 1


def test_picking_of_small_values_copies_no_buffer() -> None:
    """Those that are packed together are taken apart as they lie there."""
    arrays = [np.full(10, n) for n in range(4)]
    ((_, (buffer,), _),) = PackedResults.pack([arrays]).pick(0, [3]).frames[0]
    assert np.shares_memory(np.frombuffer(buffer, arrays[3].dtype), arrays[3])


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_engines_pickle_packed_results(protocol: int) -> None:
    """Older protocols have no out-of-band buffers, and work."""
    packed = pickle.loads(pickle.dumps(PackedResults.pack([[np.arange(3), "x"]]), protocol))
    array, text = packed.load(0)
    assert (list(array), text) == ([0, 1, 2], "x")


def test_classes_of_nowhere() -> None:
    """Values whose class cannot be imported are pickled by value."""

    class Local:
        def __init__(self) -> None:
            self.value = 5

    assert PackedResults.pack([[Local()]]).load(0)[0].value == 5


def test_what_was_checked_is_not_pickled_again() -> None:
    """The pickles that showed that results can travel are the ones that travel."""
    values: list[Any] = [threading.Lock]
    checked = CheckedResults([values], [pack_values(["as it was"])])
    assert PackedResults.pack(checked).load(0) == ["as it was"]
    assert checked[0] is values


def test_small_results_are_bytes() -> None:
    """Engines move bytes at less cost than objects, and a table can hold them."""
    packed = PackedResults.pack([[1, MISSING], ["a", None]])
    again = opened(packed.small())
    assert [again.load(stage) for stage in (0, 1)] == [[1, MISSING], ["a", None]]
    assert opened(packed) is packed


@pytest.mark.parametrize("data", [b"", b"\xc1", msgpack.packb(7), msgpack.packb([b"", 7]), msgpack.packb({})])
def test_small_results_that_are_something_else(data: bytes) -> None:
    """They come from workers in a table, and are as little taken for granted."""
    with pytest.raises(InternalError, match="results that cannot be read"):
        PackedResults.of_small(data)


def test_what_is_large_or_has_buffers_stays_where_it_is() -> None:
    """A table must not carry data, nor copy what has been left out of band."""
    assert PackedResults.pack([[b"x"], [bytes(SMALL_RESULTS)]]).small() == b""
    assert PackedResults.pack([[np.zeros(3)]]).small() == b""


def test_the_size_is_told() -> None:
    """Engines decide on memory by it."""
    assert sys.getsizeof(PackedResults.pack([[np.zeros(1_000)]])) > 8_000
    assert sys.getsizeof(PackedResults([])) < 1_000
