"""SqlStore: the port over a SQL database. Each method is one transaction; the SQL is in the modules beside."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from ...core.journal import Entry
from ...core.states import RunState, State
from .. import limits as rules
from .. import replay
from ..audit import AuditRow
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
    TaskRunRow,
)
from ..failures import FailureGroup
from ..liveness import mark_at
from ..newsroom import frees_leases
from ..remains import Remains
from ..served import ServedStore
from ..timeline import Timeline, timeline
from ..timing import RunTiming, timing
from ..tokens import TokenRow
from . import access, acquiring, journal, leases, pruning, runs
from .checking import Problem, problems
from .connection import Connection
from .rows import RunView
from .text import clean

if TYPE_CHECKING:
    from ..wire.port import Writing

T = TypeVar("T")


class SqlStore(ServedStore):
    """What the stores over SQL databases do alike. `url` is for people: it holds no password."""

    @abc.abstractmethod
    def _write(self, work: Callable[[Connection], T], limits: Sequence[str] = ()) -> T:
        """Do `work` in a transaction that may write, and return when it is committed; it may be called again.

        Args:
            limits: which it judges or changes: nobody else does so meanwhile.
        """

    @abc.abstractmethod
    def _read(self, work: Callable[[Connection], T]) -> T:
        """Do `work` on one consistent state of the database; it may be called again."""

    def listen_for_requests(self, run_id: str, notice: Callable[[], None]) -> Callable[[], None]:
        return self._newsroom.listen(notice, run_id)

    def listen_to_all(self, notice: Callable[[str | None], None]) -> Callable[[], None]:
        """Have `notice` called with each topic of which there are news: "" for leases, a run's id, None for any."""
        return self._newsroom.listen_to_all(notice)

    # --- a run's own process --------------------------------------------------------------------

    def create_run(self, run: RunRow) -> None:
        self._write(lambda connection: runs.create(connection, run, mark_at(run.host, run.pid)))

    def claim(self, run_id: str, *, host: str, pid: int, now: float) -> RunRow:
        mark = mark_at(host, pid)
        return self._write(lambda connection: runs.claim(connection, run_id, host, pid, now, mark))

    def append(self, run_id: str, epoch: int, entries: Sequence[Entry]) -> None:
        self._write(lambda connection: journal.append(connection, run_id, epoch, entries))
        if frees_leases(entries):
            self._newsroom.tell()

    def heartbeat(self, run_id: str, epoch: int, now: float) -> Requests:
        def work(connection: Connection) -> Requests:
            asked = runs.beat(connection, run_id, epoch, now)
            if not asked.fenced:
                leases.renew(connection, run_id, now)
            return asked

        return self._write(work)

    def requests(self, run_id: str, epoch: int) -> Requests:
        return self._read(lambda connection: runs.requests(connection, run_id, epoch))

    def recovered(self, run_id: str) -> Mapping[str, RecoveredNode]:
        return self._look(run_id, Remains)

    def timing(self, run_id: str) -> RunTiming:
        return self._look(run_id, timing)

    def next_ids(self, run_id: str) -> tuple[int, int]:
        return self._read(lambda connection: runs.next_ids(connection, run_id))

    # --- other processes ------------------------------------------------------------------------

    def request(self, run_id: str, *, cancel: bool | None = None, pause: bool | None = None) -> None:
        self._write(lambda connection: runs.request(connection, run_id, cancel, pause))
        self._newsroom.tell(run_id)

    def reap(self, now: float, *, proven: bool = False) -> list[str]:
        if not self._read(lambda connection: runs.dead(connection, now, proven)):
            return []  # the usual case does not write
        reaped = self._write(lambda connection: runs.reap(connection, now, proven))
        self._newsroom.tell()
        return reaped

    def runs(
        self,
        *,
        states: frozenset[RunState] | None = None,
        flow_name: str | None = None,
        parent_run_id: str | None = None,
        limit: int = 50,
        before: tuple[float, str] | None = None,
    ) -> list[RunRow]:
        return self._read(
            lambda connection: runs.listing(
                connection,
                states=states,
                flow_name=flow_name,
                parent_run_id=parent_run_id,
                limit=limit,
                before=before,
            )
        )

    def tally(self, *, subflows: bool = True) -> list[tuple[str, RunState, int]]:
        return self._read(lambda connection: runs.tally(connection, subflows=subflows))

    def run(self, run: str) -> RunRow:
        return self._read(lambda connection: runs.find(connection, run, self.url))

    def nodes(self, run_id: str, node_id: int | None = None) -> list[NodeRow]:
        return self._look(run_id, lambda view: view.nodes(node_id))

    def task_runs(
        self,
        run_id: str,
        *,
        node_id: int | None = None,
        states: frozenset[State] | None = None,
        after: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> list[TaskRunRow]:
        return self._look(run_id, lambda view: replay.task_runs(view, node_id, states, after, limit))

    def states(self, run_id: str, node_id: int) -> bytes:
        return self._look(run_id, lambda view: replay.item_states(view, node_id))

    def states_since(self, run_id: str, node_id: int, before: replay.ItemStates) -> replay.ItemStates:
        return self._look(run_id, lambda view: replay.node_states(view, node_id, before))

    def timeline(self, run_id: str, *, after: int = 0) -> Timeline:
        return self._look(run_id, lambda view: timeline(view, after))

    def attempts(self, run_id: str, node_id: int, index: int) -> list[AttemptRow]:
        return self._look(run_id, lambda view: replay.attempts(view, node_id, index))

    def history(self, run_id: str, node_id: int, index: int) -> list[HistoryRow]:
        return self._look(run_id, lambda view: replay.history(view, node_id, index))

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
        return self._look(
            run_id,
            lambda view: view.logs(
                after=after, node_id=node_id, index=index, min_level=min_level, limit=limit
            ),
        )

    def failures(self, run_id: str, limit: int = 20) -> list[FailureGroup]:
        return self._look(run_id, lambda view: view.failures(limit))

    # --- limits ---------------------------------------------------------------------------------

    def set_limit(self, name: str, slots: int, per_second: float | None = None) -> None:
        rules.check(name, slots, per_second)
        self._write(lambda connection: leases.set_limit(connection, name, slots, per_second), (name,))
        self._newsroom.tell()

    def remove_limit(self, name: str) -> bool:
        removed = self._write(lambda connection: leases.remove_limit(connection, name), (name,))
        self._newsroom.tell()
        return removed

    def limits(self, now: float) -> list[Limit]:
        return self._read(lambda connection: leases.limits(connection, now))

    def leases(self, name: str, now: float) -> list[LeaseRow]:
        return self._read(lambda connection: leases.leases(connection, name, now))

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
        demand = rules.demand(names, holder, run_id, epoch, clean(label), slots, remote=remote, within=within)
        answer = self._read(lambda connection: acquiring.acquire_by_reading(connection, demand, now))
        if answer is not None:
            return answer
        return self._write(lambda connection: acquiring.acquire(connection, demand, now), demand.names)

    def release(self, holders: Sequence[str]) -> None:
        if holders:
            self._write(lambda connection: leases.release(connection, holders))
            self._newsroom.tell()

    # --- who may use it -------------------------------------------------------------------------

    def add_token(self, token: TokenRow) -> None:
        self._write(lambda connection: access.add_token(connection, token))

    def tokens(self) -> list[TokenRow]:
        return self._read(access.tokens)

    def token(self, token_id: str) -> TokenRow | None:
        return self._read(lambda connection: access.token(connection, token_id))

    def remove_token(self, token_id: str) -> bool:
        return self._write(lambda connection: access.remove_token(connection, token_id))

    def token_used(self, token_id: str, now: float) -> None:
        self._write(lambda connection: access.token_used(connection, token_id, now))

    def add_audit(self, row: AuditRow) -> None:
        self._write(lambda connection: access.add_audit(connection, row))

    def audit(self, *, before: int | None = None, limit: int = 100) -> list[AuditRow]:
        return self._read(lambda connection: access.audit(connection, before, limit))

    def audit_older(self, at: float) -> int:
        return self._read(lambda connection: access.audit_older(connection, at))

    def prune_audit(self, at: float) -> int:
        return self._write(lambda connection: access.prune_audit(connection, at))

    # --- for processes that write by way of a server --------------------------------------------

    def numbered(self, writing: Writing) -> bytes:
        """Do transactions of another process, each once; return the packed answers to the newest.

        Raises:
            FencedError, UserError: of one of them, which is why none is done.
        """
        from . import numbered  # with msgpack, which a process without a server has no need of

        now = self.now()
        limits = numbered.limits_of(writing)
        answers = self._write(lambda connection: numbered.perform(connection, writing, now), limits)
        for call in (call for group in writing.groups for call in group.calls):
            if call.verb == "request":
                self._newsroom.tell(call.arguments["run_id"])
            elif call.verb in ("set_limit", "remove_limit") or frees_leases(
                call.arguments.get("entries", ())
            ):
                self._newsroom.tell()
        return answers

    def keep_leases(self, now: float) -> None:
        """Renew what live runs hold: their heartbeats could not be heard."""
        self._write(lambda connection: leases.keep(connection, now))

    # --- upkeep ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def integrity(self) -> list[str]:
        """Return what the database itself finds wrong with its files."""

    @abc.abstractmethod
    def reclaim(self) -> int | None:
        """Make room of what was deleted; return the bytes that went back to the disk.

        None: none went, the database uses the room again.
        """

    def problems(self, now: float) -> list[Problem]:
        """Return what does not agree in the record."""
        found = [Problem("integrity", "", text) for text in self.integrity()]
        return found + self._read(lambda connection: list(problems(connection, now)))

    def prunable(self, *, ended_before: float | None, keep: int | None) -> list[pruning.Tree]:
        """Return the runs that ended before a time or are not among the newest `keep`; subflow runs go with theirs."""
        briefs = self._read(pruning.briefs)
        return pruning.prunable(briefs, ended_before=ended_before, keep=keep)

    def result_places(self, tree: pruning.Tree) -> set[tuple[str, str]]:
        """Return the storages and key prefixes of results that go with these runs."""
        return self._read(lambda connection: pruning.result_places(connection, tree.run_ids))

    def delete(self, tree: pruning.Tree) -> bool:
        """Delete runs with all that is recorded of them; return False if one was taken up again meanwhile."""
        return self._write(lambda connection: pruning.delete(connection, tree))

    def _look(self, run_id: str, see: Callable[[RunView], T]) -> T:
        def work(connection: Connection) -> T:
            return see(RunView(connection, runs.number_of(connection, run_id)))

        return self._read(work)
