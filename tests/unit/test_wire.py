"""The Store port as bytes: what goes in comes out, what is malformed is refused."""

from __future__ import annotations

import hashlib
from array import array

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.core.journal import (
    AttemptsEnded,
    Counted,
    Entry,
    LeasesReturned,
    LogWritten,
    Moved,
    NodeAdded,
    Roots,
    RunMoved,
    StartRepeated,
    WidthLearned,
)
from orchestration.core.states import RunState, State
from orchestration.stores.base import RunRow
from orchestration.stores.timeline import Timeline
from orchestration.stores.wire import port
from orchestration.stores.wire.schema import WireError
from orchestration.testing.store_entries import BOOM, NOW, counts, ended, node
from runners.messages import Detail, LogLine, Stored

# The forms of VERSION. If they change, what older programs say cannot be read: raise VERSION, and this.
FORMS = (11, "defad74101e38c89")

ENTRIES: list[Entry] = [
    node(0, 10),
    NodeAdded(1, "p", "t", "single", None, NOW, frozenset({"a"}), (0,), "f", {"retries": 2}, (0, 3)),
    WidthLearned(1, 7),
    Moved(0, range(3, 9), State.RUNNING, NOW, "\udc80", "Cached"),
    Moved(0, [7, 1], State.UPSTREAM_FAILED, NOW, roots=Roots(2, "load", [3, 4])),
    StartRepeated(0, 3, [1, 2], "e", "w", NOW),
    Counted(0, counts(completed=3), (0.5, 0.0, 0.0)),
    LogWritten(-1, [-1], [0], [LogLine(0, 0, 0, NOW, 20, "user", "hello \x00")]),
    LeasesReturned(["a", "b"]),
    RunMoved(RunState.FAILED, NOW, "Failed", "boom", BOOM, 1.5),
    ended(0, [5, 2], details={1: BOOM}, stored=Stored("file:///r", "d"), names={0: "first"}),
]


def received(entries: list[Entry]) -> list[Entry]:
    """Return entries as they arrive."""
    call = port.Call("append", {"run_id": "r", "epoch": 1, "entries": entries})
    body = port.pack_writing("w", port.Sending.AT_ONCE, [port.pack_group(1, [port.pack_call(call)])])
    writing = port.unpack_writing(body)
    (got,) = writing.groups[0].calls
    assert (got.verb, got.arguments["run_id"], got.arguments["epoch"]) == ("append", "r", 1)
    return got.arguments["entries"]


def plain(entry: Entry | Roots) -> list[object]:
    """Return an entry's values, columns of any kind as lists."""
    values = [getattr(entry, name) for name in type(entry).__dataclass_fields__]
    return [
        list(v) if isinstance(v, range | array | list | tuple) else plain(v) if isinstance(v, Roots) else v
        for v in values
    ]


def test_every_kind_of_entry_arrives_as_it_was() -> None:
    """Ranges, arrays and lists arrive as sequences of the same values."""
    got = received(ENTRIES)
    assert [type(entry) for entry in got] == [type(entry) for entry in ENTRIES]
    assert [plain(entry) for entry in got] == [plain(entry) for entry in ENTRIES]


def test_exceptions_do_not_travel() -> None:
    """Of an exception the type, the texts and its pickle are recorded; the object stays where it is."""
    (moved,) = received([RunMoved(RunState.FAILED, NOW, detail=Detail("E", "m", live=ValueError("m")))])
    assert isinstance(moved, RunMoved)
    assert moved.detail == Detail("E", "m")


def test_columns_of_a_timeline_keep_their_types() -> None:
    """Floats of four and of eight bytes, and bytes."""
    line = Timeline(["w"], array("d", [NOW]), array("f", [0.25]), state=bytearray(b"\x03"))
    got = port.unpack_answer("timeline", port.pack_answer("timeline", line))
    assert got == line
    assert got.seconds.typecode == "f"


def test_the_forms_are_those_of_the_version() -> None:
    """Who changes what the port says has to say that it is another version."""
    digest = hashlib.sha256(port.schema_text().encode()).hexdigest()[:16]
    assert (port.VERSION, digest) == FORMS


def without_the_last(count: int, entry: Entry) -> bytes:
    """Return a call with an entry that lacks some fields."""
    call = port.Call("append", {"run_id": "r", "epoch": 1, "entries": [entry]})
    verb, (run_id, epoch, [[kind, fields]]), mark = msgpack.unpackb(port.pack_call(call))
    return msgpack.packb([verb, [run_id, epoch, [[kind, fields[:-count]]]], mark])


def test_what_an_earlier_version_has_buffered_is_read() -> None:
    """Fields that it did not know have their defaults; without those that it knew nothing is read."""
    older = port.unpack_call(
        without_the_last(2, Moved(0, [7, 1], State.RUNNING, NOW, "why", "n", "w")), port.NUMBERED
    )
    assert [plain(entry) for entry in older.arguments["entries"]] == [
        plain(Moved(0, [7, 1], State.RUNNING, NOW, "why", "n"))
    ]
    with pytest.raises(WireError, match="Moved has 4 to 8 fields, not 3"):
        port.unpack_call(without_the_last(5, Moved(0, [7, 1], State.RUNNING, NOW)), port.NUMBERED)


def packed(verb: str, *values: object) -> bytes:
    return msgpack.packb([verb, list(values), None])


BAD_CALLS = {
    "unknown verb": packed("delete_everything", 1),
    "a verb that needs a number": packed("claim", "r", "h", 1, 1.0),
    "too few arguments": packed("states", "r"),
    "a wrong type": packed("states", "r", "0"),
    "a truth for a number": packed("states", "r", True),
    "no list": msgpack.packb({"verb": "states"}),
    "no msgpack": b"\xc1",
    "cut off": packed("states", "r", 0)[:-1],
    "nothing": b"",
}


@pytest.mark.parametrize("data", BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_what_is_no_call_is_refused(data: bytes) -> None:
    """By an error that is of the request, and nothing is done."""
    with pytest.raises(WireError):
        port.unpack_call(data, port.READING)


def a_table(**changes: object) -> AttemptsEnded:
    fields = {name: getattr(ENTRIES[-1], name) for name in AttemptsEnded.__dataclass_fields__}
    return AttemptsEnded(**(fields | changes))


@pytest.mark.parametrize(
    "entry",
    [
        a_table(outcomes=b"\x01"),
        a_table(started=array("d", [1.0])),
        a_table(attempts=range(1 << 40)),
        a_table(states=b"\x03\xf0"),
        a_table(details={2: BOOM}),
        Moved(0, range(1 << 40), State.READY, NOW),
        LogWritten(0, [1, 2], [1], []),
    ],
    ids=["outcomes", "times", "endless", "state", "detail", "endless range", "log lines"],
)
def test_columns_that_do_not_belong_together_are_refused(entry: Entry) -> None:
    """They could be written, and never be read again; a few bytes may stand for terabytes."""
    with pytest.raises(WireError):
        received([entry])


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_are_refused_or_read(data: bytes) -> None:
    """No other error, whatever comes."""
    for read in (port.unpack_writing, lambda data: port.unpack_call(data, port.VERBS)):
        try:
            read(data)
        except WireError:
            pass


def test_a_run_arrives_without_being_opened() -> None:
    """Parameters are JSON for people, and a pickle that stays one."""
    run = RunRow("r", "n", "f", parameters={"x": {1, 2}}, parameters_pickle=b"no pickle at all")
    call = port.unpack_call(port.pack_call(port.Call("create_run", {"run": run}, "mark")), port.NUMBERED)
    got = call.arguments["run"]
    assert (got.parameters, got.parameters_pickle, call.mark) == (
        {"x": "{1, 2}"},
        b"no pickle at all",
        "mark",
    )


def test_answers_that_make_no_sense() -> None:
    """They are refused as such; whoever reads them asks again."""
    for data in (b"<html>", port.pack_answer("run", RunRow("r", "n", "f"))[:-2], msgpack.packb(7)):
        with pytest.raises(WireError):
            port.unpack_answers(data)
        with pytest.raises(WireError):
            port.unpack_answer("run", data)
