"""The file of what a server has not taken yet, and what its answers mean."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import pytest

from orchestration.errors import (
    FencedError,
    RunNotFoundError,
    StoreError,
    StoreFullError,
    StoreNewerError,
    StoreRefusedError,
    UserError,
)
from orchestration.stores.remote.address import Address
from orchestration.stores.remote.buffer import send_left
from orchestration.stores.remote.faults import AwayError, explain
from orchestration.stores.remote.link import Link
from orchestration.stores.remote.spool import Spool

SERVER = "http://there:4280"


def content(spool: Spool, chunk: int = 1 << 20) -> list[bytes]:
    """Read all records, by chunks."""
    found, at = list[bytes](), spool.begin
    while True:
        records, at = spool.read(at, chunk)
        if not records:
            return found
        found += records


def left(folder: Path, server: str = SERVER) -> list[Spool]:
    return list(Spool.left_in(folder, server))


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
def test_records_come_back_in_order(tmp_path: Path, chunk: int) -> None:
    """In chunks of any size."""
    spool = Spool.create(tmp_path / "spool", SERVER, "w")
    records = [b"a", b"", b"c" * 10_000]
    for record in records:
        spool.append(record)
    assert content(spool, chunk) == records
    spool.remove()
    assert list((tmp_path / "spool").iterdir()) == []


def test_what_an_ended_process_has_left(tmp_path: Path) -> None:
    """Whoever finds it knows whose it is; a file whose process lives is its own, and so is another server's."""
    spool = Spool.create(tmp_path, SERVER, "w")
    spool.append(b"one")
    assert left(tmp_path) == []
    spool.close()
    assert left(tmp_path, "http://elsewhere") == []
    (found,) = left(tmp_path)
    assert (found.writer_id, content(found)) == ("w", [b"one"])
    assert left(tmp_path) == []  # it is in hand
    found.remove()
    assert left(tmp_path) == []


@pytest.mark.parametrize("torn", [b"\x05", b"\x05\0\0\0\0\0\0\0abcde", b"\xff" * 30])
def test_a_record_that_was_torn(tmp_path: Path, torn: bytes) -> None:
    """Its process ended before it could go on: nobody was told that it is safe."""
    spool = Spool.create(tmp_path, SERVER, "w")
    spool.append(b"one")
    spool.close()
    with spool.path.open("ab") as file:
        file.write(torn)
    (found,) = left(tmp_path)
    assert content(found) == [b"one"]


def test_files_that_are_none(tmp_path: Path) -> None:
    """They are left alone."""
    (tmp_path / "empty.spool").touch()
    (tmp_path / "other.spool").write_bytes(b"millrace spool 1\nnot a record")
    assert left(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("head", [b"\xc1", b"", b"\x05", b"\x91\xa1a", b"\x93\x01\x02\x03"])
def test_a_file_that_does_not_say_whose_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, head: bytes
) -> None:
    """It stops nobody: a line names it, and says what to do."""
    good = Spool.create(tmp_path, SERVER, "w")
    good.close()
    bad = tmp_path / "bad.spool"
    bad.write_bytes(b"millrace spool 1\n" + struct.pack("<II", len(head), zlib.crc32(head)) + head)
    assert [spool.path for spool in left(tmp_path)] == [good.path]
    assert f"The buffer {bad} does not say whose it is" in caplog.text
    assert "Move it out of that folder" in caplog.text


def test_a_record_that_no_server_takes(tmp_path: Path) -> None:
    """The error names the file and the cure, since what it stops has nothing to do with that file."""

    class Refusing(Link):
        def write(self, *about: object) -> bytes:
            raise explain(400, b'{"error": {"type": "InvalidRequest", "message": "bytes expected"}}', SERVER)

    spool = Spool.create(tmp_path, "http://127.0.0.1:1", "w")
    spool.append(b"what is this?")
    spool.close()
    with pytest.raises(
        StoreError, match=r"bytes expected\. This is about the buffer .*w\.spool.* Move it out"
    ):
        send_left(Refusing(Address("http://127.0.0.1:1"), 0.0), tmp_path)
    assert spool.path.exists()


def test_no_room(tmp_path: Path) -> None:
    """A record is there as a whole or not at all, and others follow when there is room."""
    spool = Spool.create(tmp_path, SERVER, "w")
    spool.append(b"one")
    real, spool._fd = spool._fd, os.open("/dev/full", os.O_RDWR)
    with pytest.raises(StoreError, match="cannot be written"):
        spool.append(b"two")
    os.close(spool._fd)
    spool._fd = real
    spool.append(b"three")
    assert content(spool) == [b"one", b"three"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """The error names the file and the cure."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="MILLRACE_HOME") as caught:
        Spool.create(tmp_path / "file" / "spool", SERVER, "w")
    assert not isinstance(caught.value, StoreFullError)


# --- what an answer stands for -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (503, "FencedError", FencedError),
        (503, "StoreFullError", StoreFullError),
        (503, "StoreUnreachableError", AwayError),
        (503, "", AwayError),
        (502, "", AwayError),
        (500, "InternalError", StoreError),  # a defect there is no reason to give up what was recorded here
        (500, "", StoreError),
        (429, "TooManyRequests", StoreError),
        (422, "UserError", UserError),
        (401, "TokenRefused", StoreRefusedError),
        (404, "", StoreNewerError),
        (404, "RunNotFoundError", RunNotFoundError),
    ],
)
def test_errors_arrive_as_what_they_are(status: int, kind: str, expected: type[Exception]) -> None:
    """Also those of what stands before the server, which say nothing of ours."""
    told = {"error": {"type": kind, "message": "so it is"}} if kind else "<html>"
    assert type(explain(status, json.dumps(told).encode(), SERVER)) is expected
