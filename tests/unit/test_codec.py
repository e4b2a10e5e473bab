"""Control messages and pickles: what goes in comes out, and garbage is called garbage."""

from __future__ import annotations

import threading
from array import array
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners import codec
from runners.contract.tasks import UnloadableError, UnpicklableError
from runners.errors import InternalError
from runners.messages import (
    BatchProgress,
    BatchStarted,
    Call,
    Detail,
    LogLine,
    Outcome,
    Stored,
    Table,
)

text = st.text(alphabet=st.characters(), max_size=8)  # with lone surrogates
numbers = st.integers(0, 2**40)
times = st.floats(0, 1e10)
details = st.builds(
    Detail,
    type_name=text,
    message=text,
    traceback=text,
    exception=st.none() | st.binary(max_size=8),
    after_seconds=st.none() | times,
    retriable=st.booleans(),
    abandoned=st.booleans(),
)
lines = st.builds(LogLine, numbers, numbers, st.integers(0, 3), times, st.integers(0, 50), text, text)
logs = st.lists(lines, max_size=3).map(tuple)
by_entry = st.dictionaries(numbers, details, max_size=3)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Tables whose columns are of one length."""
    outcomes = bytes(draw(st.lists(st.sampled_from(Outcome), max_size=5)))
    column = st.lists(times, min_size=len(outcomes), max_size=len(outcomes)).map(lambda v: array("d", v))
    return Table(
        batch_id=draw(numbers),
        execution_id=draw(text),
        worker=draw(text),
        started=draw(times),
        outcomes=outcomes,
        offsets=draw(column),
        durations=draw(column),
        details=draw(by_entry),
        lengths=draw(st.dictionaries(numbers, numbers, max_size=3)),
        logs=draw(logs),
        stored=draw(st.lists(st.none() | st.builds(Stored, text, text), max_size=2).map(tuple)),
        names=draw(st.dictionaries(numbers, text, max_size=3)),
        cpu_seconds=draw(times),
        logs_dropped=draw(numbers),
        moved_bytes=draw(numbers),
        missing=draw(st.lists(numbers, max_size=2).map(tuple)),
        results=draw(st.binary(max_size=5)),
    )


messages = st.one_of(
    tables(),
    st.builds(BatchStarted, numbers, text, text, times),
    st.builds(BatchProgress, numbers, text, text, numbers, times, st.binary(max_size=5), by_entry, logs),
    st.builds(Call, text, numbers, text, numbers, text, st.binary(max_size=5)),
)


@given(messages)
def test_messages_survive(message: Any) -> None:
    """Every message is the same after its way through bytes, whatever text is in it."""
    assert codec.unpack(codec.pack(message)) == message


@given(messages, st.data())
def test_truncated_messages(message: Any, data: st.DataObject) -> None:
    """A message that lacks its end is an error of ours that says so."""
    packed = codec.pack(message)
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    with pytest.raises(InternalError):
        codec.unpack(cut)


@given(st.binary(max_size=40))
def test_garbage(data: bytes) -> None:
    """Random bytes raise nothing else."""
    with pytest.raises(InternalError):
        codec.unpack(data)


@pytest.mark.parametrize(
    "content",
    [
        (codec.WIRE_VERSION + 1, 1, (1, "e", "w", 0.0)),
        (codec.WIRE_VERSION, 99, ()),
        (codec.WIRE_VERSION, 1, (1, "e")),
        (codec.WIRE_VERSION, 0, (1, "e", "w", 0.0, b"\1\1", bytes(8), bytes(16), {}, {}, [], [], {}, 0.0, 0)),
    ],
)
def test_messages_of_another_make(content: Any) -> None:
    """Another version, an unknown kind, missing fields and columns of unequal length are refused."""
    with pytest.raises(InternalError):
        codec.unpack(msgpack.packb(content))


def test_unpicklable_finds_the_positions() -> None:
    """Each value that cannot be pickled is named with its type; the others are left alone."""
    values = [1, threading.Lock(), lambda: 2, [threading.Lock()], "x"]
    found = dict(codec.unpicklable(values))
    assert list(found) == [1, 3]
    assert "lock" in str(found[1])
    assert list(codec.unpicklable([1, 2])) == []


def test_functions_by_value() -> None:
    """What cannot be imported elsewhere travels whole, and a digest tells equal payloads."""
    offset = 3
    payload = codec.dump_payload(lambda x: x + offset, cached=True)
    assert codec.loads(payload.data or b"")(4) == 7
    assert codec.dump_payload([1], cached=True) == codec.dump_payload([1], cached=True)
    assert codec.dump_payload([1]).digest == ""


def test_exceptions() -> None:
    """Only exceptions whose pickles load are sent, and no huge ones."""
    error = codec.loads(codec.dump_exception(ValueError("x", 1)) or b"")
    assert (type(error), error.args) == (ValueError, ("x", 1))
    assert codec.dump_exception(UnpicklableError()) is None
    assert codec.dump_exception(ValueError(b"x" * (codec.MAX_EXCEPTION + 1))) is None
    loaded = codec.dump_exception(UnloadableError(1, "x"))
    assert loaded is None or isinstance(codec.loads(loaded), UnloadableError)
