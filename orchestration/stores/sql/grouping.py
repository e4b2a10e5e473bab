"""Group commit without a writer thread: whoever gets the lock writes what all threads have queued.

Alone, a caller pays for its own write only; a writer thread would add two switches per append, each up to
5 ms where user code holds the GIL. Together, callers share a transaction without anyone waiting for a group
to form (flat combining). See decisions/0001 for the figures.
"""

from __future__ import annotations

import abc
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from ...errors import StoreError

T = TypeVar("T")
C = TypeVar("C")  # what a job works with


class Job(Generic[C]):
    """One caller's part of a transaction.

    Attributes:
        limits: which it judges or changes. Where rows are locked, those of a whole transaction are before all else,
            by name: jobs that lock them one after another would wait for another process that does so too.
    """

    __slots__ = ("done", "error", "limits", "result", "work")

    def __init__(self, work: Callable[[C], Any], limits: Sequence[str] = ()) -> None:
        self.work = work
        self.limits = limits
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False


class GroupCommit(abc.ABC, Generic[C]):
    """Lets the threads of a process write in shared transactions."""

    def _forget(self) -> None:
        """Begin, or begin anew in a child process."""
        self._lock = threading.Lock()
        self._waiting: deque[Job[C]] = deque()

    @abc.abstractmethod
    def _transact(self, jobs: list[Job[C]]) -> None:
        """Do all jobs in one transaction and mark them as done, or none; called with the lock held.

        Raises:
            StoreError: of the database, so that it is every job's.
        """

    def write(self, work: Callable[[C], T], limits: Sequence[str] = ()) -> T:
        """Do `work` in a transaction, perhaps with other threads' work; it may be called more than once.

        Args:
            limits: see `Job`.
        """
        job = Job(work, limits)
        self._waiting.append(job)
        try:
            with self._lock:
                if not job.done:
                    self._write_waiting()
        except BaseException:  # interrupted before or while its turn came
            if job in self._waiting:
                self._waiting.remove(job)
            raise
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def _write_waiting(self) -> None:
        jobs = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            self._transact(jobs)
        except Exception as error:
            if jobs[0].done:
                raise  # they are committed: the exception was sent to this thread from another one
            # One job's fault is not its neighbours': each gets a transaction of its own. The database's is all's.
            shared = len(jobs) == 1 or isinstance(error, StoreError)
            for job in jobs:
                if shared:
                    job.error, job.done = error, True
                else:
                    self._transact_alone(job)
        except BaseException:
            self._waiting.extendleft(job for job in reversed(jobs) if not job.done)
            raise

    def _transact_alone(self, job: Job[C]) -> None:
        try:
            self._transact([job])
        except Exception as error:
            job.error, job.done = error, True
