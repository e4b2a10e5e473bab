"""Time that all processes agree upon, whatever is done to the system's clock."""

from __future__ import annotations

import os
import time
from functools import cache

_OFFSET = time.time() - time.monotonic()


def steady_now() -> float:
    """Return wall time as it was when this process began, carried on by the monotonic clock."""
    return _OFFSET + time.monotonic()


def process_offset() -> float:
    """Return what `steady_now` adds to the monotonic clock."""
    return _OFFSET


@cache
def monotonic_clock_id() -> str:
    """Return what two processes have in common whose monotonic clocks show the same; "" if that cannot be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        return ""
    try:
        return f"{boot}/{os.readlink('/proc/self/ns/time')}"
    except OSError:  # before Linux 5.6 there are no time namespaces
        return boot
