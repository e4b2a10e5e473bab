"""Bytes: pickles of user objects, and tables and events as msgpack.

Pickles are made with the standard pickler where it can and with cloudpickle where it cannot (functions of
`__main__`, lambdas, local classes). Control messages are msgpack with a fixed schema; the only pickles
inside are exceptions of user code, and these are loaded when somebody raises them.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any

import cloudpickle
import msgpack

from . import schema
from .buffers import copy_buffer, writable
from .errors import InternalError, SerializationError
from .messages import (
    BatchProgress,
    BatchStarted,
    Call,
    Detail,
    LogLine,
    Payload,
    Stored,
    Table,
)

WIRE_VERSION = 8
PROTOCOL = 5
SMALL_BUFFER = 16 << 10  # bytes of an array from which on it is not copied into the pickle
MAX_EXCEPTION = 1 << 20  # bytes of a pickled exception; some hold a whole response or data frame
SURROGATES = "surrogatepass"  # user code may print what is no valid text: file names, bad input


def dumps(value: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """Pickle by value what cannot be imported elsewhere, by reference what can."""
    with io.BytesIO() as file:
        _Pickler(file, protocol=PROTOCOL, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles exceptions as they say themselves, whatever else this process has imported.

    `distributed` has tblib replace the way of all exceptions, and that loses what built-in ones keep outside
    of `args`: a SyntaxError arrives without its message, a UnicodeDecodeError empty. The others are made by a call
    with their `args`, which is not what an `__init__` of the user's own takes: see `_made_again`.
    """

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, BaseException):
            return super().reducer_override(obj)
        kind, reduced = type(obj), obj.__reduce_ex__(PROTOCOL)
        if _builtin_base(kind) is kind or _says_how(kind):
            return reduced
        return _made_again, (kind, reduced[1], obj.args), *reduced[2:]


def _made_again(kind: type[BaseException], given: tuple[Any, ...], args: tuple[Any, ...]) -> BaseException:
    """Return an exception with these `args`, whatever its `__init__` makes of them: a longer text, or an error."""
    try:
        made = kind(*given)
    except Exception:
        return _made_bare(kind, given, args)
    made.args = args
    return made


def _made_bare(kind: type[BaseException], given: tuple[Any, ...], args: tuple[Any, ...]) -> BaseException:
    """Return an exception that was made without the `__init__` of its own."""
    made = kind.__new__(kind, *given)
    _builtin_base(kind).__init__(made, *given)
    made.args = args
    return made


def _says_how(kind: Any) -> bool:
    """Whether a class of the user's own says itself how it is pickled."""
    return FunctionType in (type(kind.__reduce__), type(kind.__reduce_ex__))


def _builtin_base(kind: type[BaseException]) -> Any:
    mro: tuple[Any, ...] = kind.__mro__
    return next(base for base in mro if type(base.__init__) is not FunctionType)


def loads(data: bytes) -> Any:
    return pickle.loads(data)


def dump_payload(value: Any, *, cached: bool = False) -> Payload:
    """Return a pickled payload. Large buffers are not copied: it has to be sent before they change.

    Args:
        cached: give it a digest, by which workers keep it, and copy its buffers, so that all get the same.
    """
    buffers: list[memoryview] = []

    def leave_out(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < SMALL_BUFFER:
            return True  # pickle takes it in
        buffers.append(view.toreadonly())
        return False

    data = dumps(value, leave_out)
    if not cached:
        return Payload(data=data, buffers=buffers)
    copies = [memoryview(copy_buffer(view)).toreadonly() for view in buffers]
    hasher = hashlib.sha256(data)  # 100 MB: 67 ms, blake2b 121, where the processor has instructions for it
    for copy in copies:
        hasher.update(copy)
    return Payload(data=data, digest=hasher.hexdigest(), buffers=copies)


def load_payload(payload: Payload) -> Any:
    """Return an object of one's own: what can be written to is shared with nobody."""
    assert payload.data is not None
    return pickle.loads(payload.data, buffers=map(writable, payload.buffers))


def dump_exception(error: BaseException) -> bytes | None:
    """Pickle an exception, without its traceback and what cannot be pickled; None if it is huge or cannot be loaded."""
    data = _dump_exception(error)
    if data is None and not _says_how(type(error)):
        data = _dump_exception(_Lighter(error))
    return data


def _dump_exception(error: Any) -> bytes | None:
    try:
        data = dumps(error)
        return data if len(data) <= MAX_EXCEPTION and isinstance(loads(data), BaseException) else None
    except Exception:  # whatever a user's __reduce__ or __init__ raises
        return None


class _Lighter:
    """Is loaded as an exception without those of its attributes that cannot be pickled; a note says which."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error, kept, missing = self.error, dict[str, Any](), list[str]()
        for name, value in vars(error).items():
            if _problem(value) is None:
                kept[name] = value
            else:
                missing.append(name)
        if missing:
            note = f"(without {', '.join(missing)}, which cannot be pickled)"
            kept["__notes__"] = [*getattr(error, "__notes__", ()), note]
        given = tuple(map(_or_text, _builtin_base(type(error)).__reduce__(error)[1]))
        return _made_bare, (type(error), given, tuple(map(_or_text, error.args))), kept


def _or_text(value: Any) -> Any:
    return value if _problem(value) is None else repr(value)


def unpicklable(values: Sequence[Any]) -> Iterator[tuple[int, SerializationError]]:
    """Yield the positions of values that cannot be pickled, and why."""
    for position, value in enumerate(values):
        problem = _problem(value)
        if problem is not None:
            yield (
                position,
                SerializationError(
                    f"the result, of type {type(value).__qualname__}, cannot be pickled, so it cannot leave "
                    f"the worker: {problem}. Return plain data, or use ThreadPoolTaskRunner."
                ),
            )


class _Nowhere(io.RawIOBase):
    """Takes bytes and keeps none: for finding out whether a value can be pickled."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


def _problem(value: Any) -> Exception | None:
    """Return why a value cannot be pickled, or None if it can."""
    for pickler in (pickle.Pickler, cloudpickle.Pickler):
        try:
            pickler(_Nowhere(), PROTOCOL, buffer_callback=lambda _: None).dump(value)
            return None
        except Exception as error:  # a user's __reduce__ may raise anything
            problem = error
    return problem


# --- control messages ----------------------------------------------------------------------------

_TABLE, _STARTED, _PROGRESS, _CALL = range(4)


def pack(message: Table | BatchStarted | BatchProgress | Call) -> bytes:
    """Return a control message as bytes."""
    match message:
        case Table():
            body = _TABLE, _table_out(message)
        case BatchStarted(batch_id, execution_id, worker, at):
            body = _STARTED, (batch_id, execution_id, worker, at)
        case BatchProgress():
            body = _PROGRESS, _progress_out(message)
        case Call(call_id, batch_id, execution_id, entry, kind, payload):
            body = _CALL, (call_id, batch_id, execution_id, entry, kind, payload)
    return bytes(msgpack.packb((WIRE_VERSION, *body), use_bin_type=True, unicode_errors=SURROGATES))


def unpack(data: bytes) -> Table | BatchStarted | BatchProgress | Call:
    """Return the message in `data`.

    Raises:
        InternalError: the bytes are no message of this version.
    """
    try:
        if len(data) > schema.MAX_BYTES:
            raise ValueError(f"it has {len(data)} bytes")
        version, kind, body = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=False,
            unicode_errors=SURROGATES,
        )
        if version != WIRE_VERSION:
            raise ValueError(f"wire version {version}, this process speaks {WIRE_VERSION}")
        return _READERS[kind](body)
    except Exception as error:
        raise InternalError(f"a worker sent a message that cannot be read: {error}") from error


def _table_out(t: Table) -> tuple[Any, ...]:
    return (
        t.batch_id,
        t.execution_id,
        t.worker,
        t.started,
        t.outcomes,
        t.offsets.tobytes(),
        t.durations.tobytes(),
        _details_out(t.details),
        dict(t.lengths),
        [_line_out(line) for line in t.logs],
        [None if s is None else (s.url, s.digest) for s in t.stored],
        dict(t.names),
        t.cpu_seconds,
        t.logs_dropped,
        t.moved_bytes,
        list(t.missing),
        list(t.missing_files),
        t.results,
    )


def _table_in(body: Any) -> Table:
    body = schema.fields(body, schema.TABLE, "a table")
    n = len(schema.outcomes(body[4]))
    return Table(
        batch_id=body[0],
        execution_id=body[1],
        worker=body[2],
        started=body[3],
        outcomes=body[4],
        offsets=schema.column(body[5], n),
        durations=schema.column(body[6], n),
        details=_details_in(body[7], n),
        lengths=schema.sparse(body[8], n, int, "the length"),
        logs=_lines_in(body[9]),
        stored=tuple(
            None if s is None else Stored(*schema.fields(s, schema.STORED, "a file of results"))
            for s in body[10]
        ),
        names=schema.sparse(body[11], n, str, "the name"),
        cpu_seconds=body[12],
        logs_dropped=body[13],
        moved_bytes=body[14],
        missing=tuple(schema.fields(body[15], (int,) * len(body[15]), "the missing batches")),
        missing_files=tuple(schema.fields(body[16], (str,) * len(body[16]), "the missing files")),
        results=body[17],
    )


def _progress_out(p: BatchProgress) -> tuple[Any, ...]:
    lines = [_line_out(line) for line in p.logs]
    details = _details_out(p.details)
    return p.batch_id, p.execution_id, p.worker, p.entry, p.since, p.outcomes, details, lines, p.closed


def _progress_in(body: Any) -> BatchProgress:
    body = schema.fields(body, schema.PROGRESS, "a progress message")
    return BatchProgress(
        batch_id=body[0],
        execution_id=body[1],
        worker=body[2],
        entry=body[3],
        since=body[4],
        outcomes=body[5],
        details=_details_in(body[6], len(schema.outcomes(body[5]))),
        logs=_lines_in(body[7]),
        closed=body[8],
    )


def _details_out(details: Mapping[int, Detail]) -> dict[int, tuple[Any, ...]]:
    return {
        entry: (
            d.type_name,
            d.message,
            d.traceback,
            d.exception,
            d.after_seconds,
            d.retriable,
            d.abandoned,
        )
        for entry, d in details.items()
    }


def _details_in(body: Mapping[int, Any], entries: int) -> dict[int, Detail]:
    found = schema.sparse(body, entries, list, "the detail")
    return {entry: Detail(*schema.fields(d, schema.DETAIL, "a detail")) for entry, d in found.items()}


def _lines_in(body: Sequence[Any]) -> tuple[LogLine, ...]:
    return tuple(LogLine(*schema.fields(line, schema.LINE, "a log line")) for line in body)


def _line_out(line: LogLine) -> tuple[Any, ...]:
    return line.seq, line.position, line.stage, line.at, line.level, line.logger, line.message


_READERS: dict[int, Callable[[Any], Table | BatchStarted | BatchProgress | Call]] = {
    _TABLE: _table_in,
    _STARTED: lambda body: BatchStarted(*schema.fields(body, schema.STARTED, "a start")),
    _PROGRESS: _progress_in,
    _CALL: lambda body: Call(*schema.fields(body, schema.CALL, "a call")),
}
