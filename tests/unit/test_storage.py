"""Result storage: what comes back, what does not, and what the errors say."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.errors import MissingExtraError, ResultFileLostError, SerializationError, StorageError, UserError
from runners.files import LocalFiles, RemoteFiles, file_name
from runners.messages import Stored
from runners.result_format import MISSING, decode, encode
from runners.storage import ResultSerializationError, ResultStorage, open_storage, read_stored


class Stubborn:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise ValueError("holds a socket")


class Grumpy:
    """Can be pickled and not be loaded."""

    loads = False

    def __reduce__(self) -> Any:
        return Grumpy.revive, ()

    @staticmethod
    def revive() -> Grumpy:
        if not Grumpy.loads:
            raise ModuleNotFoundError("No module named 'acme'")
        return Grumpy()


@pytest.fixture(params=["local", "file", "memory", "obstore"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ResultStorage:
    if request.param == "memory":
        return ResultStorage(f"memory://{tmp_path.name}")
    if request.param == "obstore":
        return obstore_storage(tmp_path)
    return ResultStorage(str(tmp_path / "r") if request.param == "local" else (tmp_path / "r s").as_uri())


def obstore_storage(root: Path) -> ResultStorage:
    """A storage on obstore's fsspec adapter, which is what the s3 extra uses."""
    from obstore.fsspec import FsspecStore

    folder = root / "obstore"
    folder.mkdir()
    files = RemoteFiles.__new__(RemoteFiles)
    files.root, files._fs, files._path = f"file-obstore://{folder}", FsspecStore("file"), str(folder)
    made = ResultStorage(str(folder))
    made._files, made.url = files, files.root
    return made


def read_back(storage: ResultStorage, stored: Stored, positions: list[int]) -> list[Any]:
    """Read through the storage's own files where its address means nothing to others."""
    if not storage.url.startswith("file-obstore"):
        return storage.read(stored, positions)
    content = storage._files.read(stored.url)
    assert content is not None
    file = decode(content, stored.digest)
    return [file.load(p) for p in positions]


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_batch_comes_back_by_position(storage: ResultStorage) -> None:
    """Any positions, in any order, and MISSING where nothing was written."""
    stored = storage.write("runs/r1/7-0", ["a", MISSING, {"n": 1}, None])
    assert read_back(storage, stored, [2, 0, 1, 3]) == [{"n": 1}, "a", MISSING, None]
    assert read_back(storage, stored, []) == []


def test_a_cache_entry_comes_back_and_is_replaced(storage: ResultStorage) -> None:
    """A key without an entry is a miss; the last writer of a key wins."""
    assert storage.read_cached("k", None, 0.0) == (False, None)
    storage.write_cached("k", 1)
    storage.write_cached("k", None)
    assert storage.read_cached("k", None, 0.0) == (True, None)


def test_remove_takes_what_is_below_a_prefix_and_nothing_else(storage: ResultStorage) -> None:
    """`runs/1` is not a prefix of `runs/10`, and removing twice is harmless."""
    gone = storage.write("runs/1/a", [1])
    storage.write("runs/1/b/c", [2])
    kept = storage.write("runs/10/a", [3])
    assert [storage.remove("runs/1"), storage.remove("runs/1")] == [2, 0]
    assert read_back(storage, kept, [0]) == [3]
    assert storage._files.read(gone.url) is None


def test_remove_refuses_an_empty_prefix(tmp_path: Path) -> None:
    """The folder may hold what is not ours."""
    with pytest.raises(ValueError, match="not ours"):
        ResultStorage(str(tmp_path)).remove("/")


def test_remove_does_not_follow_links(tmp_path: Path) -> None:
    """A link inside the storage is removed, what it points to stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (tmp_path / "r" / "runs").mkdir(parents=True)
    (tmp_path / "r" / "runs" / "link").symlink_to(outside)
    assert ResultStorage(str(tmp_path / "r")).remove("runs") == 0
    assert (outside / "precious").exists()
    assert not (tmp_path / "r" / "runs").exists()


def test_reading_one_position_leaves_the_others_alone(tmp_path: Path) -> None:
    """A value that cannot be loaded here does not keep others from being read."""
    storage = ResultStorage(str(tmp_path))
    stored = storage.write("k", [1, Grumpy(), 3])
    assert storage.read(stored, [0, 2]) == [1, 3]
    with pytest.raises(StorageError, match=r"k\.result has a result at position 1 .*acme.*Install here"):
        storage.read(stored, [1])


def test_arrays_are_written_without_a_copy_and_come_back_writable(tmp_path: Path) -> None:
    """The array's own memory is what goes to the file; the reader gets one that it may change."""
    array = np.arange(100_000)
    blocks, _ = encode("cloudpickle", [array])
    assert any(np.shares_memory(np.frombuffer(block, dtype=array.dtype), array) for block in blocks[4:])
    storage = ResultStorage(str(tmp_path))
    stored = storage.write("k", [array, array[::2]])
    first, second = storage.read(stored, [0, 1])
    assert np.array_equal(first, array)
    assert np.array_equal(second, array[::2])
    first += 1
    assert storage.read(stored, [0])[0][0] == 0


def test_functions_and_local_classes_are_results_too(tmp_path: Path) -> None:
    """cloudpickle takes what cannot be imported."""
    storage = ResultStorage(str(tmp_path))
    assert storage.read(storage.write("k", [lambda x: x + 1]), [0])[0](1) == 2


@pytest.mark.parametrize(
    ("serializer", "bad"), [("cloudpickle", Stubborn()), ("json", {1, 2}), ("msgpack", 2**70)]
)
def test_what_cannot_be_serialized_is_named_before_anything_is_written(
    tmp_path: Path, serializer: str, bad: Any
) -> None:
    """The caller learns all bad positions at once and can fail just these items."""
    storage = ResultStorage(str(tmp_path), serializer)
    with pytest.raises(SerializationError, match=r"position 1 \(and 1 more\).*result_serializer") as caught:
        storage.write("k", [1, bad, 2, bad])
    assert isinstance(caught.value, ResultSerializationError)
    assert (caught.value.position, sorted(caught.value.failures)) == (1, [1, 3])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert files_below(tmp_path) == []


def test_another_storage_reads_by_the_address_alone(tmp_path: Path) -> None:
    """A reader needs to know neither the place nor the serializer."""
    stored = ResultStorage(str(tmp_path), "msgpack").write("runs/x y/ü", [b"1"])
    assert read_stored(stored, [0]) == [b"1"]
    assert ResultStorage(str(tmp_path / "elsewhere"), "json").read(stored, [0]) == [b"1"]
    remote = ResultStorage("memory://m1/m2", "json").write("a/b%", [2])
    assert read_stored(remote, [0]) == [2]


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker in another folder finds the same file."""
    monkeypatch.chdir(tmp_path)
    stored = ResultStorage("results").write("k", [1])
    monkeypatch.chdir("/")
    assert stored.url == str(tmp_path / "results" / "k.result")
    assert read_stored(stored, [0]) == [1]


@pytest.mark.parametrize(
    "key", ["../../x", "/etc/x", "a/../../x", "..", "", "a//b", "~", "x" * 5000, "ü/\0\ud800"]
)
def test_no_key_leaves_the_folder(tmp_path: Path, key: str) -> None:
    """A key is data of users, for instance what their cache_key_fn returns."""
    storage = ResultStorage(str(tmp_path / "r"))
    storage.write(key, [1])
    storage.write_cached(key, 2)
    assert storage.read_cached(key, None, 0.0) == (True, 2)
    assert len(files_below(tmp_path / "r")) == len(files_below(tmp_path)) == 2


@given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_different_keys_have_different_files(keys: list[str]) -> None:
    """Percent-encoding loses nothing."""
    assert file_name(keys[0]) != file_name(keys[1])


def test_plain_keys_are_readable_as_file_names() -> None:
    """People look into the folder."""
    assert file_name("runs/jumpy-puppy_1.2/7-0") == "runs/jumpy-puppy_1.2/7-0"
    assert file_name("http://x y") == "http%3A/%/x%20y"


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    """Results are as secret as what they were made from; nothing is left over beside them."""
    old = os.umask(0)
    try:
        stored = ResultStorage(str(tmp_path / "a" / "b")).write("c/d", [1])
    finally:
        os.umask(old)
    path = Path(stored.url)
    assert path.stat().st_mode & 0o777 == 0o600
    assert {p.stat().st_mode & 0o777 for p in (path.parent, path.parent.parent, tmp_path / "a")} == {0o700}
    assert files_below(tmp_path) == [path]


def test_a_missing_file_is_named_with_the_cure(tmp_path: Path) -> None:
    """Deleted, or on a disk that this machine does not see."""
    storage = ResultStorage(str(tmp_path))
    stored = storage.write("k", [1])
    os.unlink(stored.url)
    with pytest.raises(ResultFileLostError, match=r"k\.result does not exist.*all of them") as caught:
        storage.read(stored, [0])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason) == (str(caught.value), f"the result file {stored.url} does not exist")


def test_a_file_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    """The record's digest decides, not the name; a position too far is an error, too."""
    storage = ResultStorage(str(tmp_path))
    stored = storage.write("k", [1])
    newer = storage.write("k", [2])
    with pytest.raises(ResultFileLostError, match=r"k\.result is not the one recorded"):
        storage.read(stored, [0])
    with pytest.raises(StorageError, match="has 1 results and none at position 1") as caught:
        storage.read(newer, [1])
    assert type(caught.value) is StorageError


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    """An old reader does not guess."""
    stored = ResultStorage(str(tmp_path)).write("k", [1])
    content = bytearray(Path(stored.url).read_bytes())
    content[8] = 9
    Path(stored.url).write_bytes(content)
    with pytest.raises(StorageError, match=r"format 9.*Upgrade") as caught:
        read_stored(stored, [0])
    assert type(caught.value) is StorageError  # what it holds is not lost


def test_a_real_write_error_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    """The kernel refuses in the middle of a file; nothing half-written stays."""
    storage = ResultStorage(str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(
            StorageError, match=r"k\.result cannot be written: File too large.*result_storage"
        ):
            storage.write("k", [os.urandom(300_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files_below(tmp_path) == []


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    """A wrong setting, told by the first write."""
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageError, match=r"f/k\.result cannot be written.*"):
        ResultStorage(str(tmp_path / "f")).write("k", [1])


@pytest.mark.parametrize(("code", "cure"), [(errno.ENOSPC, "free space"), (errno.EROFS, "mount it writable")])
def test_a_full_or_read_only_disk_is_named_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, cure: str
) -> None:
    """Whatever call it is that the kernel refuses, the error says what to do."""

    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.replace", refuse)
    storage = ResultStorage(str(tmp_path))
    with pytest.raises(StorageError, match=rf"k\.result cannot be written.*{cure}"):
        storage.write("k", [1])
    with pytest.raises(StorageError, match=rf"k\.cached cannot be written.*{cure}"):
        storage.write_cached("k", 1)
    assert files_below(tmp_path) == []


def test_cache_entries_grow_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of exactly the age allowed does not count any more."""
    storage = ResultStorage(str(tmp_path))
    monkeypatch.setattr("time.time", lambda: 1000.0)
    storage.write_cached("k", "v")
    assert storage.read_cached("k", 60, 1059.9) == (True, "v")
    assert storage.read_cached("k", 60, 1060.0) == (False, None)
    assert storage.read_cached("k", None, 1e12) == (True, "v")


def test_a_bad_cache_entry_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A torn, a foreign or an unloadable entry makes the task run again, and a warning names the file."""
    storage = ResultStorage(str(tmp_path))
    storage.write_cached("k", "v")
    path = tmp_path / "cache" / "k.cached"
    whole = path.read_bytes()
    for content in (whole[:-1], b"", b"MILLRACE", b"something else"):
        path.write_bytes(content)
        assert storage.read_cached("k", None, 0.0) == (False, None)
    assert "k.cached" in caplog.text
    (tmp_path / "cache" / "K.cached").write_bytes(whole)  # as on a file system that ignores case
    assert storage.read_cached("K", None, 0.0) == (False, None)
    storage.write_cached("k", Grumpy())
    assert storage.read_cached("k", None, 0.0) == (False, None)


def test_readers_never_see_a_torn_entry(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Four writers and a reader on one key: the reader always gets somebody's whole value."""
    storage = ResultStorage(str(tmp_path))
    storage.write_cached("k", b"0" * 50_000)

    def write(digit: bytes) -> None:
        for _ in range(30):
            storage.write_cached("k", digit * 50_000)

    writers = [threading.Thread(target=write, args=(b"%d" % n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    for _ in range(100):
        hit, value = storage.read_cached("k", None, 0.0)
        assert hit
        assert len(set(value)) == 1
    for writer in writers:
        writer.join()
    assert caplog.text == ""


def test_opening_is_done_once_per_process(tmp_path: Path) -> None:
    """Workers ask for the storage at each batch."""
    assert open_storage(str(tmp_path), "json") is open_storage(str(tmp_path), "json")


def test_mistakes_in_settings_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown serializer, protocol or place, and a protocol whose package is missing."""
    for url, message in {
        "": "no place for results",
        "nosuch://x": "Protocol not known",
        "file://host/x": "file:///absolute",
        "gdrive://x": r"pip install \w+",
    }.items():
        with pytest.raises(UserError, match=message):
            ResultStorage(url)
    with pytest.raises(UserError, match="cloudpickle, json, msgpack"):
        ResultStorage("/x", "yaml")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "obstore.fsspec", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'millrace\[s3\]'"):
        ResultStorage("s3://bucket/x")


def test_local_storage_does_not_load_fsspec() -> None:
    """It takes 90 ms, which every worker would pay."""
    code = "import sys, runners.storage as s; s.ResultStorage('/tmp/x'); print('fsspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert isinstance(ResultStorage("/tmp/x")._files, LocalFiles)
