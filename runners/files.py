"""Files of result storage: written whole or not at all, on this machine's disks or behind any fsspec URL."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Protocol
from urllib.parse import quote, unquote

from .errors import BackendError, MissingExtraError, StorageError, UserError

Chunk = bytes | bytearray | memoryview

LONGEST_NAME = 180  # bytes; file systems allow 255, and a temporary name is longer
OBSTORE_PROTOCOLS = frozenset({"s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl"})


class Files(Protocol):
    """What result storage needs of a place: four verbs on names relative to `root`.

    All raise StorageError with the file's name, the cause and a cure.
    """

    root: str

    def locate(self, name: str) -> str:
        """Return the full address of a file below the root; `open_files` understands it."""

    def write(self, name: str, chunks: Sequence[Chunk], *, durable: bool = True) -> None:
        """Make or replace a file. Readers see the old content or the new one, never a part.

        Args:
            durable: wait until the content would survive a power failure.
        """

    def read(self, address: str) -> Chunk | None:
        """Return the content of the file at an address below the root, or None if there is none."""

    def remove(self, name: str) -> int:
        """Delete all files below a folder, and return how many there were."""


def open_files(url: str) -> Files:
    """Return the files at a path or URL.

    Raises:
        MissingExtraError, UserError: the URL's kind of storage is unknown or its package is not installed.
    """
    if not url:
        raise UserError("no place for results is set. Give result_storage a path or URL.")
    if "://" not in url:
        return LocalFiles(os.path.abspath(os.path.expanduser(url)))
    scheme, _, rest = url.partition("://")
    if scheme in ("file", "local"):
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost") or not slash:
            raise UserError(f"{url!r} names no folder of this machine. Write file:///absolute/path.")
        return LocalFiles(os.path.abspath("/" + unquote(path)))
    return RemoteFiles(url.rstrip("/"))


@lru_cache(maxsize=4096)  # run and task names come again and again
def file_part(part: str) -> str:
    """Return one part of a key as a file name: another for each part, and never `..` or empty."""
    if part in ("", ".", ".."):
        return "%" + part.replace(".", "%2E")
    name = quote(part, safe="", errors="surrogatepass").replace("~", "%7E")
    if len(name) <= LONGEST_NAME:
        return name
    digest = blake2b(part.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{name[: LONGEST_NAME - 40]}~{digest}"  # no other name has a ~


def file_name(key: str) -> str:
    """Return a `/`-separated key as a relative path that cannot leave its folder."""
    return "/".join(map(file_part, key.split("/")))


class LocalFiles:
    """A folder of this machine, or one that a network file system brings here.

    Files and new folders are for their owner only, because results are as secret as the data they come from.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def locate(self, name: str) -> str:
        return f"{self.root}/{name}"

    def write(self, name: str, chunks: Sequence[Chunk], *, durable: bool = True) -> None:
        path = self.locate(name)
        folder, last = os.path.split(path)
        temporary = f"{folder}/.{last}.{secrets.token_hex(8)}.tmp"
        try:
            _make_private(folder)
            try:
                _write_new(temporary, chunks, durable=durable)
                os.replace(temporary, path)
                if durable:
                    _sync_folder(folder)
            except BaseException:  # also an interrupt of the task run
                with suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise StorageError(_explain("written", path, error)) from error

    def read(self, address: str) -> Chunk | None:
        try:
            with open(address, "rb", buffering=0) as file:
                content = bytearray(os.fstat(file.fileno()).st_size)
                filled, view = 0, memoryview(content)
                while filled < len(view) and (n := file.readinto(view[filled:])):
                    filled += n
                return view[:filled]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(_explain("read", address, error)) from error

    def remove(self, name: str) -> int:
        count = 0
        try:
            for folder, folders, files in os.walk(self.locate(name), topdown=False):
                for file in files:
                    count += _gone(os.unlink, f"{folder}/{file}")
                for inner in folders:  # a link to a folder is removed, what it points to is not
                    path = f"{folder}/{inner}"
                    _gone(os.unlink if os.path.islink(path) else os.rmdir, path)
            _gone(os.rmdir, self.locate(name))
        except OSError as error:
            raise StorageError(_explain("removed", error.filename or self.locate(name), error)) from error
        return count


def _make_private(folder: str) -> None:
    """Make a folder and its parents. `os.makedirs` would make the parents readable for all."""
    missing = []
    while folder and not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise


def _write_new(path: str, chunks: Sequence[Chunk], *, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _sync_folder(folder: str) -> None:
    """Make a new name in a folder survive a power failure, where the file system can promise that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _gone(delete: Any, path: str) -> bool:
    """Delete; whether there was something to delete. Others may be deleting, or writing, at the same time."""
    try:
        delete(path)
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise


_CURES = {
    errno.ENOSPC: "The disk is full: free space there",
    errno.EDQUOT: "The disk quota is used up: free space there",
    errno.EFBIG: "The process may not write files of this size (ulimit -f): raise the limit",
    errno.EROFS: "The file system is read-only: mount it writable",
    errno.EACCES: "The user of this process lacks permission: grant it",
    errno.EPERM: "The user of this process lacks permission: grant it",
    errno.ENOTDIR: "A file stands where a folder is needed: move it away",
    errno.EIO: "The disk reports errors: check it",
}


def _explain(verb: str, path: str, error: OSError) -> str:
    cure = _CURES.get(error.errno or 0, "Check the disk and its permissions")
    return (
        f"the result file {path} cannot be {verb}: {error.strerror or error}. "
        f"{cure}, or set result_storage to another place."
    )


class RemoteFiles:
    """Any place that fsspec knows. Object stores replace whole objects, so a write needs no temporary name.

    Where a place does replace piecewise (SFTP), a torn file is found out by the digest inside it.
    """

    def __init__(self, url: str) -> None:
        self.root = url
        self._fs, self._path = _open_remote(url)

    def locate(self, name: str) -> str:
        return f"{self.root}/{name}"

    def write(self, name: str, chunks: Sequence[Chunk], *, durable: bool = True) -> None:
        content = b"".join(chunks)
        path = f"{self._path}/{name}"
        try:
            try:
                self._fs.pipe_file(path, content)
            except FileNotFoundError:  # only then: on object stores this would ask for the bucket, each time
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._fs.pipe_file(path, content)
        except Exception as error:  # each storage library has exceptions of its own
            raise StorageError(_explain_remote("written", self.locate(name), error)) from error

    def read(self, address: str) -> Chunk | None:
        try:
            content: bytes = self._fs.cat_file(f"{self._path}{address.removeprefix(self.root)}")
            return content
        except FileNotFoundError:
            return None
        except Exception as error:
            raise StorageError(_explain_remote("read", address, error)) from error

    def remove(self, name: str) -> int:
        try:
            self._fs.invalidate_cache()
            paths: list[str] = self._fs.find(f"{self._path}/{name}")
            if paths:
                self._fs.rm(paths)
            return len(paths)
        except FileNotFoundError:
            return 0
        except Exception as error:
            raise StorageError(_explain_remote("removed", self.locate(name), error)) from error


def _explain_remote(verb: str, address: str, error: Exception) -> str:
    return (
        f"the result file {address} cannot be {verb}: {type(error).__name__}: {error}. Check the address, "
        f"the credentials of this process and the network, or set result_storage to another place."
    )


def _open_remote(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # 90 ms, and not needed for local files

    scheme = url.partition("://")[0]
    try:
        return _split(url_to_fs(url))
    except ImportError as error:
        if scheme not in OBSTORE_PROTOCOLS:
            package = (getattr(error.__cause__ or error, "name", None) or scheme).partition(".")[0]
            raise UserError(
                f"result_storage {url!r} needs a package that is not installed. "
                f"Install it with: pip install {package}"
            ) from error
        missing = error
    except ValueError as error:
        raise UserError(
            f"result_storage {url!r}: {error}. Use a path, file:///..., s3://..., or another fsspec URL."
        ) from error
    except Exception as error:
        raise BackendError(
            f"result_storage {url!r} cannot be opened: {type(error).__name__}: {error}"
        ) from error
    try:
        from obstore.fsspec import register
    except ImportError:
        raise MissingExtraError(f"a package for {scheme}:// storage", "s3") from missing
    register(scheme)
    return _split(url_to_fs(url))


def _split(opened: tuple[Any, str]) -> tuple[Any, str]:
    return opened[0], opened[1].rstrip("/")
