"""The Store port: where runs are recorded. A new store is one new file that implements `Store`.

A store stores; it decides nothing about task runs. What it does decide, because it is what processes share:
who gets a lease (`acquire`), and which process owns a run (`claim`, by an epoch).

Threads: every method may be called from any thread. Times are seconds since the epoch, and the caller's; those of
heartbeats and leases are by the store's clock (`now`). Durability: when `append` returns, its entries survive the
death of the process; on power loss at most the last few commits are gone, and what is there is a consistent prefix.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from runners.messages import Detail, Stored

from ..core.journal import Entry
from ..core.states import RunState, State
from .clock import steady_now
from .failures import FailureGroup
from .newsroom import Newsroom
from .timeline import Timeline
from .timing import RunTiming

HEARTBEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 30.0  # without a heartbeat a run's process counts as dead
LEASE_SECONDS = 60.0  # renewed with the heartbeat
REUSE_TAG = "reuses-results-of:"  # with a run's id: a tag of the run that has taken over its stored results
BATCH_IDS_PER_EPOCH = 10_000_000  # a run's 200th process is still below 2**31


@dataclass(frozen=True, slots=True)
class RunRow:
    """A flow run as recorded.

    Attributes:
        entrypoint: `path/to/file.py:flow` or `module:flow`, by which the run can be resumed; "" if unknown.
        parameters: JSON values for people; `parameters_pickle` restores the call exactly.
        epoch: counts the processes that have owned the run; only the newest may append.
        counts: task runs by State value, over all nodes.
        detail: the exception that ended the run.
        coordinator_seconds: CPU time of the newest process's coordinator, as of the last change of state.
        engine_url: the web page of its newest process's engine (Dask's or Ray's dashboard); "" where there is none.
        retries: attempts, of all its processes, that did not end their task run; `retry_seconds` were spent in
            their code.
    """

    run_id: str
    name: str
    flow_name: str
    state: RunState = RunState.PENDING
    state_name: str = ""
    message: str = ""
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    heartbeat: float | None = None
    runner: str = ""
    entrypoint: str = ""
    version: str = ""
    tags: frozenset[str] = frozenset()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parameters_pickle: bytes | None = None
    parent_run_id: str | None = None
    parent_task_run_id: str | None = None
    host: str = ""
    pid: int = 0
    epoch: int = 1
    counts: tuple[int, ...] = (0,) * len(State)
    coordinator_seconds: float = 0.0
    engine_url: str = ""
    retries: int = 0
    retry_seconds: float = 0.0
    detail: Detail | None = None


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as recorded: the fields of `NodeAdded` and where its items are now.

    Attributes:
        replaced_by: the node of the same path that a later process of the run, or a retry of the flow, has added;
            a run's counts and `task_runs` are about nodes that have none.
        waited: seconds that its items have spent Ready, AwaitingLimit and AwaitingRetry, summed over items.
    """

    node_id: int
    path: str
    task_name: str
    kind: str
    width: int | None
    created: float
    tags: frozenset[str]
    upstream: tuple[int, ...]
    fingerprint: str
    policy: Mapping[str, Any]
    parent: tuple[int, int] | None
    counts: tuple[int, ...]
    started: float | None  # first start of an attempt
    ended: float | None  # last end of an attempt
    replaced_by: int | None = None
    waited: tuple[float, ...] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class TaskRunRow:
    """One item of a node: its state now and its last attempt.

    Attributes:
        root: node and index of the task run whose failure kept it from running.
    """

    node_id: int
    index: int
    task_name: str
    state: State
    state_name: str
    attempts: int
    started: float | None = None
    seconds: float | None = None
    worker: str = ""
    name: str = ""
    reason: str = ""
    detail: Detail | None = None
    root: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt of one item."""

    attempt: int
    outcome: int  # runners.messages.Outcome or core.journal.LOST
    state: State  # after it
    started: float | None
    seconds: float | None
    worker: str
    execution_id: str
    batch_id: int
    reason: str = ""
    detail: Detail | None = None
    stored: Stored | None = None
    position: int = 0
    ended: float = 0.0  # or, where its worker died before it told its start, when its end was heard of


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A transition of some items of a node, in the order of the journal; by what, in words, is `reason`."""

    seq: int
    node_id: int
    indices: Sequence[int]
    state: State
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class LogRow:
    """A log line as recorded. node_id -1: of the flow itself."""

    seq: int
    node_id: int
    index: int
    attempt: int
    task_name: str
    at: float
    level: int
    logger: str
    message: str


@dataclass(frozen=True, slots=True)
class RecoveredNode:
    """What an earlier process of a run left of a node, for `resume`.

    Attributes:
        attempts: by index, attempts that had been spent, for items that have not completed.
        results: by index, where the results of completed items are stored: (file, position in it).
        started: of nodes that must not run twice: items that were running when the process died, were lost,
            completed or asked to be skipped; those with a result may run again no more than others, should it be of
            no use.
        skipped: items that asked to be skipped themselves.
        width: where items have `started`, that of the node which they are of.
    """

    path: str
    fingerprint: str
    width: int | None
    attempts: Mapping[int, int]
    results: Mapping[int, tuple[Stored, int]]
    started: frozenset[int] = frozenset()
    skipped: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Requests:
    """What other processes have asked of a running flow."""

    cancel: bool = False
    pause: bool = False
    fenced: bool = False  # another process has claimed the run: stop without writing


@dataclass(frozen=True, slots=True)
class Limit:
    """A concurrency limit on a tag or name, or a rate limit.

    Attributes:
        slots: how many may hold it at once; for a rate limit the bucket's size.
        per_second: tokens that flow in per second; None for concurrency limits.
    """

    name: str
    slots: int
    per_second: float | None = None
    held: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease that is held or waited for."""

    limit: str
    holder: str  # unique over all runs: RUN/batch/N or RUN/item/...
    run_id: str
    label: str  # for people: which task of which run
    slots: int
    since: float
    expires: float
    held: bool  # False: waits
    left: bool = False  # its process is gone or silent; nobody renews it


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to `acquire`.

    Attributes:
        granted: all limits were taken, or none exists by these names.
        names: limits that were taken; empty where none exists.
        blocked_by: the limits in the way, with labels of their holders.
        retry_at: when it is worth asking again at the latest (an expiry, a token), None if only a release
            can help.
        ticket: of who waits, the place in the order of arrival: the smaller, the earlier.
        ahead: how many who came earlier wait for what is in the way; each of them goes first.
    """

    granted: bool
    names: tuple[str, ...] = ()
    blocked_by: Mapping[str, Sequence[str]] = field(default_factory=dict)
    retry_at: float | None = None
    ticket: int | None = None
    ahead: int = 0


class Store(abc.ABC):
    """A record of runs that processes may share.

    Attributes:
        url: for people; it holds no password.
    """

    url: str

    @property
    def address(self) -> str:
        """What opens the store in another process, secrets included: never to be shown or recorded."""
        return self.url

    def now(self) -> float:
        """Return the time of heartbeats and leases, which is the same in all processes of the store.

        A lease is kept by one process and judged by others: where each had its own idea of the time, setting a
        host's clock would let leases of live holders expire.
        """
        return steady_now()

    def listen(self, notice: Callable[[], None]) -> Callable[[], None]:
        """Have `notice` called soon after leases may have come free, until what this returns is called.

        It is called from any thread, must be quick and must not raise. It may be called for nothing.
        """
        return self._newsroom.listen(notice)

    def listen_for_requests(self, run_id: str, notice: Callable[[], None]) -> Callable[[], None]:
        """Have `notice` called soon after something is asked of a run, if the store can tell; else look now and then.

        As `listen`.
        """
        return lambda: None

    @cached_property
    def _newsroom(self) -> Newsroom:
        return Newsroom()  # one that asks again and again, for stores that cannot tell

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of files and connections. Everything appended is already safe."""

    # --- a run's own process --------------------------------------------------------------------

    @abc.abstractmethod
    def create_run(self, run: RunRow) -> None: ...

    @abc.abstractmethod
    def claim(self, run_id: str, *, host: str, pid: int, now: float) -> RunRow:
        """Take over a run that has ended or whose process is dead; from now on only its new epoch may append.

        Raises:
            RunAliveError: its process has a fresh heartbeat.
            RunNotResumableError: it has completed.
            RunNotFoundError
        """

    @abc.abstractmethod
    def append(self, run_id: str, epoch: int, entries: Sequence[Entry]) -> None:
        """Write entries, in order, in one transaction.

        Raises:
            FencedError: another process has claimed the run.
            StoreFullError, StoreLockedError, StoreReadOnlyError, StoreCorruptError: nothing was written;
                the message names the file and the cure.
        """

    @abc.abstractmethod
    def heartbeat(self, run_id: str, epoch: int, now: float) -> Requests:
        """Say that the run's process lives, renew the run's leases, and read what others have asked of it."""

    @abc.abstractmethod
    def requests(self, run_id: str, epoch: int) -> Requests:
        """Read what others have asked, without writing."""

    @abc.abstractmethod
    def recovered(self, run_id: str) -> Mapping[str, RecoveredNode]:
        """Return what is known of a run's nodes as of now, by path; of two nodes with one path the newer."""

    @abc.abstractmethod
    def next_ids(self, run_id: str) -> tuple[int, int]:
        """Return a node_id and a batch_id from which on the run has used none.

        Batches that never came back are not in the journal, so each later process of a run starts at a
        batch_id far above those that are (`BATCH_IDS_PER_EPOCH`).
        """

    # --- other processes ------------------------------------------------------------------------

    @abc.abstractmethod
    def request(self, run_id: str, *, cancel: bool | None = None, pause: bool | None = None) -> None:
        """Ask a run's process for something; None leaves a request as it is."""

    @abc.abstractmethod
    def reap(self, now: float, *, proven: bool = False) -> list[str]:
        """Mark live runs whose heartbeat is older than DEAD_AFTER_SECONDS as Crashed; return their ids.

        A run whose process is on this host and provably gone (no such pid) is marked at once, and what it held
        for code of that process comes free. Other leases of reaped runs are no longer renewed: their code may
        still be at work. Places in queues are given up.

        Args:
            proven: only runs whose process is provably gone, because heartbeats could not be heard.
        """

    @abc.abstractmethod
    def runs(
        self,
        *,
        states: frozenset[RunState] | None = None,
        flow_name: str | None = None,
        parent_run_id: str | None = None,
        limit: int = 50,
        before: tuple[float, str] | None = None,
    ) -> list[RunRow]:
        """Return runs, newest first; those of one moment by descending id.

        Args:
            before: `created` and id of the last run of the page before: what comes after it in that order. With
                an id of "", all that were created earlier than that.
        """

    @abc.abstractmethod
    def tally(self, *, subflows: bool = True) -> list[tuple[str, RunState, int]]:
        """Return how many runs each flow has in which state, by name; with `subflows` also those that have a parent."""

    @abc.abstractmethod
    def run(self, run: str) -> RunRow:
        """Return the run with this id, id prefix (8 characters or more) or name (the newest of several).

        Raises:
            RunNotFoundError: names what is there that looks alike.
        """

    @abc.abstractmethod
    def nodes(self, run_id: str, node_id: int | None = None) -> list[NodeRow]: ...

    @abc.abstractmethod
    def task_runs(
        self,
        run_id: str,
        *,
        node_id: int | None = None,
        states: frozenset[State] | None = None,
        after: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> list[TaskRunRow]:
        """Return task runs in the order of node and index, those beyond the node and index `after`."""

    @abc.abstractmethod
    def states(self, run_id: str, node_id: int) -> bytes:
        """Return the state of each item of a node, one byte each; nothing for a node that is not there."""

    @abc.abstractmethod
    def timeline(self, run_id: str, *, after: int = 0) -> Timeline:
        """Return all attempts of a run that have ended, or those beyond what an earlier answer's `seq` stands for."""

    @abc.abstractmethod
    def attempts(self, run_id: str, node_id: int, index: int) -> list[AttemptRow]: ...

    @abc.abstractmethod
    def history(self, run_id: str, node_id: int, index: int) -> list[HistoryRow]:
        """Return the transitions of one item, without those that its attempts tell."""

    @abc.abstractmethod
    def timing(self, run_id: str) -> RunTiming:
        """Return where the run's time went, by node and over all."""

    @abc.abstractmethod
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
        """Return log lines with a `seq` above `after`, in its order."""

    @abc.abstractmethod
    def failures(self, run_id: str, limit: int = 20) -> list[FailureGroup]:
        """Return the task runs that failed, those that are alike as one: roots first, of these the most frequent."""

    # --- limits ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def set_limit(self, name: str, slots: int, per_second: float | None = None) -> None: ...

    @abc.abstractmethod
    def remove_limit(self, name: str) -> bool: ...

    @abc.abstractmethod
    def limits(self, now: float) -> list[Limit]: ...

    @abc.abstractmethod
    def leases(self, name: str, now: float) -> list[LeaseRow]:
        """Return holders and then waiters of a limit, each in the order of their arrival."""

    @abc.abstractmethod
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
        """Take all of these limits or none, first come first served. Idempotent per holder.

        Names without a limit are no obstacle. A concurrency limit is counted from its unexpired leases in the
        same transaction. Who does not get it is remembered as waiting, keeps its place as long as it asks
        again (or its run's heartbeat renews it), and must ask again.

        Of leases that have run out the slots are given away. The run of one that was not left (`LeaseRow.left`) has
        been silent for as long, and is ended as by `reap`: its process, if it goes on, finds itself fenced.

        Args:
            epoch: of the run's process that asks. A run that is not recorded here has none that counts.
            remote: the code that it is for runs in another process than the run's, so that the end of that one
                does not prove that the code has ended.
            within: holders whose code waits for the code that this is for. Who waits for what they hold is passed.

        Raises:
            FencedError: another process has claimed the run, or it was given up for dead.
        """

    @abc.abstractmethod
    def release(self, holders: Sequence[str]) -> None:
        """Give back leases, or places in the queue."""
