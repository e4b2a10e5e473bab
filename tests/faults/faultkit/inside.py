"""Faults that a process meets from inside: deaths at chosen transactions, and channels and clocks that lie."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from runners.messages import BatchFinished, BatchProgress, BatchStarted


def die_at_write(number: int, when: str) -> None:
    """Kill this process at its n-th transaction: "before" it is written, or "after", before it is acted upon."""
    from orchestration.stores.sqlite.database import Database

    write = Database.write
    seen = [0]

    def counted(self: Database, work: Callable[..., Any]) -> Any:
        seen[0] += 1
        due = seen[0] == number
        if due and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = write(self, work)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Database.write = counted  # type: ignore[method-assign]


def count_writes(path: str) -> None:
    """Keep in a file how many transactions this process has made."""
    from orchestration.stores.sqlite.database import Database

    write = Database.write
    seen = [0]

    def counted(self: Database, work: Callable[..., Any]) -> Any:
        result = write(self, work)
        seen[0] += 1
        with open(path, "w", encoding="ascii") as file:
            file.write(str(seen[0]))
        return result

    Database.write = counted  # type: ignore[method-assign]


def die_after(seconds: float) -> None:
    """Kill this process so long after its flow has begun to run."""
    from orchestration.driver.loop import Driver

    start = Driver.start

    def started(self: Driver) -> None:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
        start(self)

    Driver.start = started  # type: ignore[method-assign]


def lie(seed: int, lost: float, repeated: float, late: float) -> None:
    """Make the channel from runner to driver lose, repeat and delay events, and so change their order.

    Live events get lost; tables do not, for they come by the engine's own channel. Both may come twice and late.
    """
    from orchestration.driver.inbox import Inbox

    put, rng = Inbox.put, random.Random(seed)

    def lying(self: Inbox, event: Any) -> None:
        live = isinstance(event, BatchStarted | BatchProgress)
        if not live and not isinstance(event, BatchFinished):
            put(self, event)
            return
        if live and rng.random() < lost:
            return
        for _ in range(2 if rng.random() < repeated else 1):
            if rng.random() < 0.5:
                timer = threading.Timer(rng.uniform(0.0, late), put, (self, event))
                timer.daemon = True
                timer.start()
            else:
                put(self, event)

    Inbox.put = lying  # type: ignore[method-assign]


def jump_clock(after: float, by: float) -> None:
    """Let the wall clock of this process jump, as when somebody sets it, so long from now."""
    real, at = time.time, time.monotonic() + after

    def jumping() -> float:
        return real() + (by if time.monotonic() >= at else 0.0)

    time.time = jumping


def file_size_limit(after: float, seconds: float, room: int) -> None:
    """Let the disk be full for a time: no file grows beyond `room` bytes more than the store has then."""
    import resource

    from orchestration import settings

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill() -> None:
        path = settings.store_url().removeprefix("sqlite:///")
        size = os.path.getsize(f"{path}-wal") if os.path.exists(f"{path}-wal") else 0
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, hard))
        time.sleep(seconds)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    threading.Timer(after, fill).start()
