"""Transactions on their way to the server: those of threads that write at the same time travel as one request."""

from __future__ import annotations

import abc
import uuid
from pathlib import Path

from ...errors import StoreFullError, UserError
from ..sql.grouping import GroupCommit, Job
from ..wire.port import MAX_REQUEST_BYTES, Sending, pack_group
from .buffer import Buffer
from .faults import AwayError
from .link import Link

_ROOM_BYTES = 1024  # of a request, for what is around its calls


class Lane(GroupCommit[None]):
    """Sends packed calls, one request at a time, each with the next number of its writer."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._forget()

    def _forget(self) -> None:
        super()._forget()
        self.writer_id = uuid.uuid4().hex
        self._number = 0

    def after_fork(self) -> None:
        """Begin anew, as another writer, in a child process."""
        self._forget()

    def send(self, call: bytes) -> bytes:
        """Have a packed call done, perhaps with those of other threads; return its packed answer."""
        return self.write(lambda _: call)

    def _transact(self, jobs: list[Job[None]]) -> None:
        calls: list[bytes] = [job.work(None) for job in jobs]
        if (size := sum(map(len, calls))) > MAX_REQUEST_BYTES - _ROOM_BYTES:
            raise UserError(  # of several, each is tried alone
                f"What is to be recorded at once is too large for the server {self._link.shown}: {size >> 20} MB, "
                f"and it takes {MAX_REQUEST_BYTES >> 20} MB. Pass large parameters by the path of a file."
            )
        self._number += 1
        answers = self._send(pack_group(self._number, calls))
        for k, job in enumerate(jobs):
            job.result = answers[k] if answers else b""
            job.done = True

    @abc.abstractmethod
    def _send(self, group: bytes) -> list[bytes]:
        """Return the answers, nothing where there are none yet; called with the lock held."""


class AskingLane(Lane):
    """For what needs an answer: it waits for the server."""

    def _send(self, group: bytes) -> list[bytes]:
        return self._link.insist(lambda: self._link.write(self.writer_id, Sending.AT_ONCE, [group]))


class JournalLane(Lane):
    """For what needs none: it goes into a buffer while the server is away.

    Attributes:
        buffer: what has not been acknowledged.
    """

    def __init__(self, link: Link, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        super().__init__(link)

    def _forget(self) -> None:
        super()._forget()
        self.buffer = Buffer(self._link, self.writer_id, self._folder, self._max_bytes)

    def after_fork(self) -> None:
        self.buffer.abandon()
        super().after_fork()

    def _send(self, group: bytes) -> list[bytes]:
        if self.buffer.add(group):
            return []
        patience = self._link.patience()
        while True:
            try:
                return self._link.write(self.writer_id, Sending.AT_ONCE, [group])
            except AwayError as error:
                # Whether it has heard shows when it gets the same again. So until it is kept it must not be forgotten.
                try:
                    self.buffer.begin(group, error)
                except StoreFullError as full:
                    patience.nap(full)
                else:
                    return []
