"""The store's file is torn, locked, full, broken, unwritable."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faultkit.bench import Bench, Trial
from faultkit.plan import random_plan

from orchestration.errors import StoreCorruptError

pytestmark = pytest.mark.timeout(600)

SEQUENTIAL: dict[str, Any] = {"kind": "sequential"}
THREADS: dict[str, Any] = {"kind": "threads"}


def run_id(trial: Trial) -> str | None:
    run = trial.run
    trial.let_go()
    return run.run_id if run else None


def test_a_torn_write(bench: Bench) -> None:
    """The process died in the middle of a write: the journal ends with a part of a transaction, or with rubbish."""
    for trial in bench.trials("torn last write of the journal", short=1, full=50):
        plan = random_plan(trial.rng, persist=True)
        if not trial.begin(plan, SEQUENTIAL, 1, 30):
            continue
        wal = Path(f"{trial.store_path}-wal")
        data = wal.read_bytes()
        if len(data) > 8192:  # a frame that looks like the next one, up to where the power failed
            start = trial.rng.randrange(32, len(data) - 4096)
            wal.write_bytes(data + data[start : start + trial.rng.randint(1, 8192)])
            trial.injected()
        trial.to_the_end(plan, SEQUENTIAL, resumes=1)
        trial.check(plan)


def test_the_last_transactions_are_gone(bench: Bench) -> None:
    """Power loss took the end of the journal: what is left is a whole, older record, and the run is completed."""
    for trial in bench.trials("last transactions of the journal lost", short=1, full=50):
        plan = random_plan(trial.rng, persist=True)
        if not trial.begin(plan, SEQUENTIAL, 1, 30):
            continue
        wal = Path(f"{trial.store_path}-wal")
        size = wal.stat().st_size
        os.truncate(wal, max(0, size - trial.rng.randint(1, size // 2)))
        trial.injected()
        trial.to_the_end(plan, SEQUENTIAL, resumes=2)
        trial.check(plan, forgotten=True)


def test_the_store_is_locked(bench: Bench) -> None:
    """Another program holds the write lock, again and again: the run waits and goes on."""
    for trial in bench.trials("SQLITE_BUSY: another program holds the lock", short=1, full=40):
        plan = random_plan(trial.rng, width=20, seconds=0.01)
        child = trial.start(plan, THREADS)
        for _ in range(trial.rng.randint(1, 4)):
            if not trial.wait_for_lines(trial.lines() + trial.rng.randint(1, 5), child):
                break
            with sqlite3.connect(trial.store_path, isolation_level=None, timeout=5) as other:
                other.execute("BEGIN IMMEDIATE")
                trial.injected()
                time.sleep(trial.rng.uniform(0.05, 0.4))
                other.execute("ROLLBACK")
            other.close()
        trial.finish(child)
        trial.check(plan)


def test_the_disk_fails(bench: Bench, require: Callable[[str, object], None]) -> None:
    """Every write to the store fails from some moment on: the run stops and says why, and is resumed later."""
    require("Linux on x86_64 or aarch64", os.uname().machine in ("x86_64", "aarch64"))
    for trial in bench.trials("EIO and EROFS on each write", short=1, full=50):
        plan = random_plan(trial.rng, persist=True)
        code = trial.rng.choice((errno.EIO, errno.EROFS))
        child = trial.start(plan, SEQUENTIAL, inject=[["writes_fail", trial.rng.randint(2, 20), code]])
        if trial.finish(child):
            trial.injected()
            if "StoreError" not in child.text and "StoreReadOnlyError" not in child.text:
                trial.violations.append("the process did not say that its store fails")
            if str(trial.store_path) not in child.text:
                trial.violations.append("the error does not name the file")
        trial.to_the_end(plan, SEQUENTIAL, resumes=2)
        trial.check(plan)


@contextmanager
def small_disk(trial: Trial) -> Iterator[Path]:
    """A file system of a few megabytes for the store alone."""
    place = trial.folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], check=True)
    trial.store_path = place / "millrace.db"
    trial.environ["MILLRACE_STORE"] = str(trial.store_path)
    try:
        yield place
    finally:
        trial.close()
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_the_disk_is_full(bench: Bench, require: Callable[[str, object], None]) -> None:
    """No space is left for a while: the run waits, loses nothing, and goes on when there is some."""
    require("root", os.geteuid() == 0)
    for trial in bench.trials("disk full for a second", short=1, full=30):
        plan = random_plan(trial.rng, width=20, seconds=0.02)
        with small_disk(trial) as place:
            child = trial.start(plan, THREADS)
            trial.wait_for_lines(trial.rng.randint(1, 6), child)
            filler = place / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 4096):
                        pass
                except OSError:
                    trial.injected()
            time.sleep(trial.rng.uniform(0.2, 1.2))
            filler.unlink()
            trial.finish(child)
            trial.check(plan)


def test_a_damaged_page(bench: Bench) -> None:
    """A page of the file is overwritten: that is found, or does no harm. The cure, a copy from before, works."""
    for trial in bench.trials("corrupt page in the store", short=1, full=40):
        plan = random_plan(trial.rng, persist=True)
        if not trial.begin(plan, SEQUENTIAL, 2, 30):
            continue
        found, run = run_id(trial), trial.run
        if run is not None and run.state.title == "Completed":  # it died after its end
            continue
        trial.let_go()
        with sqlite3.connect(trial.store_path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        copy = trial.folder / "copy.db"
        shutil.copy(trial.store_path, copy)
        pages = trial.store_path.stat().st_size // 4096
        with trial.store_path.open("r+b") as file:
            file.seek(4096 * trial.rng.randrange(pages))
            file.write(trial.rng.choice((bytes(4096), trial.rng.randbytes(4096))))
        trial.injected()
        child = trial.start(plan, SEQUENTIAL, resume=found)
        if trial.finish(child) == 0:
            try:
                trial.check(plan)
                continue
            except StoreCorruptError:  # the page was one that only a reader of the record meets
                trial.let_go()
        elif "StoreCorruptError" not in child.text or str(trial.store_path) not in child.text:
            trial.violations.append(f"the error does not tell what is the matter:\n{child.text[-1500:]}")
        for ending in ("", "-wal", "-shm"):
            Path(f"{trial.store_path}{ending}").unlink(missing_ok=True)
        shutil.copy(copy, trial.store_path)
        trial.to_the_end(plan, SEQUENTIAL, resumes=2)
        trial.check(plan, forgotten=True)


def test_an_unwritable_store(bench: Bench, require: Callable[[str, object], None]) -> None:
    """The file has become read-only: a resume says so, runs nothing, and works once it can be written again."""
    for trial in bench.trials("store read-only at the resume", short=0, full=15):
        require("root", os.geteuid() == 0)
        require("chattr", shutil.which("chattr"))
        plan = random_plan(trial.rng, persist=True)
        if not trial.begin(plan, SEQUENTIAL, 2, 30):
            continue
        found = run_id(trial)
        lines = trial.lines()
        files = [
            f"{trial.store_path}{ending}"
            for ending in ("", "-wal")
            if Path(f"{trial.store_path}{ending}").exists()
        ]
        subprocess.run(["chattr", "+i", *files], check=True)
        try:
            trial.injected()
            child = trial.start(plan, SEQUENTIAL, resume=found)
            if trial.finish(child) == 0:
                trial.violations.append("a store that cannot be written was taken for one that can")
            elif "StoreReadOnlyError" not in child.text or str(trial.store_path) not in child.text:
                trial.violations.append(f"the error does not tell what is the matter:\n{child.text[-1500:]}")
        finally:
            subprocess.run(["chattr", "-i", *files], check=True)
        if trial.lines() != lines:
            trial.violations.append("code was run that could not be recorded")
        trial.to_the_end(plan, SEQUENTIAL, resumes=1)
        trial.check(plan)
