"""The verbs of the port: their arguments and answers as bytes, and how several travel together.

`VERSION` grows with every change of the forms or of what they mean: processes of other versions are told so,
and nothing is guessed. What a process has buffered is sent by later versions, too: give a new field of a journal entry
a default, at the end. Requests are at most MAX_REQUEST_BYTES long.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

import msgpack

from ...core.journal import AttemptsEnded, Entry, LogWritten, Moved, StartRepeated
from ...core.states import State
from ..base import Store
from .schema import Form, WireError, form_of, hints_of

VERSION = 11
VERSION_HEADER = "Millrace-Store"
MAX_REQUEST_BYTES = 64 << 20
LEASES_TOPIC, ANY_TOPIC = "leases", "any"  # in the stream of news; other topics are ids of runs

# What must not be done twice, nor late: it travels with a number.
NUMBERED = frozenset({"create_run", "claim", "append", "request", "set_limit", "remove_limit", "acquire"})
# What may be repeated: it says how things are, or ends what has ended.
REPEATABLE = frozenset({"heartbeat", "reap", "release"})
OF_ALL_RUNS = frozenset({"set_limit", "remove_limit"})
READING = frozenset(
    {
        *(
            "requests",
            "recovered",
            "next_ids",
            "runs",
            "tally",
            "run",
            "nodes",
            "task_runs",
            "states",
            "timeline",
        ),
        *("attempts", "history", "timing", "logs", "failures", "limits", "leases"),
    }
)
VERBS = NUMBERED | REPEATABLE | READING

_STATES = frozenset(State)


class Sending(IntEnum):
    """When what a process wrote is sent."""

    AT_ONCE = 0
    BUFFERED = 1  # later, by the process that wrote it
    LEFT = 2  # later, by another process: the one that wrote it has ended


@dataclass(frozen=True, slots=True)
class Call:
    """One verb with its arguments.

    Attributes:
        mark: of the process that a run is created or claimed for, see stores/liveness.py; where the flow runs can
            tell it, the server cannot.
    """

    verb: str
    arguments: dict[str, Any]
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Calls that are one transaction."""

    number: int
    calls: Sequence[Call]


@dataclass(frozen=True, slots=True)
class Writing:
    """Groups of one writer, in the order of their numbers."""

    writer_id: str
    sending: Sending
    groups: Sequence[Group]


@cache
def _verb(name: str) -> tuple[dict[str, Form], Form]:
    """Return the forms of a verb's arguments and of its answer, as its signature says."""
    method = getattr(Store, name)
    hints = hints_of(method)
    names = [parameter for parameter in inspect.signature(method).parameters if parameter != "self"]
    return {parameter: form_of(hints[parameter]) for parameter in names}, form_of(hints["return"])


def schema_text() -> str:
    """Return all forms in words: what must not change without VERSION."""
    told = []
    for name in sorted(VERBS):
        arguments, answer = _verb(name)
        inside = ", ".join(f"{parameter}: {form.text}" for parameter, form in arguments.items())
        told.append(f"{name}({inside}) -> {answer.text}")
    return "\n".join(told)


# --- the client's side -----------------------------------------------------------------------------


def pack_call(call: Call) -> bytes:
    """Return a call as bytes."""
    forms, _ = _verb(call.verb)
    values = [form.pack(call.arguments[name]) for name, form in forms.items()]
    return _dumps([call.verb, values, call.mark])


def pack_group(number: int, calls: Iterable[bytes]) -> bytes:
    """Return packed calls as one transaction with a number."""
    return _dumps([number, list(calls)])


def pack_writing(writer_id: str, sending: Sending, groups: Iterable[bytes]) -> bytes:
    """Return packed groups as the body of a request."""
    return _dumps([writer_id, int(sending), list(groups)])


def unpack_answer(verb: str, data: bytes) -> Any:
    return _verb(verb)[1].unpack(_loads(data))


def unpack_answers(data: bytes) -> list[bytes]:
    """Return the packed answer of each call of a transaction."""
    return _list(_loads(data))


# --- the server's side -----------------------------------------------------------------------------


def unpack_call(data: bytes, allowed: frozenset[str]) -> Call:
    """Read a call.

    Raises:
        WireError: it is none of the allowed ones, or its arguments are not of their types.
    """
    verb, values, mark = _list(_loads(data), 3)
    if type(verb) is not str or verb not in allowed:
        raise WireError(f"there is no verb {verb!r} here")
    forms, _ = _verb(verb)
    given = zip(forms.items(), _list(values, len(forms)), strict=True)
    arguments = {name: form.unpack(value) for (name, form), value in given}
    if verb == "append":
        for entry in arguments["entries"]:
            _check(entry)
    return Call(verb, arguments, mark if type(mark) is str else None)


def unpack_writing(data: bytes) -> Writing:
    """Read the body of a request that writes.

    Raises:
        WireError
    """
    writer_id, sending, packed = _list(_loads(data), 3)
    if type(writer_id) is not str or not 0 < len(writer_id) <= 64 or sending not in tuple(Sending):
        raise WireError("a request does not say who writes")
    groups = []
    for one in _list(packed):
        number, calls = _list(_loads(one), 2)
        if type(number) is not int or number < 1:
            raise WireError("a transaction has no number")
        groups.append(Group(number, [unpack_call(call, NUMBERED) for call in _list(calls)]))
    if not groups:
        raise WireError("a request writes nothing")
    return Writing(writer_id, Sending(sending), groups)


def pack_answer(verb: str, value: Any) -> bytes:
    return _dumps(_verb(verb)[1].pack(value))


def pack_answers(answers: Sequence[bytes]) -> bytes:
    return _dumps(list(answers))


def _check(entry: Entry) -> None:
    """Refuse columns of unequal length and states that there are not: they could not be read again."""
    match entry:
        case AttemptsEnded():
            n = len(entry.indices)
            columns = (
                *(entry.attempts, entry.outcomes, entry.states),
                *(entry.started, entry.durations, entry.positions),
            )
            if any(len(column) != n for column in columns) or not _STATES.issuperset(entry.states):
                raise WireError("the columns of ended attempts do not belong together")
            places = (*entry.details, *entry.names, *entry.lengths)
            if any(not 0 <= k < n for k in places):
                raise WireError("a detail is of no attempt")
        case LogWritten():
            if not len(entry.items) == len(entry.attempts) == len(entry.lines):
                raise WireError("the columns of log lines do not belong together")
        case Moved() | StartRepeated():
            pass


def _list(value: Any, length: int | None = None) -> list[Any]:
    if type(value) is not list or (length is not None and len(value) != length):
        raise WireError("a request is not of the form that was agreed upon")
    return value


def _dumps(value: Any) -> bytes:
    data: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return data


def _loads(data: Any) -> Any:
    if type(data) is not bytes:
        raise WireError("bytes expected")
    try:
        return msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass")
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"msgpack cannot be read: {error}") from None
