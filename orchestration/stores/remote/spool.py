"""A file of transactions that a server has not acknowledged yet, in their order.

Each is written and synced before whoever appended goes on. The file is locked as long as the process lives that
writes it: a file that is not locked was left by one that has ended. A record that was torn by the end of its process
was never acknowledged, and ends the file.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgpack

from ...errors import StoreError, StoreFullError

MAX_BYTES = 256 << 20
SUFFIX = ".spool"
_MAGIC = b"millrace spool 1\n"
_HEAD = struct.Struct("<II")  # length and CRC-32 of what follows
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
CURE = "Move it out of that folder; it holds what a process that has ended recorded last, and nothing else needs it."

log = logging.getLogger("millrace.driver")


class Spool:
    """One process's file; make it with `create`, or with `left_in` find those of processes that have ended.

    Attributes:
        server: whose transactions they are.
        end: where the next record goes.
    """

    def __init__(self, path: Path, fd: int, server: str, writer_id: str, end: int) -> None:
        self.path = path
        self.server = server
        self.writer_id = writer_id
        self.end = end
        self.begin = end  # of the records, once the head is written
        self._fd = fd

    @classmethod
    def create(cls, folder: Path, server: str, writer_id: str) -> Spool:
        """Make a file and lock it.

        Raises:
            StoreFullError, StoreError: it cannot be made.
        """
        path = folder / f"{writer_id}{SUFFIX}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = path.with_suffix(".new")  # under its own name it is locked from the first moment
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _explain(error, path, server) from error
        spool = cls(path, fd, server, writer_id, 0)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            spool._write(_MAGIC)
            spool.append(msgpack.packb([server, writer_id]))
            spool.begin = spool.end
            os.rename(new, path)
            _sync_folder(folder)
        except BaseException as error:
            os.close(fd)
            new.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise _explain(error, path, server) from error
            raise
        return spool

    @classmethod
    def left_in(cls, folder: Path, server: str) -> Iterator[Spool]:
        """Yield, locked, the files for a server that ended processes have left; the caller removes or closes each."""
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                spool = cls._opened(path, fd) if os.fstat(fd).st_nlink else None
            except BlockingIOError:  # its process lives
                spool = None
            except BaseException:
                os.close(fd)
                raise
            if spool is None or spool.server != server:
                os.close(fd)
            else:
                yield spool

    @classmethod
    def _opened(cls, path: Path, fd: int) -> Spool | None:
        size = os.fstat(fd).st_size
        if os.pread(fd, len(_MAGIC), 0) != _MAGIC:
            return None
        spool = cls(path, fd, "", "", size)
        head, begin = spool._record(len(_MAGIC))
        if head is None:
            return None
        try:
            spool.server, spool.writer_id = map(str, msgpack.unpackb(head))
        except (TypeError, ValueError):  # of msgpack, too
            log.warning("The buffer %s does not say whose it is, so it is not sent. %s", path, CURE)
            return None
        spool.begin = begin
        return spool

    def append(self, record: bytes) -> None:
        """Add a record; on return it survives the process, and the machine.

        Raises:
            StoreFullError, StoreError: it is not there.
        """
        try:
            self._write(_HEAD.pack(len(record), zlib.crc32(record)) + record)
        except OSError as error:
            raise _explain(error, self.path, self.server) from error

    def _write(self, data: bytes) -> None:
        at = self.end
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(self._fd, view, at)
                view, at = view[written:], at + written
            os.fdatasync(self._fd)
        except BaseException:
            os.ftruncate(self._fd, self.end)  # a part of a record would hide what comes after it
            raise
        self.end = at

    def read(self, at: int, max_bytes: int) -> tuple[list[bytes], int]:
        """Return whole records from a place on, at least one if there is one, and the place after them."""
        records: list[bytes] = []
        total = 0
        while total < max_bytes:
            record, after = self._record(at)
            if record is None:
                break
            records.append(record)
            total, at = total + len(record), after
        return records, at

    def _record(self, at: int) -> tuple[bytes | None, int]:
        head = os.pread(self._fd, _HEAD.size, at)
        if at >= self.end or len(head) < _HEAD.size:
            return None, at
        length, crc = _HEAD.unpack(head)
        if (
            length > self.end - at - _HEAD.size
        ):  # torn, or no length at all: as much memory would be asked for
            return None, at
        record = os.pread(self._fd, length, at + _HEAD.size)
        if len(record) != length or zlib.crc32(record) != crc:
            return None, at
        return record, at + _HEAD.size + length

    def remove(self) -> None:
        """Delete the file: everything in it was acknowledged, or refused."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file, and leave it to others."""
        os.close(self._fd)


def full(path: Path, server: str, size: int) -> StoreFullError:
    return StoreFullError(
        f"The buffer {path} of what the server {server} has not taken yet is full ({size >> 20} MB). Get the server "
        f"going again, or this machine's connection to it: what is in the buffer is then sent, in order."
    )


def _explain(error: OSError, path: Path, server: str) -> StoreError:
    why = f"The server {server} is away, and the buffer {path} cannot be written ({error.strerror})."
    if error.errno in _NO_SPACE:
        return StoreFullError(f"{why} Free some space there, or get the server going again.")
    return StoreError(
        f"{why} Make its folder writable for this user, or choose another one with MILLRACE_HOME."
    )


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
