"""Is the process that owns a run still there? Only a provable answer may cut a heartbeat's wait short.

A pid alone proves nothing: it is used again, and in a container it is another process's number. So a run
keeps a mark of its process: boot, pid namespace, start time. Where the marks cannot be compared (another
machine, another container, no /proc) the answer is "not provable" and the heartbeat decides.
"""

from __future__ import annotations

import os
import socket
from functools import cache


@cache
def this_host() -> str:
    return socket.gethostname()


def process_mark(pid: int) -> str:
    """Return `boot/namespace/start` of a process here; "" where the system does not tell or it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name, in brackets, may hold anything; start time is the 20th field after it.
            fields = file.read().rpartition(b")")[2].split()
        zombie = fields[0] in (b"Z", b"X")
        return "" if zombie else f"{_surroundings()}/{int(fields[19])}"
    except (OSError, ValueError, IndexError):
        return ""


def mark_at(host: str, pid: int) -> str:
    """Return the mark of a process of a host; "" where that is not this one."""
    return process_mark(pid) if host == this_host() else ""


def is_gone(host: str, pid: int, mark: str) -> bool:
    """Tell whether a process has provably ended."""
    if pid <= 0 or host != this_host():
        return False
    if mark:
        if mark.rpartition("/")[0] != _surroundings():
            return False  # a container or machine that has our host's name
        return process_mark(pid) != mark
    if _surroundings():
        return False  # it was recorded from where /proc could not be read
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it exists and is another user's
    return False


@cache
def _surroundings() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
