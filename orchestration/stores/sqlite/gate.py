"""One lock file per store: of all processes, one at a time writes or checkpoints.

Why not SQLite's own lock: versions 3.7.0 to 3.51.2 can corrupt a WAL file when one connection checkpoints
while another one writes and starts the file anew, and their wait for a lock sleeps up to 100 ms at a time.
With this gate, writes and checkpoints of different processes never overlap, and a waiter is in within a
millisecond or two.
"""

from __future__ import annotations

import fcntl
import os
import time

_FIRST_NAP_SECONDS = 0.000_05
_LONGEST_NAP_SECONDS = 0.002


class Gate:
    """`flock` on `<store>.lock`. One thread at a time may use it: the caller holds the writer's lock."""

    def __init__(self, path: str) -> None:
        # Another file than the store: closing any descriptor of that one would drop SQLite's locks on it.
        self._fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def enter(self, timeout_seconds: float) -> bool:
        """Return whether the gate was free in time."""
        fd = self._fd
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._wait(fd, timeout_seconds)
        return True

    def _wait(self, fd: int, timeout_seconds: float) -> bool:
        # A blocking flock could not be given up; a thread or an alarm to interrupt it costs more than naps.
        deadline = time.monotonic() + timeout_seconds
        nap = _FIRST_NAP_SECONDS
        while time.monotonic() < deadline:
            time.sleep(nap)
            nap = min(nap * 1.5, _LONGEST_NAP_SECONDS)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return True
        return False

    def holder(self) -> int | None:
        """Return which process is inside, where the system tells (Linux, and a process of the same container)."""
        told = os.fstat(self._fd)
        place = f"{os.major(told.st_dev):02x}:{os.minor(told.st_dev):02x}:{told.st_ino}"
        try:
            with open("/proc/locks", encoding="ascii") as locks:
                # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF; who waits has "->" before FLOCK
                fields = [line.split() for line in locks]
        except OSError:
            return None
        pids = [int(f[4]) for f in fields if f[1:2] == ["FLOCK"] and f[5] == place]
        return next((pid for pid in pids if pid > 0), None)

    def leave(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)
