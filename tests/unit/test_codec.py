"""Control messages and pickles: what goes in comes out, and garbage is called garbage."""

from __future__ import annotations

import threading
from array import array
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners import codec, schema
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


def by_entry(entries: int, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[int, Any]]:
    """Something to say of some of so many entries."""
    return st.dictionaries(st.integers(0, entries - 1), values, max_size=3) if entries else st.just({})


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
        details=draw(by_entry(len(outcomes), details)),
        lengths=draw(by_entry(len(outcomes), numbers)),
        logs=draw(logs),
        stored=draw(st.lists(st.none() | st.builds(Stored, text, text), max_size=2).map(tuple)),
        names=draw(by_entry(len(outcomes), text)),
        cpu_seconds=draw(times),
        logs_dropped=draw(numbers),
        moved_bytes=draw(numbers),
        missing=draw(st.lists(numbers, max_size=2).map(tuple)),
        missing_files=draw(st.lists(text, max_size=2).map(tuple)),
        results=draw(st.binary(max_size=5)),
    )


@st.composite
def progress(draw: st.DrawFn) -> BatchProgress:
    ended = bytes(draw(st.lists(st.sampled_from(Outcome), max_size=5)))
    said = draw(by_entry(len(ended), details))
    return BatchProgress(
        draw(numbers), draw(text), draw(text), draw(numbers), draw(times), ended, said, draw(logs)
    )


messages = st.one_of(
    tables(),
    st.builds(BatchStarted, numbers, text, text, times),
    progress(),
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


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | text
    | st.binary(max_size=20)
    | st.sampled_from([2**60, -1, b"\xff" * 8, b"\x00" * 7]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text | st.integers(-3, 3), inner, max_size=3),
    max_leaves=6,
)


@given(messages, st.data())
def test_messages_with_a_strange_part(message: Any, data: st.DataObject) -> None:
    """Whatever stands in the place of a field, at any depth: the message is refused, or each field is of its kind."""
    whole = msgpack.unpackb(codec.pack(message), strict_map_key=False, unicode_errors=codec.SURROGATES)
    part, depth = whole[2], data.draw(st.integers(0, 2))
    while True:
        keys: list[Any] = list(part) if isinstance(part, dict) else list(range(len(part)))
        key = data.draw(st.sampled_from(keys))
        inner = part[key]
        if not depth or not isinstance(inner, list | dict) or not inner:
            part[key] = data.draw(values)
            break
        part, depth = inner, depth - 1
    try:
        read = codec.unpack(msgpack.packb(whole, unicode_errors=codec.SURROGATES))
    except InternalError:
        return
    assert same_kinds(read)
    assert codec.unpack(codec.pack(read)) == read


def same_kinds(message: Any) -> bool:
    """Whether the fields of a message are what its annotations say, as far as others rely on it."""
    match message:
        case Table():
            n = len(message.outcomes)
            keys = [*message.details, *message.lengths, *message.names]
            return (
                isinstance(message.batch_id, int)
                and isinstance(message.worker, str)
                and len(message.offsets) == len(message.durations) == n
                and all(isinstance(k, int) and 0 <= k < n for k in keys)
                and all(isinstance(d.message, str) for d in message.details.values())
                and all(isinstance(b, int) for b in message.missing)
                and all(isinstance(url, str) for url in message.missing_files)
                and set(message.outcomes) <= set(Outcome)
            )
        case BatchProgress():
            return isinstance(message.entry, int) and all(
                isinstance(line.message, str) for line in message.logs
            )
        case BatchStarted() | Call():
            return isinstance(message.batch_id, int) and isinstance(message.execution_id, str)
    return False


def test_a_message_without_bounds() -> None:
    """What is far longer than any batch's record is not even looked at."""
    with pytest.raises(InternalError, match="bytes"):
        codec.unpack(_Huge())


class _Huge(bytes):
    def __len__(self) -> int:
        return schema.MAX_BYTES + 1


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
