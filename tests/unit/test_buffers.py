"""Copies of buffers, small and large."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from runners.buffers import LARGE_BYTES, copy_buffer
from runners.results import PackedResults


@pytest.mark.parametrize("nbytes", [0, 1, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 4097])
def test_a_copy_is_the_same_and_ones_own(nbytes: int) -> None:
    source = np.arange(nbytes, dtype=np.uint8)
    copy = copy_buffer(source)
    own = np.frombuffer(copy, np.uint8)
    assert own.flags.writeable
    assert (own == source).all()
    own[:] = 7
    assert nbytes == 0 or source[0] == 0


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="Linux has huge pages")
def test_large_copies_are_in_pages_of_their_own() -> None:
    """They go back to the system with the array that lies in them, and huge pages were asked for."""
    assert isinstance(copy_buffer(bytes(LARGE_BYTES - 1)), bytearray)
    assert isinstance(copy_buffer(bytes(LARGE_BYTES)), mmap.mmap)


def test_arrays_of_any_shape_are_copied() -> None:
    """Consumers write to their own; order and type stay."""
    array = np.asfortranarray(np.ones((2048, 300), np.float64))
    assert array.nbytes > LARGE_BYTES
    packed = PackedResults.pack([[array]])
    (loaded,) = packed.load(0)
    assert loaded.flags.f_contiguous
    loaded += 1
    assert array.max() == 1
    assert PackedResults.pack([[loaded]]).load(0)[0].min() == 2
