"""The format of result files: what goes in comes out, and damage is found."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.result_format import MISSING, FormatError, ResultSerializationError, decode, encode

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.parametrize("serializer", ["cloudpickle", "json", "msgpack"])
@settings(max_examples=40)
@given(data=st.data())
def test_plain_data_survives_every_serializer(serializer: str, data: st.DataObject) -> None:
    """What is plain data comes back equal, whatever wrote it."""
    numbers = st.integers(-(2**63), 2**63 - 1)
    values = data.draw(st.lists(PLAIN | numbers, max_size=6))
    if serializer == "msgpack":
        values = [value if fits_msgpack(value) else None for value in values]
    blocks, digest = encode(serializer, values)
    file = decode(b"".join(blocks), digest)
    assert [file.load(p) for p in range(len(values))] == values


def fits_msgpack(value: Any) -> bool:
    try:
        encode("msgpack", [value])
    except ResultSerializationError:
        return False
    return True


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.data())
def test_any_flipped_or_missing_byte_is_found(values: list[bytes], data: st.DataObject) -> None:
    """A file that is not what was written is never taken for it."""
    blocks, digest = encode("cloudpickle", values)
    content = bytearray(b"".join(blocks))
    where = data.draw(st.integers(0, len(content) - 1))
    torn = data.draw(st.booleans())
    if torn:
        del content[where:]
    else:
        content[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FormatError, match=r"no result file|damaged|format|not the one recorded"):
        decode(content, digest)


def test_missing_is_one_object_in_every_process() -> None:
    """`is MISSING` works after pickling."""
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING
    assert repr(MISSING) == "MISSING"
