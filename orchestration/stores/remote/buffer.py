"""What cannot be sent now: kept in a file, and sent in order by a thread when the server is back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ...errors import FencedError, StoreError, UserError
from ..patience import FIRST_NAP_SECONDS
from ..wire.port import Sending
from .faults import AwayError
from .link import Link
from .spool import CURE, Spool, full

CHUNK_BYTES = 1 << 20  # in one request
LONGEST_NAP_SECONDS = 1.0
_QUIET_SECONDS = 1.0  # shorter breaks are not worth a line

log = logging.getLogger("millrace.driver")


class Buffer:
    """The transactions of one writer that its server has not acknowledged.

    Args:
        max_bytes: how large the file may become.
    """

    def __init__(self, link: Link, writer_id: str, folder: Path, max_bytes: int) -> None:
        self._link = link
        self._writer_id = writer_id
        self._folder = folder
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._spool: Spool | None = None
        self._thread: threading.Thread | None = None
        self._problem: Exception = AwayError("it has not answered")  # what was the matter last

    def abandon(self) -> None:
        """Let go of the file in a child process: it is the parent's, and so is its lock."""
        if self._spool is not None:
            self._spool.close()

    def add(self, group: bytes) -> bool:
        """Keep a transaction behind others; return False if there are none, so that it may be sent at once.

        Raises:
            StoreFullError, StoreError: it is not kept.
        """
        with self._changed:
            if self._spool is None:
                return False
            self._keep(self._spool, group)
            return True

    def begin(self, group: bytes, problem: Exception) -> None:
        """Keep a transaction that may have been heard, and begin to try again.

        Raises:
            StoreFullError, StoreError: it is not kept.
        """
        with self._changed:
            self._problem = problem
            self._spool = self._spool or Spool.create(self._folder, self._link.shown, self._writer_id)
            try:
                self._keep(self._spool, group)
            except BaseException:
                if self._spool.end == self._spool.begin:
                    self._spool.remove()
                    self._spool = None
                raise

    def _keep(self, spool: Spool, group: bytes) -> None:
        if spool.end + len(group) > self._max_bytes:
            raise full(spool.path, self._link.shown, spool.end)
        spool.append(group)
        self._start(spool)

    def _start(self, spool: Spool) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._run, args=(spool,), name="millrace-buffer", daemon=True
            )
            self._thread.start()

    def wait_empty(self, *, quiet: bool = False) -> None:
        """Return when all has been sent: what is asked now must know of it.

        Raises:
            StoreUnreachableError: the server stays away for too long.
        """
        if self._spool is None:
            return
        patience = self._link.patience(quiet=quiet)
        # Who does not wait gives the thread a chance to find that the server is back.
        while not self._empty_within(FIRST_NAP_SECONDS if self._link.reached else 2 * LONGEST_NAP_SECONDS):
            self._link.wait(patience, self._problem)
        patience.over()

    def _empty_within(self, seconds: float) -> bool:
        with self._changed:
            if self._spool is not None:
                self._start(self._spool)  # the one of before may have ended by `close`
            return self._changed.wait_for(lambda: self._spool is None, seconds)

    def close(self, seconds: float) -> None:
        """Give the server a last chance, then leave the file to the next process. Before `Link.closing` is set."""
        if self._spool is None or self._empty_within(seconds):
            return
        log.warning(
            "%s has not taken all of the record: %s. The rest is in %s and will be sent by the next process that uses "
            "this server, or by `millrace store flush`",
            self._link.shown,
            self._problem,
            self._spool.path,
        )

    def stop(self) -> None:
        """Wait for the thread to end. After `Link.closing` is set."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    # --- the thread -------------------------------------------------------------------------------

    def _run(self, spool: Spool) -> None:
        sender = Sender(self._link, spool, Sending.BUFFERED)
        nap, began, told = 0.0, time.monotonic(), False
        while not self._link.closing.wait(nap):
            try:
                more = sender.send()
            except (AwayError, StoreError) as error:
                self._problem = error
                nap = min(max(nap * 1.5, FIRST_NAP_SECONDS), LONGEST_NAP_SECONDS)
                if not told and time.monotonic() - began > _QUIET_SECONDS:
                    told = True
                    log.error(
                        "%s does not answer (%s); the run goes on, and what it records is kept in %s meanwhile",
                        self._link.shown,
                        error,
                        spool.path,
                    )
                continue
            self._link.reached = True
            nap = 0.0
            if not more and self._done(sender):
                if told:
                    log.warning("%s is back, and has all that was recorded meanwhile", self._link.shown)
                return

    def _done(self, sender: Sender) -> bool:
        """Let transactions be sent at once again, unless one more was added."""
        with self._changed:
            if self._spool is None or sender.at < self._spool.end:
                return False
            self._spool.remove()
            self._spool = None
            self._changed.notify_all()
            return True


class Sender:
    """Sends a file's records in order.

    Attributes:
        at: the place of the first that is not acknowledged.
        sent, refused: how many transactions.
    """

    def __init__(self, link: Link, spool: Spool, sending: Sending) -> None:
        self._link = link
        self._spool = spool
        self._sending = sending
        self._one_by_one = False
        self.at = spool.begin
        self.sent = self.refused = 0

    def send(self) -> bool:
        """Send what goes into one request; return whether there was anything.

        Raises:
            AwayError, StoreError: nothing of it is known to be done. It may be tried again.
        """
        groups, after = self._spool.read(self.at, 1 if self._one_by_one else CHUNK_BYTES)
        if not groups:
            return False
        try:
            self._link.write(self._spool.writer_id, self._sending, groups)
        except (FencedError, UserError) as error:  # of one of them: the others are another matter
            if len(groups) > 1:
                self._one_by_one = True
                return True
            self.refused += 1
            log.error("a part of the record of a run was refused by %s: %s", self._link.shown, error)
        else:
            self.sent += len(groups)
        self.at = after
        return True


def send_left(link: Link, folder: Path) -> Sequence[Sender]:
    """Send what ended processes of this home have not got rid of.

    Raises:
        StoreUnreachableError, StoreError: the files stay for the next one.
    """
    senders = []
    for spool in Spool.left_in(folder, link.shown):
        sender = Sender(link, spool, Sending.LEFT)
        try:
            while link.insist(sender.send):
                pass
        except BaseException as error:
            spool.close()
            if type(error) is not StoreError:
                raise
            where = f"This is about the buffer {spool.path}, which a process that has ended has left. {CURE}"
            raise StoreError(f"{error}. {where}") from error
        spool.remove()
        senders.append(sender)
        log.warning(
            "%d transactions that an ended process had not got rid of are recorded now, %d were refused",
            sender.sent,
            sender.refused,
        )
    return senders
