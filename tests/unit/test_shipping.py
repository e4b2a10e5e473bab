"""Parcels, and what worker processes keep of them."""

from __future__ import annotations

import mmap
import threading
from typing import Any

import numpy as np
import pytest

from runners.codec import dump_payload, load_payload
from runners.context import RunContext
from runners.errors import ResultLostError
from runners.messages import Batch, Payload, Stage
from runners.shipping import LARGE_BYTES, PayloadStore, complete, read_label, seal, slim, unseal


def batch_with(shared: Payload) -> Batch:
    small = dump_payload("code", cached=True)
    stage = Stage(0, "t", small, dump_payload([1, 2]), [1, 1], shared=shared)
    return Batch("r", 1, range(2), (stage,), dump_payload(RunContext("r", "n", "f"), cached=True))


def test_a_parcel_has_a_label_that_can_be_read_first() -> None:
    array = np.arange(100_000)
    header, sealed = read_label(seal(("topic", 7), {"array": array}))
    assert header == ["topic", 7]
    assert (unseal(sealed)["array"] == array).all()


def test_large_payloads_stay_out_and_are_put_back() -> None:
    """What has a digest and is large does not travel with each batch; the worker's own copy takes its place."""
    shared = dump_payload(["x" * LARGE_BYTES], cached=True)
    light, left = slim(batch_with(shared))
    assert list(left) == [shared.digest]
    assert light.stages[0].shared == Payload(digest=shared.digest)
    whole = complete(light, left.__getitem__)
    assert whole.stages[0].shared is not None
    assert load_payload(whole.stages[0].shared) == ["x" * LARGE_BYTES]
    small = batch_with(dump_payload(["x"], cached=True))
    assert slim(small) == (small, {})


def test_a_batch_may_write_to_its_copy() -> None:
    """No other batch sees it, as if each had been sent its own."""
    payload = dump_payload([np.zeros(100_000)], cached=True)
    store = PayloadStore()
    first = load_payload(store.put(payload.digest, payload.data, payload.buffers))[0]
    first += 1
    kept = store.get(payload.digest)
    assert kept is not None
    assert load_payload(kept)[0].sum() == 0
    assert first.sum() == 100_000


def test_buffers_of_all_sizes_are_kept_each_in_its_place() -> None:
    """Those that share the pages of a worker, also where one is empty or of another shape; none is the sender's."""
    arrays: list[Any] = [np.arange(n, dtype=np.uint8) for n in (20_000, 0, 5 << 20)]
    arrays += [np.asfortranarray(np.arange(1_200_000).reshape(3, -1)), np.arange(90_000)[::3]]
    payload = dump_payload(arrays, cached=True)
    expected = [array.copy() for array in arrays]
    for array in arrays:
        array[...] = 1
    store = PayloadStore()
    for kept in (store.put(payload.digest, payload.data, payload.buffers), store.get(payload.digest)):
        assert kept is not None
        for found, array in zip(load_payload(kept), expected, strict=True):
            assert found.flags.writeable
            assert (found == array).all()
            found[...] = 2


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="Linux has huge pages")
def test_large_arguments_are_kept_in_huge_pages() -> None:
    """As copies of large results are, for the same reason; nobody can write to them by mistake."""
    (buffer,) = dump_payload(np.zeros(5 << 20, np.uint8), cached=True).buffers
    assert buffer.readonly
    assert isinstance(buffer.obj, mmap.mmap)


def test_what_was_used_last_is_kept() -> None:
    store = PayloadStore(max_bytes=250)
    for name in ("a", "b", "c"):
        store.put(name, b"x" * 100, ())
    assert [store.get(name) is not None for name in ("a", "b", "c")] == [False, True, True]
    store.put("large", b"x" * 1000, ())
    assert store.get("large") is not None


def test_waiting_for_a_payload() -> None:
    """It is asked for, and taken when it comes; who is refused it hears so."""
    store = PayloadStore()
    asked: list[str] = []

    def answer() -> None:
        asked.append("a")
        threading.Thread(target=store.put, args=("a", b"data", ())).start()

    assert store.await_payload("a", answer, lambda: True).data == b"data"
    assert asked == ["a"]

    def refuse() -> None:
        threading.Thread(target=store.refuse, args=("b",)).start()

    with pytest.raises(ResultLostError):
        store.await_payload("b", refuse, lambda: True)
