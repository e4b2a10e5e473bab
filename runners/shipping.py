"""How a batch gets to a worker process: one parcel of bytes, without what that process has already.

Large payloads that many batches need (the static arguments of a map, a large function) stay out of parcels.
A worker process gets each once, by the engine's own way, and keeps it in its `PayloadStore`. A batch still
gets an object of its own, as if it had come in the parcel: it may write to it, and no other batch sees that.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

from .buffers import copy_buffer
from .codec import PROTOCOL
from .errors import ResultLostError
from .messages import Batch, Payload

LARGE_BYTES = 32 << 10  # from here on a payload with a digest travels once per worker process
MAX_KEPT_BYTES = 1 << 30  # of payloads in one worker process, the one used last not counted
PAYLOAD_CALL = "payload"  # the kind of call that asks for the payload with a digest
ASK_AGAIN_SECONDS = 2.0  # requests and answers may get lost


def seal(header: Sequence[Any], content: Any) -> bytes:
    """Return a parcel. Its header can be read before, and in spite of what, the content is made of."""
    buffers: list[memoryview] = []
    file = io.BytesIO()
    _Sealer(file, PROTOCOL, buffer_callback=lambda b: buffers.append(b.raw())).dump(content)
    data = file.getbuffer()
    label = pickle.dumps((*header, [len(data), *map(len, buffers)]), PROTOCOL)
    return b"".join((label, data, *buffers))


class _Sealer(pickle.Pickler):
    """Leaves the bytes of payloads out of band, so that packing a batch does not copy them."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not Payload or value.data is None:
            return NotImplemented
        buffers = [pickle.PickleBuffer(buffer) for buffer in value.buffers]
        return Payload, (value.value, pickle.PickleBuffer(value.data), value.digest, buffers)


def read_label(parcel: bytes) -> tuple[list[Any], list[memoryview]]:
    """Return the header of a parcel and its sealed content."""
    file = io.BytesIO(parcel)
    *header, lengths = pickle.load(file)
    ends = accumulate(lengths, initial=file.tell())
    return header, [memoryview(parcel)[start:end] for start, end in pairwise(ends)]


def unseal(sealed: Sequence[memoryview]) -> Any:
    return pickle.loads(sealed[0], buffers=sealed[1:])


def map_payloads(batch: Batch, change: Callable[[Payload], Payload]) -> Batch:
    """Return `batch` with every payload changed."""
    stages = tuple(
        replace(
            stage,
            body=change(stage.body),
            arguments=change(stage.arguments),
            shared=None if stage.shared is None else change(stage.shared),
        )
        for stage in batch.stages
    )
    inputs = tuple(i if i.literal is None else replace(i, literal=change(i.literal)) for i in batch.inputs)
    return replace(batch, stages=stages, inputs=inputs, context=change(batch.context))


def slim(batch: Batch) -> tuple[Batch, dict[str, Payload]]:
    """Leave out what workers keep. Returns the rest and, by digest, what was left out."""
    left: dict[str, Payload] = {}

    def leave(payload: Payload) -> Payload:
        if not payload.digest or payload.nbytes < LARGE_BYTES:
            return payload
        left[payload.digest] = payload
        return Payload(digest=payload.digest)

    if not any(p.digest and p.nbytes >= LARGE_BYTES for p in _common_payloads(batch)):
        return batch, left
    return map_payloads(batch, leave), left


def complete(batch: Batch, find: Callable[[str], Payload]) -> Batch:
    """Put back what `slim` has left out."""

    def found(payload: Payload) -> Payload:
        return find(payload.digest) if payload.data is None and payload.digest else payload

    if not any(p.data is None for p in _common_payloads(batch)):
        return batch
    return map_payloads(batch, found)


def _common_payloads(batch: Batch) -> list[Payload]:
    """Return the payloads of a batch that other batches need too."""
    return [
        batch.context,
        *(p for stage in batch.stages for p in (stage.body, stage.shared) if p is not None),
    ]


class PayloadStore:
    """Payloads of this worker process by digest, least recently used first."""

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._refusals: Counter[str] = Counter()

    def get(self, digest: str) -> Payload | None:
        """Return a payload with buffers of its own, if it is here."""
        with self._changed:
            kept = self._kept.get(digest)
            if kept is None:
                return None
            self._kept.move_to_end(digest)
        return kept.copy(digest)

    def put(self, digest: str, data: Any, buffers: Sequence[Any]) -> Payload:
        """Keep a payload, and return it with buffers of its own."""
        kept = _Kept(data, buffers)
        with self._changed:
            self._kept[digest] = kept
            self._kept.move_to_end(digest)
            while len(self._kept) > 1 and sum(k.nbytes for k in self._kept.values()) > self._max_bytes:
                self._kept.popitem(last=False)
            self._changed.notify_all()
        return kept.copy(digest)

    def refuse(self, digest: str) -> None:
        """Tell those who wait for a payload that nobody has it any more."""
        with self._changed:
            self._refusals[digest] += 1
            self._changed.notify_all()

    def await_payload(self, digest: str, ask: Callable[[], None], wanted: Callable[[], bool]) -> Payload:
        """Return a payload; while it is not here, `ask` for it and wait until it is put.

        Raises:
            ResultLostError: it was refused, or is no longer `wanted`.
        """
        with self._changed:
            refusals = self._refusals[digest]

            def settled() -> bool:
                return digest in self._kept or self._refusals[digest] > refusals

            while digest not in self._kept:
                ask()
                self._changed.wait_for(settled, ASK_AGAIN_SECONDS)
                if self._refusals[digest] > refusals or not wanted():
                    raise ResultLostError("the flow's process no longer has the arguments of this batch")
            kept = self._kept[digest]
            self._kept.move_to_end(digest)
        return kept.copy(digest)


class _Kept:
    """A payload at rest."""

    def __init__(self, data: Any, buffers: Sequence[Any]) -> None:
        self._data = bytes(data)
        self._pages = _pages_of(buffers) if buffers else None
        self.nbytes = len(self._data) + (self._pages.nbytes if self._pages else 0)

    def copy(self, digest: str) -> Payload:
        return Payload(data=self._data, digest=digest, buffers=self._pages.copy() if self._pages else ())


class _CopiedPages:
    """Buffers that are copied for each batch: where the system has no anonymous files."""

    def __init__(self, buffers: Sequence[Any]) -> None:
        self._buffers = [bytes(buffer) for buffer in buffers]
        self.nbytes = sum(map(len, self._buffers))

    def copy(self) -> list[Any]:
        return [copy_buffer(buffer) for buffer in self._buffers]


class _MappedPages:
    """Buffers in an anonymous file, which each batch maps privately: the kernel copies pages on write."""

    def __init__(self, buffers: Sequence[Any]) -> None:
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        padded = ((view.nbytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT for view in views)
        *starts, self.nbytes = accumulate(padded, initial=0)
        self._spans = [slice(start, start + view.nbytes) for start, view in zip(starts, views, strict=True)]
        self._file = os.memfd_create("millrace-arguments")
        weakref.finalize(self, os.close, self._file)
        os.ftruncate(self._file, self.nbytes)
        for start, view in zip(starts, views, strict=True):
            self._write(start, view)

    def _write(self, start: int, view: memoryview) -> None:
        """Write to the file. By way of a mapping there would be a page fault for each 4 KiB: twice the time."""
        while view:  # at most 2 GiB at once
            written = os.pwrite(self._file, view, start)
            start, view = start + written, view[written:]

    def copy(self) -> list[Any]:
        pages = memoryview(mmap.mmap(self._file, self.nbytes, access=mmap.ACCESS_COPY))
        return [pages[span] for span in self._spans]


ALIGNMENT = 64  # bytes, as NumPy's own buffers may have it
_pages_of = _MappedPages if hasattr(os, "memfd_create") else _CopiedPages
