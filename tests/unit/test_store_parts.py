"""The parts that stores share: packed columns, judged limits, live processes, URLs and settings."""

from __future__ import annotations

import os
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration import settings
from orchestration.errors import UserError
from orchestration.stores import open_store
from orchestration.stores.columns import pack_floats, pack_ints, unpack_floats, unpack_ints
from orchestration.stores.limits import Bucket, Claim, Demand, claims_after, judge
from orchestration.stores.liveness import is_gone, process_mark, this_host
from orchestration.stores.memory import MemoryStore
from orchestration.stores.sql.grouping import GroupCommit, Job

NATURAL = st.integers(min_value=0, max_value=2**64 - 1)


# --- columns -------------------------------------------------------------------------------------


@given(
    st.lists(NATURAL) | st.lists(st.integers(0, 3)) | st.builds(range, st.integers(0, 9), st.integers(0, 99))
)
def test_integers_survive_packing(values: list[int] | range) -> None:
    """Whatever their order and size, and without a range's step."""
    assert list(unpack_ints(pack_ints(values))) == list(values)


@given(st.integers(0, 2**40), st.integers(1, 10**6))
def test_ranges_and_repeats_take_no_room(start: int, length: int) -> None:
    """A million contiguous items cost 17 bytes."""
    assert len(pack_ints(range(start, start + length))) == 17
    assert unpack_ints(pack_ints(range(start, start + length))) == range(start, start + length)


def test_what_looks_like_a_range_at_its_ends_is_no_range() -> None:
    """Both ends fit, the middle does not."""
    for values in ([5, 7, 7, 8], [3, 3, 4, 3], [1, 3, 2, 4], array("i", [2, 2, 4])):
        assert list(unpack_ints(pack_ints(values))) == list(values)
    assert list(unpack_ints(pack_ints(range(8, 0, -2)))) == [8, 6, 4, 2]


@given(st.lists(st.floats(allow_nan=False)))
def test_floats_survive_packing(values: list[float]) -> None:
    """Bit by bit, from lists and arrays."""
    assert list(unpack_floats(pack_floats(values))) == values
    assert unpack_floats(pack_floats(array("d", values))) == array("d", values)


# --- limits --------------------------------------------------------------------------------------

STEP = st.tuples(st.integers(0, 3), st.integers(1, 3), st.floats(0.0, 2.0))  # holder, slots, time that passes


@given(st.integers(1, 5), st.floats(0.1, 50.0), st.lists(STEP, max_size=60))
def test_a_token_bucket_never_gives_more_than_flowed_in(
    size: int, per_second: float, steps: list[tuple[int, int, float]]
) -> None:
    """In any stretch of time at most the bucket and what flowed in; asking at `retry_at` succeeds for the first."""
    bucket, claims, now = Bucket("x", size, per_second, float(size), 0.0), list[Claim](), 100.0
    grants: list[tuple[float, int]] = []
    for ticket, (holder, slots, passed) in enumerate(steps):
        now += passed
        demand = Demand(("x",), str(holder), "r", 1, "label", min(slots, size))
        verdict = judge([bucket], claims, demand, now)
        after = claims_after(verdict, [bucket], claims, demand, next_ticket=ticket, now=now)
        claims = [claim for claim in claims if claim.holder != demand.holder] + after
        if verdict.granted:
            bucket = bucket.without(demand.slots, now)
            grants.append((now, demand.slots))
        else:
            assert verdict.retry_at is not None
            assert verdict.retry_at > now
    for k, (start, _) in enumerate(grants):
        for m in range(k, len(grants)):
            given_out = sum(slots for _, slots in grants[k : m + 1])
            assert given_out <= size + (grants[m][0] - start) * per_second + 1e-6


def test_a_bucket_ignores_a_clock_that_went_back() -> None:
    """No tokens out of the past, and no standstill until the old time comes again."""
    bucket = Bucket("x", 2, 1.0, 1.0, 1000.0)
    assert bucket.tokens_at(400.0) == 1.0
    assert bucket.without(1, 400.0).tokens_at(401.0) == 1.0


# --- processes -----------------------------------------------------------------------------------


def test_a_process_is_known_by_more_than_its_number() -> None:
    """Another process with the same pid is not the one that was recorded."""
    mark = process_mark(os.getpid())
    assert not is_gone(this_host(), os.getpid(), mark)
    assert not is_gone("another-host", 2**22, mark)
    if mark:
        surroundings, _, start = mark.rpartition("/")
        assert is_gone(this_host(), os.getpid(), f"{surroundings}/{int(start) + 1}")
        assert not is_gone(this_host(), os.getpid(), f"another-boot/{start}"), "a container of our name"


def test_a_zombie_is_gone() -> None:
    """A killed process whose parent has not looked yet does not count as alive."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = process_mark(child.pid)
    assert not is_gone(this_host(), child.pid, mark)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(this_host(), child.pid, mark) or not mark
    child.communicate()


# --- group commit --------------------------------------------------------------------------------


class Committing(GroupCommit[Any]):
    """Commits, and is then hit by an exception that another thread has sent."""

    def __init__(self) -> None:
        self._forget()

    def _transact(self, jobs: list[Job[Any]]) -> None:
        for job in jobs:
            job.result = job.work(None)
            job.done = True
        raise TimeoutError("sent from elsewhere")


def test_what_is_committed_is_not_written_again() -> None:
    """An exception that hits a thread right after its COMMIT is its own; the work of others is done."""
    base, done = Committing(), list[str]()
    other: Job[Any] = Job(lambda _: done.append("other"))
    base._waiting.append(other)
    with pytest.raises(TimeoutError):
        base.write(lambda _: done.append("own"))
    assert done == ["other", "own"]
    assert (other.done, other.error) == (True, None)


# --- URLs and settings ---------------------------------------------------------------------------


def test_one_store_per_url_and_process(tmp_path: Path) -> None:
    """Flow runs of one process share a writer, however they spell the path."""
    path = tmp_path / "a.db"
    store = open_store(str(path))
    assert open_store(f"sqlite:///{path}") is store
    assert open_store(f"sqlite:///{tmp_path}/./b/../a.db") is store
    assert store.url == f"sqlite:///{path}"
    assert isinstance(open_store("memory"), MemoryStore)
    assert open_store("memory") is open_store("memory")
    pid = os.fork()
    if pid == 0:
        os._exit(open_store(str(path)) is store)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    store.close()


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("postgresql://u:secret@h:port/db", "cannot be read"),
        ("postgresql://u:secret@h/db?nonsense=1", "cannot be read"),
        ("mysql://h/db", "mysql"),
        ("sqlite://", "names no file"),
        (":memory:", "memory"),
        ("folder/", "names no file"),
        ("memory:", "without its"),
        ("sqlite:runs.db", "without its"),
        ("postgresql:u:secret@h/db", "without its"),
    ],
)
def test_urls_that_name_no_store(url: str, cause: str) -> None:
    """The message names what is supported and repeats no password."""
    with pytest.raises(UserError, match=cause) as caught:
        open_store(url)
    assert "sqlite:///path" in str(caught.value) or "postgresql://user@host" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_settings_come_from_the_environment_first(
    millrace_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then from the nearest pyproject.toml, then defaults."""
    project = tmp_path / "project" / "deep"
    project.mkdir(parents=True)
    monkeypatch.chdir(project)
    assert settings.home() == millrace_home
    assert settings.store_url() == f"sqlite:///{millrace_home}/millrace.db"
    assert settings.result_storage_url() == str(millrace_home / "results")
    assert settings.runner_name() is None
    file = project.parent / "pyproject.toml"
    file.write_text('[tool.millrace]\nstore = "records.db"\nrunner = "dask"\nresults = "s3://bucket/x"\n')
    assert settings.store_url() == str(project.parent / "records.db")
    monkeypatch.setenv("MILLRACE_API_URL", "https://runs.example:4280")
    assert settings.store_url() == "https://runs.example:4280"
    assert (settings.runner_name(), settings.result_storage_url()) == ("dask", "s3://bucket/x")
    monkeypatch.setenv("MILLRACE_STORE", "memory")
    assert settings.store_url() == "memory"
    file.write_text("[tool.millrace]\nrunner = 3\n")
    os.utime(file, (1, 1))
    with pytest.raises(UserError, match="pyproject"):
        settings.runner_name()


def test_the_default_home_is_the_users_data_folder(
    millrace_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XDG's, or the usual place below the user's own folder."""
    monkeypatch.delenv("MILLRACE_HOME")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert settings.home() == tmp_path / "data" / "millrace"
    monkeypatch.setenv("XDG_DATA_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings.home() == tmp_path / ".local" / "share" / "millrace"
