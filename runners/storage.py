"""Result storage: what tasks return, kept in files, so that a run can be resumed and a cache can answer.

Workers write one file for a batch; workers and the flow's process read it by the `Stored` that goes into the
record. A file says itself how it was serialized and whether it is whole, so a reader needs nothing else.
Cache entries are files of one value below `cache/`, named by their key.

A path has to lead to the same folder on all workers and in the flow's process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from .errors import ResultFileLostError, StorageError, UserError
from .files import Files, file_name, open_files
from .messages import Stored
from .result_format import (
    MISSING,
    SERIALIZERS,
    DamagedError,
    FormatError,
    ResultSerializationError,
    decode,
    encode,
)

__all__ = ["MISSING", "ResultSerializationError", "ResultStorage", "open_storage", "read_stored"]

logger = logging.getLogger(__name__)

# A suffix, so that the keys "a" and "a/b" can both exist: a file and a folder.
RESULT = ".result"
CACHED = ".cached"


class ResultStorage:
    """Results at one place. Safe to use from several threads and processes.

    Args:
        url: a path, `file://...`, or any fsspec URL such as `s3://bucket/folder`. A relative path is taken
            from the current folder now; `url` (the attribute) is absolute, so hand that one to workers.
        serializer: `cloudpickle` (anything), `json` or `msgpack` (plain data that other programs can read;
            tuples come back as lists).

    Raises:
        UserError: the serializer or the kind of URL is unknown.
        MissingExtraError: the package for this kind of URL is not installed.
    """

    def __init__(self, url: str, serializer: str = "cloudpickle") -> None:
        if serializer not in SERIALIZERS:
            raise UserError(
                f"result_serializer {serializer!r} is unknown. Use one of: {', '.join(SERIALIZERS)}."
            )
        self.serializer = serializer
        self._files: Files = open_files(url)
        self.url = self._files.root

    def __repr__(self) -> str:
        return f"ResultStorage({self.url!r}, {self.serializer!r})"

    def write(self, key: str, values: Sequence[Any]) -> Stored:
        """Write the results of a batch to one file, which takes the place of an older one at once.

        Args:
            key: `/`-separated; any characters.
            values: by position in the batch; MISSING where there is no result.

        Raises:
            ResultSerializationError: some values cannot be serialized (`position`, `failures`); nothing was
                written. Put MISSING in their places and write again.
            StorageError: the file cannot be written.
        """
        blocks, digest = encode(self.serializer, values)
        name = file_name(key) + RESULT
        self._files.write(name, blocks)
        return Stored(self._files.locate(name), digest)

    def read(self, stored: Stored, positions: Sequence[int]) -> list[Any]:
        """Return the results at some positions of a batch; MISSING for a position written as such.

        Each call makes new objects. Only what is asked for is deserialized.

        Raises:
            ResultFileLostError: the file is gone, or is not what was written.
            StorageError: it cannot be read, or does not load in this process.
        """
        return read_stored(stored, positions)

    def write_cached(self, key: str, value: Any) -> None:
        """Keep a value for calls with the same cache key. The last writer wins.

        Raises:
            ResultSerializationError: the value cannot be serialized.
            StorageError: the file cannot be written.
        """
        blocks, _ = encode(self.serializer, [value], {"key": _printable(key), "at": time.time()})
        # Not durable: waiting for the disk at every item is dear, and a torn entry is only a miss.
        self._files.write(_cache_name(key), blocks, durable=False)

    def read_cached(self, key: str, max_age_seconds: float | None, now: float) -> tuple[bool, Any]:
        """Return (True, value) if there is an entry for the key, and (False, None) otherwise.

        A damaged entry, or one that does not load any more, is none: the task runs and replaces it.

        Args:
            max_age_seconds: entries of this age and older do not count; None takes any.
            now: seconds since the epoch.

        Raises:
            StorageError: the storage cannot be read at all.
        """
        address = self._files.locate(_cache_name(key))
        content = self._files.read(address)
        if content is None:
            return False, None
        try:
            file = decode(content)
            if file.note["key"] != _printable(key):  # a file system that takes "A" and "a" for the same name
                return False, None
            if max_age_seconds is not None and now - file.note["at"] >= max_age_seconds:
                return False, None
            return True, file.load(0)
        except FormatError as error:
            logger.warning("The cache entry %s %s. It is not used.", address, error)
            return False, None

    def remove(self, prefix: str) -> int:
        """Delete all files below a key prefix made of whole parts; return how many.

        `remove("runs/r1")` deletes `runs/r1/...`, nothing of `runs/r10`; `remove("cache")` empties the cache.

        Raises:
            StorageError: files could not be deleted.
        """
        if not prefix.strip("/"):
            raise ValueError("an empty prefix would delete everything at the place, also what is not ours")
        return self._files.remove(file_name(prefix.strip("/")))


def _cache_name(key: str) -> str:
    return f"cache/{file_name(key)}{CACHED}"


def _printable(key: str) -> str:
    return key.encode("utf-8", "backslashreplace").decode()  # msgpack takes no lone surrogates


@lru_cache(maxsize=32)
def open_storage(url: str, serializer: str = "cloudpickle") -> ResultStorage:
    """Return the storage at a URL; the same object for the same arguments."""
    return ResultStorage(url, serializer)


@lru_cache(maxsize=32)
def _open_folder(url: str) -> Files:
    return open_files(url)


def read_stored(stored: Stored, positions: Sequence[int]) -> list[Any]:
    """Return results wherever they are stored. See `ResultStorage.read`."""
    files = _open_folder(stored.url.rpartition("/")[0] or "/")
    content = files.read(stored.url)
    if content is None:
        raise ResultFileLostError(
            f"the result file {stored.url} does not exist",
            "If it was deleted, run the tasks again; if other machines have it, set result_storage to a place "
            "that all of them can see.",
        )
    try:
        file = decode(content, stored.digest)
        return [file.load(position) for position in positions]
    except DamagedError as error:
        raise ResultFileLostError(
            f"the result file {stored.url} {error}", "Run the tasks again, and check the disk."
        ) from error
    except FormatError as error:
        raise StorageError(
            f"the result file {stored.url} {error}. If nothing else helps, delete it and run the tasks again."
        ) from error
