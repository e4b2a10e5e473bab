"""The folder of a Ray that we started: logs, sockets, spilled objects. It goes when that Ray goes.

A process that is killed leaves its folder behind, and some of Ray's own processes, which go on for a minute. So each
folder has a lock file that its owner holds, and a small process that waits for that lock and then cleans up. Should
that be killed, too, whoever makes a folder next removes those that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PREFIX = "millrace-ray-"
LOCK = "owner.lock"
MAX_BASE = 25  # a socket's path has at most 107 bytes, of which Ray needs 64

GRACE_SECONDS = 5.0  # in which Ray ends most of its processes itself when its driver has been killed

_held: dict[Path, tuple[int, subprocess.Popen[bytes]]] = {}  # lock and who waits for it


def make_folder() -> Path:
    """Make a folder, and remove those of processes that were killed."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > MAX_BASE:
        base = "/tmp"
    for left in Path(base).glob(f"{PREFIX}*"):
        if _abandoned(left):
            remove_folder(left)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    # renamed when it is locked: nobody ever sees a lock file of ours that he could lock
    handle = os.open(folder / "new.lock", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    (folder / "new.lock").rename(folder / LOCK)
    # Waits for the lock. It needs neither site-packages nor this package, and ends with the folder's other processes:
    # it names the folder.
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    _held[folder] = handle, watcher
    return folder


def clean_up_after_owner(folder: Path) -> None:
    """Wait until the owner of a folder has ended without removing it, then do that."""
    handle = os.open(folder / LOCK, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    time.sleep(GRACE_SECONDS)
    remove_folder(folder)


def remove_folder(folder: Path) -> None:
    """Delete a folder, after whatever process still works in it."""
    end_processes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    held = _held.pop(folder, None)
    if held is not None:
        handle, watcher = held
        os.close(handle)
        watcher.kill()
        watcher.wait()


def end_processes(folder: Path) -> None:
    """Kill whatever works in a folder."""
    for pid in _processes_of(folder):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _abandoned(folder: Path) -> bool:
    try:
        if folder in _held or folder.stat().st_uid != os.getuid():
            return False
        handle = os.open(folder / LOCK, os.O_RDWR)
    except OSError:  # being made, or being removed
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _processes_of(folder: Path) -> list[int]:
    """Ray's processes of a folder: started with its name, which nobody else uses, or renamed by Ray.

    Ray's own agents would go on for a minute where their driver was killed.
    """
    mark, found = os.fsencode(folder), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if int(entry.name) == os.getpid():
                continue
            if mark in command or (command.startswith(b"ray::") and _has_open(entry, str(folder))):
                found.append(int(entry.name))
    return found


def _has_open(process: Path, folder: str) -> bool:
    return any(os.readlink(handle).startswith(folder + "/") for handle in (process / "fd").iterdir())


if __name__ == "__main__":
    clean_up_after_owner(Path(sys.argv[1]))
