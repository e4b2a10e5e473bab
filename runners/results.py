"""Results of a batch as they rest on an engine that works with bytes.

The values are pickled once, on the worker that made them, which also shows which of them cannot be; large
buffers (NumPy arrays, data frames) stay out of band, so that moving them costs no copy. Consumers get their
own objects, as from another process: a buffer that could be written to is copied when it is loaded.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import cloudpickle
import msgpack

from . import schema
from .buffers import copy_buffer
from .codec import PROTOCOL
from .errors import InternalError

SMALL_RESULTS = 4 << 10  # bytes of a batch's results that come along with its table

Frame = tuple[Any, list[Any]]  # a pickle and its out-of-band buffers


class CheckedResults(list[list[Any]]):
    """Results by stage and position, with the pickles that were made to see whether that is possible."""

    __slots__ = ("frames",)

    def __init__(self, results: Sequence[list[Any]], frames: list[Frame]) -> None:
        super().__init__(results)
        self.frames = frames


class PackedResults:
    """The results of all stages of a batch, pickled per stage."""

    __slots__ = ("frames",)

    def __init__(self, frames: list[Frame]) -> None:
        self.frames = frames

    @classmethod
    def pack(cls, results: Sequence[Sequence[Any]]) -> PackedResults:
        """Pickle results, by stage and position."""
        if isinstance(results, CheckedResults):
            return cls(results.frames)
        return cls([pack_values(values) for values in results])

    def small(self) -> bytes:
        """Return small results as bytes, which engines move at less cost than an object; else nothing."""
        if any(buffers for _, buffers in self.frames) or bytes_of(self.frames) > SMALL_RESULTS:
            return b""
        return bytes(msgpack.packb([data for data, _ in self.frames]))

    @classmethod
    def of_small(cls, data: bytes) -> PackedResults:
        """Return what `small` has made bytes of.

        Raises:
            InternalError: the bytes are something else.
        """
        try:
            body = msgpack.unpackb(data)
            frames = schema.fields(body, (bytes,) * len(body), "what a table holds of results")
        except Exception as error:
            raise InternalError(f"a worker sent results that cannot be read: {error}") from error
        return cls([(frame, []) for frame in frames])

    def load(self, stage: int) -> list[Any]:
        """Return the values of a stage by position."""
        data, buffers = self.frames[stage]
        values: list[Any] = pickle.loads(data, buffers=map(_own, buffers))
        return values

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Keep buffers out of band on the engine's own way, too."""
        if protocol < PROTOCOL:
            return PackedResults, ([(bytes(d), [bytes(b) for b in bs]) for d, bs in self.frames],)
        wrap = pickle.PickleBuffer
        return PackedResults, ([(wrap(d), [wrap(b) for b in bs]) for d, bs in self.frames],)

    def __sizeof__(self) -> int:
        """The payload's size, by which Dask decides on memory."""
        return 64 + bytes_of(self.frames)


def opened(value: PackedResults | bytes) -> PackedResults:
    """Return results that an engine has held, perhaps as `small` bytes."""
    return PackedResults.of_small(value) if isinstance(value, bytes) else value


def pack_values(values: Sequence[Any]) -> Frame:
    """Pickle the results of one stage. Raises whatever their `__reduce__` does."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps(values, PROTOCOL, buffer_callback=buffers.append)
    except Exception:  # something of __main__: by value
        buffers.clear()
        data = cloudpickle.dumps(values, PROTOCOL, buffer_callback=buffers.append)
    return data, [buffer.raw() for buffer in buffers]


def bytes_of(frames: Sequence[Frame]) -> int:
    """Return how long pickles and their buffers are together."""
    return sum(len(data) + sum(memoryview(b).nbytes for b in buffers) for data, buffers in frames)


def own_copy(value: Any) -> Any:
    """Return a value as its consumer gets it, which must not see what others do to it. Raises as `pack_values`."""
    if type(value) in IMMUTABLE:
        return value
    return PackedResults([pack_values([value])]).load(0)[0]


IMMUTABLE = frozenset({int, float, str, bytes, bool, complex, type(None)})


def _own(buffer: Any) -> Any:
    view = memoryview(buffer)
    return view if view.readonly else copy_buffer(view)
