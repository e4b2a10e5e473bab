"""Results of a batch as they rest on an engine that works with bytes.

The values are pickled once, on the worker that made them, which also shows which of them cannot be; large
buffers (NumPy arrays, data frames) stay out of band, so that moving them costs no copy. Consumers get their
own objects, as from another process, whether the engine shares memory or not: a buffer that its maker could
write to is copied when it is loaded. What was read-only there stays so, and is read where it lies.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import cloudpickle
import msgpack

from . import schema
from .buffers import copy_buffer, writable
from .codec import PROTOCOL
from .errors import InternalError

SMALL_RESULTS = 4 << 10  # bytes of a batch's results that come along with its table
LARGE_STAGE = 1 << 20  # bytes of buffers, from which on values are pickled one by one ...
LARGE_VALUE = 64 << 10  # ... if they have as many on average: who reads one of them copies no other

# A pickled list, its out-of-band buffers, and for each of these 1 if its maker could not write to it, else 0:
# engines forget that, and Ray's shared memory is read-only for everybody.
Frame = tuple[Any, list[Any], bytes]
Frames = list[Frame]  # of a stage: one with all values, or one for each


class CheckedResults(list[list[Any]]):
    """Results by stage and position, with the pickles that were made to see whether that is possible."""

    __slots__ = ("frames",)

    def __init__(self, results: Sequence[list[Any]], frames: list[Frames]) -> None:
        super().__init__(results)
        self.frames = frames


class PackedResults:
    """The results of all stages of a batch, pickled per stage or per value."""

    __slots__ = ("frames",)

    def __init__(self, frames: list[Frames]) -> None:
        self.frames = frames

    @classmethod
    def pack(cls, results: Sequence[Sequence[Any]]) -> PackedResults:
        """Pickle results, by stage and position."""
        if isinstance(results, CheckedResults):
            return cls(results.frames)
        return cls([pack_values(values) for values in results])

    def small(self) -> bytes:
        """Return small results as bytes, which engines move at less cost than an object; else nothing."""
        if any(f[1] for frames in self.frames for f in frames) or bytes_of(self.frames) > SMALL_RESULTS:
            return b""
        return bytes(msgpack.packb([data for ((data, _, _),) in self.frames]))

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
        return cls([[(frame, [], b"")] for frame in frames])

    def load(self, stage: int) -> list[Any]:
        """Return the values of a stage by position."""
        return [value for frame in self.frames[stage] for value in load_frame(frame)]

    def pick(self, stage: int, positions: Sequence[int]) -> PackedResults:
        """Return some values only, at positions 0, 1, ... of stage 0. They are packed as they lie here, not copied."""
        frames = self.frames[stage]
        if len(frames) > 1:
            return PackedResults([[frames[p] for p in positions]])
        data, buffers, frozen = frames[0]
        values = pickle.loads(data, buffers=map(_as_it_was, buffers, frozen))
        return PackedResults([pack_values([values[p] for p in positions])])

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Keep buffers out of band on the engine's own way, too."""
        wrap: Any = bytes if protocol < PROTOCOL else pickle.PickleBuffer
        frames = [[(wrap(d), [wrap(b) for b in bs], frozen) for d, bs, frozen in fs] for fs in self.frames]
        return PackedResults, (frames,)

    def __sizeof__(self) -> int:
        """The payload's size, by which Dask decides on memory."""
        return 64 + bytes_of(self.frames)


def opened(value: PackedResults | bytes) -> PackedResults:
    """Return results that an engine has held, perhaps as `small` bytes."""
    return PackedResults.of_small(value) if isinstance(value, bytes) else value


def pack_values(values: Sequence[Any]) -> Frames:
    """Pickle the results of one stage. Raises whatever their `__reduce__` does."""
    whole = _pack(values)
    if len(values) < 2 or sum(map(_length, whole[1])) < max(LARGE_STAGE, len(values) * LARGE_VALUE):
        return [whole]
    single = [_pack([value]) for value in values]
    # values that share an array: it would travel, and be kept, once for each of them
    return single if bytes_of([single]) < 1.1 * bytes_of([[whole]]) else [whole]


def _pack(values: Sequence[Any]) -> Frame:
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps(values, PROTOCOL, buffer_callback=buffers.append)
    except Exception:  # something of __main__: by value
        buffers.clear()
        data = cloudpickle.dumps(values, PROTOCOL, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    return data, views, bytes(view.readonly for view in views)


def load_frame(frame: Frame) -> list[Any]:
    """Return the values of a frame as objects of one's own. Raises whatever unpickling user objects does."""
    data, buffers, frozen = frame
    values: list[Any] = pickle.loads(data, buffers=map(_own, buffers, frozen))
    return values


def copied_bytes(frame: Frame) -> int:
    """Return how many bytes `load_frame` copies."""
    return sum(_length(buffer) for buffer, is_frozen in zip(frame[1], frame[2], strict=True) if not is_frozen)


def bytes_of(results: Sequence[Frames]) -> int:
    """Return how long pickles and their buffers are together."""
    return sum(len(data) + sum(map(_length, buffers)) for frames in results for data, buffers, _ in frames)


def own_copy(value: Any) -> Any:
    """Return a value as its consumer gets it, which must not see what others do to it. Raises as `pack_values`."""
    if type(value) in IMMUTABLE:
        return value
    return load_frame(_pack([value]))[0]


IMMUTABLE = frozenset({int, float, str, bytes, bool, complex, type(None)})


def _own(buffer: Any, frozen: int) -> Any:
    return buffer if frozen else copy_buffer(buffer)


def _as_it_was(buffer: Any, frozen: int) -> Any:
    """Return a buffer to pack again, writable if it was: a copy only where it no longer is."""
    return buffer if frozen else writable(buffer)


def _length(buffer: Any) -> int:
    return memoryview(buffer).nbytes
