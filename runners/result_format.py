"""The format of a result file: one entry per item of a batch, each readable without the others.

    MILLRACE | version (1) | digest (16) | header length (4) | header | entries
    header = msgpack [serializer, entries, note, samples]

An entry of the header is nil where there is no result, else the lengths of the blocks that make up the value:
the serialized value and, with cloudpickle, the buffers that it left out of band. Samples, of tables and arrays by
position, are for people (`samples.py`); where there is none the field is left out. The digest covers all that
follows it. Readers ignore further fields of the header; what they could not ignore raises the version.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, Final

import cloudpickle
import msgpack

from .buffers import copy_buffer
from .errors import SerializationError
from .samples import samples_of

MAGIC = b"MILLRACE"
VERSION = 1
DIGEST_BYTES = 16
CONTENT = len(MAGIC) + 1 + DIGEST_BYTES  # where the part begins that the digest covers
PROTOCOL = 5  # of pickle: the first with buffers out of band

_ATOMS = frozenset({int, float, str, bytes, bool, type(None)})  # a cloudpickle takes ten times as long

Block = bytes | memoryview


class Missing(Enum):
    """The class of MISSING. An enum, so that a pickled MISSING comes back as the same object."""

    MISSING = 0

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing.MISSING  # no result at this position


class ResultSerializationError(SerializationError):
    """Results that the serializer cannot handle; nothing has been written.

    Attributes:
        position: of the first such result.
        failures: what is wrong, by position, for all of them.
    """

    def __init__(self, failures: Mapping[int, str], serializer: str) -> None:
        self.failures = dict(failures)
        self.position = min(self.failures)
        self.serializer = serializer
        more = len(self.failures) - 1
        super().__init__(
            f"the result at position {self.position}{f' (and {more} more)' if more else ''} cannot be "
            f"written with result_serializer={serializer!r}: {self.failures[self.position]}. Return plain "
            f"data, choose another result_serializer, or turn persist_results and caching off for this task."
        )

    def __reduce__(self) -> tuple[type[ResultSerializationError], tuple[dict[int, str], str]]:
        return type(self), (self.failures, self.serializer)


class FormatError(Exception):
    """A result file that cannot be used here. The message goes on after the file's name."""


class DamagedError(FormatError):
    """Bytes that are not the result file that was written, whoever reads them."""


@dataclass(frozen=True, slots=True)
class Serializer:
    """A way to turn a value into blocks and back."""

    dump: Callable[[Any], list[Block]]
    load: Callable[[Sequence[Block]], Any]


def _dump_pickle(value: Any) -> list[Block]:
    if type(value) in _ATOMS:
        return [pickle.dumps(value, PROTOCOL)]
    buffers: list[pickle.PickleBuffer] = []
    data: bytes = cloudpickle.dumps(value, protocol=PROTOCOL, buffer_callback=buffers.append)
    return [data, *(buffer.raw() for buffer in buffers)]


def _load_pickle(blocks: Sequence[Block]) -> Any:
    # A copy of each buffer: the value may be changed in place, and does not keep the whole batch in memory.
    return pickle.loads(blocks[0], buffers=map(copy_buffer, blocks[1:]))


def _dump_json(value: Any) -> list[Block]:
    return [json.dumps(value, separators=(",", ":")).encode()]


def _load_json(blocks: Sequence[Block]) -> Any:
    return json.loads(bytes(blocks[0]))


def _dump_msgpack(value: Any) -> list[Block]:
    return [msgpack.packb(value, use_bin_type=True, datetime=True, unicode_errors="surrogatepass")]


def _load_msgpack(blocks: Sequence[Block]) -> Any:
    return msgpack.unpackb(
        blocks[0], raw=False, strict_map_key=False, timestamp=3, unicode_errors="surrogatepass"
    )


SERIALIZERS: Mapping[str, Serializer] = {
    "cloudpickle": Serializer(_dump_pickle, _load_pickle),
    "json": Serializer(_dump_json, _load_json),
    "msgpack": Serializer(_dump_msgpack, _load_msgpack),
}


def encode(serializer: str, values: Sequence[Any], note: Any = None) -> tuple[list[Block], str]:
    """Return a file's content in pieces, large buffers as they are, and its digest.

    Args:
        serializer: a name in SERIALIZERS.
        values: by position; MISSING where there is no result.
        note: anything that msgpack can write, kept in the header.

    Raises:
        ResultSerializationError: some values cannot be serialized.
    """
    entries = _dump_all(serializer, values)
    lengths = [None if blocks is None else [memoryview(b).nbytes for b in blocks] for blocks in entries]
    samples = samples_of(values)
    header = msgpack.packb([serializer, lengths, note, *([samples] if samples else [])], use_bin_type=True)
    content: list[Block] = [len(header).to_bytes(4, "big"), header]
    content.extend(block for blocks in entries if blocks is not None for block in blocks)
    digest = _digest(content)
    return [MAGIC + bytes([VERSION]) + digest, *content], digest.hex()


def _dump_all(serializer: str, values: Sequence[Any]) -> list[list[Block] | None]:
    dump = SERIALIZERS[serializer].dump
    entries: list[list[Block] | None] = []
    failures: dict[int, str] = {}
    for position, value in enumerate(values):
        try:
            entries.append(None if value is MISSING else dump(value))
        except Exception as error:  # whatever a user's __reduce__ raises
            failures[position] = f"{type(value).__qualname__}: {str(error) or type(error).__name__}"
    if failures:
        raise ResultSerializationError(failures, serializer)
    return entries


def _digest(content: Sequence[Block]) -> bytes:
    hasher = blake2b(digest_size=DIGEST_BYTES)
    for block in content:
        hasher.update(block)
    return hasher.digest()


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file that has been read and is what was written; its values are still serialized."""

    serializer: str
    entries: Sequence[Sequence[Block] | None]
    note: Any
    samples: Any  # as found: whoever shows them looks at them first

    def load(self, position: int) -> Any:
        """Return the value at a position, or MISSING.

        Raises:
            FormatError: there is no such position, or the value does not load here.
        """
        if not 0 <= position < len(self.entries):
            raise FormatError(f"has {len(self.entries)} results and none at position {position}")
        blocks = self.entries[position]
        if blocks is None:
            return MISSING
        try:
            return SERIALIZERS[self.serializer].load(blocks)
        except Exception as error:  # whatever a user's __setstate__ raises, or a missing module
            raise FormatError(
                f"has a result at position {position} that cannot be loaded in this process: "
                f"{type(error).__name__}: {error}. Install here what the task had installed"
            ) from error


def decode(content: bytes | bytearray | memoryview, digest: str | None = None) -> ResultFile:
    """Take a file's content apart.

    Args:
        digest: what `encode` returned; None checks only that the file is whole.

    Raises:
        DamagedError: the content is damaged, or is not what it is said to be.
        FormatError: another Millrace is needed to read it.
    """
    view = memoryview(content).cast("B")
    if view[: len(MAGIC)] != MAGIC or len(view) < CONTENT:
        raise DamagedError("is no result file")
    version, found = view[len(MAGIC)], bytes(view[len(MAGIC) + 1 : CONTENT])
    if version > VERSION:
        raise FormatError(f"has format {version}, and this Millrace reads up to {VERSION}. Upgrade it here")
    if _digest([view[CONTENT:]]) != found:
        raise DamagedError("is damaged: its content does not fit the digest in it")
    if digest is not None and digest != found.hex():
        raise DamagedError(f"is not the one recorded: digest {found.hex()}, expected {digest}")
    begin = CONTENT + 4 + int.from_bytes(view[CONTENT : CONTENT + 4], "big")
    header: list[Any] = msgpack.unpackb(view[CONTENT + 4 : begin], raw=False, strict_map_key=False)
    serializer, lengths, note, samples = [*header, None][:4]
    if serializer not in SERIALIZERS:
        raise FormatError(f"needs the serializer {serializer!r}, which this Millrace does not know")
    return ResultFile(serializer, list(_cut(view, begin, lengths)), note, samples)


def _cut(view: memoryview, begin: int, entries: Sequence[list[int] | None]) -> Iterator[list[Block] | None]:
    for lengths in entries:
        if lengths is None:
            yield None
            continue
        blocks: list[Block] = []
        for length in lengths:
            blocks.append(view[begin : begin + length])
            begin += length
        yield blocks
