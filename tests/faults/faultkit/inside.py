"""Faults that a process meets from inside: deaths at chosen transactions, and channels and clocks that lie."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
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

    def counted(self: Database, work: Callable[..., Any], *limits: Any) -> Any:
        seen[0] += 1
        due = seen[0] == number
        if due and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = write(self, work, *limits)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Database.write = counted  # type: ignore[method-assign]


def count_writes(path: str) -> None:
    """Keep in a file how many transactions this process has made."""
    from orchestration.stores.sqlite.database import Database

    write = Database.write
    seen = [0]

    def counted(self: Database, work: Callable[..., Any], *limits: Any) -> Any:
        result = write(self, work, *limits)
        seen[0] += 1
        with open(path, "w", encoding="ascii") as file:
            file.write(str(seen[0]))
        return result

    Database.write = counted  # type: ignore[method-assign]


def break_commits(seed: int, share: float, told: str) -> None:
    """Break this process's connections to PostgreSQL as they send COMMIT, in a share of the transactions.

    Either it does not get to the server, or it does and the answer is not heard. The moments go to a file.
    """
    from orchestration.stores.postgres.connection import PostgresConnection

    commit, rng = PostgresConnection.commit, random.Random(seed)

    def breaking(self: PostgresConnection) -> None:
        if rng.random() < share:
            with open(told, "a", encoding="ascii") as file:
                file.write(f"{time.monotonic()}\n")
            with socket.socket(fileno=os.dup(self.raw.fileno())) as wire:
                wire.shutdown(rng.choice((socket.SHUT_RD, socket.SHUT_RDWR)))
        commit(self)

    PostgresConnection.commit = breaking  # type: ignore[method-assign]


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


def delete_results(seed: int, share: float, most: int, told: str) -> None:
    """Have Ray delete results of batches, by dropping its references, when a batch that reads them is about to be sent.

    The first, and a share of the others, those that were made again among them, up to `most` in all: a result that is
    lost for ever is rightly given up. The moments go to a file.
    """
    from runners.messages import Batch
    from runners.ray_desk import Desk

    submit, rng, seen, left = Desk._submit, random.Random(seed), set[int](), iter(range(most))

    def deleting(self: Desk, batch: Batch) -> None:
        for batch_id in batch.reads:
            if batch_id not in seen and batch_id in self.results:
                chosen = not seen or rng.random() < share
                seen.add(batch_id)
                if chosen and next(left, None) is not None:
                    self.release([batch_id])
                    with open(told, "a", encoding="ascii") as file:
                        file.write(f"{time.monotonic()}\n")
        submit(self, batch)

    Desk._submit = deleting  # type: ignore[method-assign]


def jump_clock(after: float, by: float) -> None:
    """Let the wall clock of this process jump, as when somebody sets it, so long from now."""
    real, at = time.time, time.monotonic() + after

    def jumping() -> float:
        return real() + (by if time.monotonic() >= at else 0.0)

    time.time = jumping


def impatient(seconds: float) -> None:
    """Take processes for dead that have been silent for so long, instead of 30 s."""
    from orchestration.stores.sqlite import runs

    runs.DEAD_AFTER_SECONDS = seconds


def change_code() -> None:
    """Let the task's code differ from what it was, and do the same."""
    from dataclasses import replace

    from faultkit import workload

    def play(given: Any, index: int, spec: dict[str, Any]) -> Any:
        changed = "this line is new"
        return original(given, index, spec) if changed else None

    original = workload.play
    workload.work = replace(workload.work, fn=play)


def writes_fail(after_writes: int, code: int) -> None:
    """Let each write of SQLite to a file fail from the n-th transaction on, by the kernel: EIO, EROFS.

    SQLite writes by `pwrite64`, which nothing else here uses; a seccomp filter over all threads answers it.
    """
    from orchestration.stores.sqlite.database import Database

    write = Database.write
    seen = [0]

    def counted(self: Database, work: Callable[..., Any], *limits: Any) -> Any:
        seen[0] += 1
        if seen[0] == after_writes:
            _refuse_pwrite(code)
        return write(self, work, *limits)

    Database.write = counted  # type: ignore[method-assign]


class _Filter(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Filter))]


PWRITE64 = {"x86_64": 18, "aarch64": 68}
SECCOMP = {"x86_64": 317, "aarch64": 277}
_NO_NEW_PRIVILEGES, _SET_FILTER, _ALL_THREADS = 38, 1, 1


def _refuse_pwrite(code: int) -> None:
    machine = os.uname().machine
    rules = (_Filter * 4)(
        _Filter(0x20, 0, 0, 0),  # load the system call's number
        _Filter(0x15, 0, 1, PWRITE64[machine]),
        _Filter(0x06, 0, 0, 0x00050000 | code),  # fail with this errno
        _Filter(0x06, 0, 0, 0x7FFF0000),  # allow
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(rules), rules)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if libc.syscall(SECCOMP[machine], _SET_FILTER, _ALL_THREADS, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "seccomp")
