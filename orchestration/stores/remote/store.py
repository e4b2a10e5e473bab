"""RemoteStore: the port over the HTTP API of `millrace server start`."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ... import settings
from ...core.journal import Entry
from ...core.states import RunState, State
from ..base import (
    AttemptRow,
    Grant,
    HistoryRow,
    LeaseRow,
    Limit,
    LogRow,
    NodeRow,
    RecoveredNode,
    Requests,
    RunRow,
    Store,
    TaskRunRow,
)
from ..failures import FailureGroup
from ..liveness import mark_at
from ..newsroom import Newsroom
from ..patience import PATIENCE_SECONDS
from ..timeline import Timeline
from ..timing import RunTiming
from ..wire.port import Call, pack_call, unpack_answer
from .address import Address
from .buffer import send_left
from .lanes import AskingLane, JournalLane
from .link import Link
from .listening import RemoteNewsroom
from .spool import MAX_BYTES

CLOSE_SECONDS = 2.0  # for the last of a buffer
_HOUSEKEEPING = frozenset({"heartbeat", "requests", "limits", "reap"})  # a run's work goes on meanwhile
_open: weakref.WeakSet[RemoteStore] = weakref.WeakSet()


class RemoteStore(Store):
    """A store that a server keeps.

    Args:
        url: of the server, `https://host:4280`; a token may stand in place of a password.
        patience_seconds: how long a server that has gone away is waited for, where its answer is needed.
        buffer_bytes: how much of the record is kept in a file while the server is away.

    Attributes:
        left_sent, left_refused: how many transactions of ended processes were recorded, and how many were not.

    Raises:
        UserError: the URL cannot be read.
        StoreError: the server cannot be reached, lets nobody in without the right token, or is of another version.
    """

    def __init__(
        self, url: str, *, patience_seconds: float = PATIENCE_SECONDS, buffer_bytes: int = MAX_BYTES
    ) -> None:
        self._address = Address(url)
        self.url = self._address.shown
        self._link = Link(self._address, patience_seconds)
        self._folder = Path(settings.home()) / "spool"
        self._asking = AskingLane(self._link)
        self._journal = JournalLane(self._link, self._folder, buffer_bytes)
        self._offset = self._clock()
        self.left_sent = self.left_refused = 0
        self.flush()
        _open.add(self)

    @property
    def address(self) -> str:
        return self._address.url

    def _clock(self) -> float:
        """What to add to this process's monotonic clock to get the server's, which all processes share."""
        before = time.monotonic()
        there = self._link.insist(self._link.greet)
        return there - (before + time.monotonic()) / 2

    def now(self) -> float:
        return self._offset + time.monotonic()

    def listen_for_requests(self, run_id: str, notice: Callable[[], None]) -> Callable[[], None]:
        return self._newsroom.listen(notice, run_id)

    @cached_property
    def _newsroom(self) -> Newsroom:
        return RemoteNewsroom(self._link)

    def flush(self) -> None:
        """Send what is buffered, by ended processes of this home, too.

        Raises:
            StoreError
        """
        self._journal.buffer.wait_empty()
        for sender in send_left(self._link, self._folder):
            self.left_sent += sender.sent
            self.left_refused += sender.refused

    def close(self) -> None:
        self._journal.buffer.close(CLOSE_SECONDS)
        self._link.closing.set()
        self._journal.buffer.stop()
        self._link.close()
        self._link.closing.clear()

    def after_fork(self) -> None:
        """Start anew in a child process."""
        self._link.after_fork()
        self._asking.after_fork()
        self._journal.after_fork()
        self._newsroom.after_fork()

    # --- a run's own process --------------------------------------------------------------------

    def create_run(self, run: RunRow) -> None:
        self._ask("create_run", mark_at(run.host, run.pid), run=run)

    def claim(self, run_id: str, *, host: str, pid: int, now: float) -> RunRow:
        self.flush()  # what the process has recorded that is taken over
        found: RunRow = self._ask("claim", mark_at(host, pid), run_id=run_id, host=host, pid=pid, now=now)
        return found

    def append(self, run_id: str, epoch: int, entries: Sequence[Entry]) -> None:
        call = Call("append", {"run_id": run_id, "epoch": epoch, "entries": entries})
        self._journal.send(pack_call(call))

    def heartbeat(self, run_id: str, epoch: int, now: float) -> Requests:
        found: Requests = self._call("heartbeat", run_id=run_id, epoch=epoch, now=now)
        return found

    def requests(self, run_id: str, epoch: int) -> Requests:
        found: Requests = self._call("requests", run_id=run_id, epoch=epoch)
        return found

    def recovered(self, run_id: str) -> Mapping[str, RecoveredNode]:
        found: Mapping[str, RecoveredNode] = self._call("recovered", run_id=run_id)
        return found

    def timing(self, run_id: str) -> RunTiming:
        found: RunTiming = self._call("timing", run_id=run_id)
        return found

    def next_ids(self, run_id: str) -> tuple[int, int]:
        found: tuple[int, int] = self._call("next_ids", run_id=run_id)
        return found

    # --- other processes ------------------------------------------------------------------------

    def request(self, run_id: str, *, cancel: bool | None = None, pause: bool | None = None) -> None:
        self._ask("request", run_id=run_id, cancel=cancel, pause=pause)

    def reap(self, now: float, *, proven: bool = False) -> list[str]:
        found: list[str] = self._call("reap", now=now, proven=proven)
        return found

    def runs(
        self,
        *,
        states: frozenset[RunState] | None = None,
        flow_name: str | None = None,
        parent_run_id: str | None = None,
        limit: int = 50,
        before: tuple[float, str] | None = None,
    ) -> list[RunRow]:
        found: list[RunRow] = self._call(
            "runs",
            states=states,
            flow_name=flow_name,
            parent_run_id=parent_run_id,
            limit=limit,
            before=before,
        )
        return found

    def tally(self, *, subflows: bool = True) -> list[tuple[str, RunState, int]]:
        found: list[tuple[str, RunState, int]] = self._call("tally", subflows=subflows)
        return found

    def run(self, run: str) -> RunRow:
        found: RunRow = self._call("run", run=run)
        return found

    def nodes(self, run_id: str, node_id: int | None = None) -> list[NodeRow]:
        found: list[NodeRow] = self._call("nodes", run_id=run_id, node_id=node_id)
        return found

    def task_runs(
        self,
        run_id: str,
        *,
        node_id: int | None = None,
        states: frozenset[State] | None = None,
        after: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> list[TaskRunRow]:
        found: list[TaskRunRow] = self._call(
            "task_runs", run_id=run_id, node_id=node_id, states=states, after=after, limit=limit
        )
        return found

    def states(self, run_id: str, node_id: int) -> bytes:
        found: bytes = self._call("states", run_id=run_id, node_id=node_id)
        return found

    def timeline(self, run_id: str, *, after: int = 0) -> Timeline:
        found: Timeline = self._call("timeline", run_id=run_id, after=after)
        return found

    def attempts(self, run_id: str, node_id: int, index: int) -> list[AttemptRow]:
        found: list[AttemptRow] = self._call("attempts", run_id=run_id, node_id=node_id, index=index)
        return found

    def history(self, run_id: str, node_id: int, index: int) -> list[HistoryRow]:
        found: list[HistoryRow] = self._call("history", run_id=run_id, node_id=node_id, index=index)
        return found

    def logs(
        self,
        run_id: str,
        *,
        after: int = 0,
        node_id: int | None = None,
        index: int | None = None,
        min_level: int = 0,
        limit: int = 1000,
    ) -> list[LogRow]:
        found: list[LogRow] = self._call(
            "logs",
            run_id=run_id,
            after=after,
            node_id=node_id,
            index=index,
            min_level=min_level,
            limit=limit,
        )
        return found

    def failures(self, run_id: str, limit: int = 20) -> list[FailureGroup]:
        found: list[FailureGroup] = self._call("failures", run_id=run_id, limit=limit)
        return found

    # --- limits ---------------------------------------------------------------------------------

    def set_limit(self, name: str, slots: int, per_second: float | None = None) -> None:
        self._ask("set_limit", name=name, slots=slots, per_second=per_second)

    def remove_limit(self, name: str) -> bool:
        removed: bool = self._ask("remove_limit", name=name)
        return removed

    def limits(self, now: float) -> list[Limit]:
        found: list[Limit] = self._call("limits", now=now)
        return found

    def leases(self, name: str, now: float) -> list[LeaseRow]:
        found: list[LeaseRow] = self._call("leases", name=name, now=now)
        return found

    def acquire(
        self,
        names: Sequence[str],
        *,
        holder: str,
        run_id: str,
        epoch: int,
        label: str,
        slots: int,
        now: float,
        remote: bool = False,
        within: Sequence[str] = (),
    ) -> Grant:
        grant: Grant = self._ask(
            "acquire",
            names=names,
            holder=holder,
            run_id=run_id,
            epoch=epoch,
            label=label,
            slots=slots,
            now=now,
            remote=remote,
            within=within,
        )
        return grant

    def release(self, holders: Sequence[str]) -> None:
        if holders:
            self._call("release", holders=holders)

    # --- inside ---------------------------------------------------------------------------------

    def _call(self, verb: str, **arguments: Any) -> Any:
        """Ask for what may be asked twice, when the server knows all that this process has recorded."""
        quiet = verb in _HOUSEKEEPING
        self._journal.buffer.wait_empty(quiet=quiet)
        return self._link.insist(lambda: self._link.call(verb, **arguments), quiet=quiet)

    def _ask(self, verb: str, mark: str | None = None, **arguments: Any) -> Any:
        """Have done what must not be done twice."""
        self._journal.buffer.wait_empty()
        return unpack_answer(verb, self._asking.send(pack_call(Call(verb, arguments, mark))))


def _after_fork() -> None:
    for store in list(_open):
        store.after_fork()


os.register_at_fork(after_in_child=_after_fork)
