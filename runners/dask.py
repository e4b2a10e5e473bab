"""Task runs on a Dask cluster. One Dask task per batch; results stay on the workers until somebody asks."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

from .base import Capabilities, FreshCopies, Sink, TaskRunner, Wanted
from .calling import detail_of
from .dask_connect import Connection, Settings, awaited, connect, reconnect
from .dask_desk import Desk
from .dask_flights import Flight
from .dask_leave import leave, settle
from .dask_results import bring
from .dask_tasks import submit_batch
from .errors import (
    ResultLostError,
    RunnerNotStartedError,
    RunnerOptionError,
    UserError,
)
from .messages import Batch, BatchFinished, BatchLost, BatchRejected, RunnerFailed
from .shipping import slim
from .tables import unstarted_table
from .unpacked import Brought, Unpacked, unless_lost

STOP_SECONDS = 5.0  # for workers to say which of the batches to cancel have begun


class DaskTaskRunner(FreshCopies, TaskRunner):
    """Runs batches on the workers of a Dask cluster.

    With no arguments it starts a `LocalCluster` with one worker process per core and ends it with the run,
    unless DASK_SCHEDULER_ADDRESS names a cluster.

    Args:
        address: of a running scheduler, such as `tcp://host:8786`.
        cluster: a cluster object. It is not closed.
        cluster_class: class (or its dotted name) of a cluster to start, such as
            `"dask_jobqueue.SLURMCluster"`; `LocalCluster` if only `cluster_kwargs` are given.
        cluster_kwargs: its arguments.
        adapt_kwargs: arguments of `cluster.adapt`, in workers, such as `{"minimum": 1, "maximum": 10}`.
        client_kwargs: arguments of `distributed.Client`: `security` for TLS, `timeout` in seconds.
        performance_report_path: file to which Dask's report (HTML) of the run is written. Needs bokeh.

    Raises:
        UserError: the arguments contradict each other; `start` raises it of names in `adapt_kwargs` that are wrong.
    """

    name: ClassVar[str] = "dask"
    capabilities: ClassVar[Capabilities] = Capabilities(
        in_process=False,
        prefetch=2,
        ends_workers=True,
        options=frozenset({"resources", "workers", "allow_other_workers", "priority"}),
    )

    def __init__(
        self,
        address: str | None = None,
        cluster: Any = None,
        cluster_class: str | Callable[..., Any] | None = None,
        cluster_kwargs: Mapping[str, Any] | None = None,
        adapt_kwargs: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        performance_report_path: str | None = None,
    ) -> None:
        self.settings = Settings(
            address, cluster, cluster_class, cluster_kwargs or {}, adapt_kwargs or {}, client_kwargs or {}
        )
        self.performance_report_path = performance_report_path
        self._reset()

    def _reset(self) -> None:
        self._token = uuid.uuid4().hex[:16]
        self._desk: Desk | None = None
        self._unpacked = Unpacked()
        self._report: Any = None
        self._closing = threading.Lock()
        self._replacing = threading.Lock()  # held while another connection is made
        self._fruitless = 0  # replacements since something was last achieved
        self._held: dict[int, Batch] = {}  # submitted while there was no connection
        self._holding = threading.Lock()

    # --- start and end --------------------------------------------------------------------------

    def start(self, sink: Sink) -> None:
        if self.performance_report_path and importlib.util.find_spec("bokeh") is None:
            raise UserError("performance_report_path needs bokeh. Install it with: pip install bokeh")
        self.sink = sink
        self._desk = self._open(connect(self.settings))
        atexit.register(_close_at_exit, weakref.ref(self))

    def _open(self, connection: Connection) -> Desk:
        """Return a started desk at a connection, which is closed if that fails."""
        assert self.sink is not None
        topic = f"millrace-{self._token}"
        desk = Desk(
            connection, self.sink, topic, self._unpacked, self._slots, self._replace, self._submit_held
        )
        try:
            desk.start()
            self._begin_report(connection.client)
        except BaseException:
            desk.stop()
            connection.close()
            raise
        return desk

    def _replace(self, broken: Desk, reason: str) -> None:
        """Connect anew, to another cluster if the one that is gone was ours. In the thread of the broken desk."""
        with self._replacing:
            broken.stop()
            self._unpacked.clear()
            self._fruitless = 1 if broken.progressed else self._fruitless + 1
            try:
                broken.connection.abandon()
                connection = reconnect(
                    self.settings, broken.connection, self._fruitless, lambda: self._desk is not broken
                )
                desk = self._open(connection)
            except Exception as error:
                if self._desk is broken:
                    self._emit(RunnerFailed(f"{reason}. {error}"))
                return
            with self._closing:
                wanted = self._desk is broken
                if wanted:
                    self._desk = desk
            if not wanted:  # closed meanwhile
                desk.stop()
                connection.close()
                return
        self._submit_held()

    def close(self) -> None:
        with self._closing:
            desk, self._desk = self._desk, None
        if desk is None:
            return
        try:
            with self._replacing:  # what is being made would outlive us
                pass
            self._unpacked.clear()
            self._end_report(desk.client)
            if desk.remade or desk.lost:
                settle(desk)
            desk.stop()
            leave(desk)
        except KeyboardInterrupt:
            desk.connection.close(at_once=True)
            raise
        desk.connection.close()

    def _slots(self, threads: int) -> int:
        """Return the slots to tell, given the workers' threads now.

        An adaptive cluster grows by demand, so it must be told of more than it can do at the moment.
        """
        if not self.settings.adaptive:
            return max(1, threads)
        kwargs = self.settings.cluster_kwargs
        per_worker = int(kwargs.get("threads_per_worker") or kwargs.get("nthreads") or 1)
        maximum = self.settings.adapt_kwargs.get("maximum")
        grown = int(maximum) * per_worker if isinstance(maximum, int) else 2 * threads
        return max(2, threads, grown)

    def describe(self) -> str:
        if self._desk is None:
            return f"DaskTaskRunner, {self.settings.address or 'not started'}"
        client = self._desk.client
        text = f"DaskTaskRunner, {getattr(client.scheduler, 'address', 'disconnected')}"
        link = self.dashboard_url()
        return f"{text}, dashboard {link}" if link else text

    def describe_start(self) -> str:
        return awaited(self.settings)

    def dashboard_url(self) -> str:
        if self._desk is None:
            return ""
        with contextlib.suppress(Exception):  # not every scheduler has a dashboard
            return str(self._desk.client.dashboard_link or "")
        return ""

    # --- batches --------------------------------------------------------------------------------

    def submit(self, batches: Sequence[Batch]) -> None:
        desk = self._started()
        for batch in batches:
            with self._holding:
                if desk.away:
                    self._held[batch.batch_id] = batch
                    continue
            try:
                self._submit(desk, batch)
            except Exception as error:
                desk.take(batch.batch_id)
                if desk.client.status == "closed":
                    self._emit(BatchLost(batch.batch_id, "the Dask client is closed", suspect=False))
                else:
                    self._emit(BatchRejected(batch.batch_id, detail_of(error, in_process=False)))

    def _submit_held(self) -> None:
        """There is a connection again: submit what has come meanwhile."""
        with self._holding:
            held, self._held = list(self._held.values()), {}
        if self._desk is not None:
            self.submit(held)

    def _submit(self, desk: Desk, batch: Batch) -> None:
        from .dask_worker import pack_batch

        light, shared = slim(batch)
        blob = pack_batch(light, desk.topic)
        with desk.lock:  # the news of a batch must not come before it is known
            flight = desk.flights[batch.batch_id] = Flight(light, desk.keep_shared(shared))
            upstream, missing = [], []
            for batch_id in batch.reads:
                kept = desk.kept.get(batch_id)
                if kept is None or kept.future.status in ("error", "cancelled"):
                    missing.append(batch_id)
                    continue
                upstream.append(kept)
                flight.shared.update(kept.shared)  # for when Dask computes it again
            if missing:
                desk.lose_input(batch.batch_id, missing, "its worker or its cluster has gone")
                return
            flight.place = desk.place_for(batch, upstream)
            inputs = [kept.future for kept in upstream]
            flight.future = submit_batch(desk.client, batch, blob, inputs, self._token, flight.place)
        desk.watch(batch.batch_id, flight.future)

    def cancel(self, batch_ids: Sequence[int], *, force: bool = False) -> None:
        desk = self._started()
        by_run: dict[str, list[int]] = {}
        with self._holding:
            held = [self._held.pop(batch_id) for batch_id in batch_ids if batch_id in self._held]
        for batch in held:
            self._emit(BatchFinished(unstarted_table(batch)))
        for batch_id in batch_ids:
            flight = desk.flights.get(batch_id)
            if flight is not None:
                by_run.setdefault(flight.batch.run_id, []).append(batch_id)
                if force and flight.process and desk.may_end(flight):
                    flight.doomed = desk.connection.kill_worker(flight.process)
        for run_id, ids in by_run.items():
            desk.spawn(partial(_stop, desk, run_id, ids))

    def answer(self, call_id: str, reply: bytes) -> None:
        from .dask_worker import answer

        desk = self._started()
        address = desk.caller(call_id)
        if address is not None:
            run = partial(desk.client.run, workers=[address], on_error="ignore", asynchronous=True)
            desk.spawn(partial(run, answer, call_id, reply))

    # --- results --------------------------------------------------------------------------------

    def fetch(self, batch_id: int, stage: int, positions: Sequence[int]) -> list[Any]:
        (found,) = self.fetch_many([(batch_id, stage, positions)])
        return unless_lost(found)

    def fetch_many(self, wanted: Sequence[Wanted]) -> list[list[Any] | ResultLostError]:
        held = self._desk.kept if self._desk is not None else {}
        return self._unpacked.fetch_many(wanted, held, self._bring)

    def _bring(self, wanted: Sequence[Wanted]) -> list[Brought | ResultLostError]:
        desk = self._started()
        return bring(desk.client, desk.kept, wanted)

    def release(self, batch_ids: Sequence[int]) -> None:
        desk = self._started()
        for batch_id in batch_ids:
            desk.kept.pop(batch_id, None)
        self._unpacked.drop(batch_ids)

    # --- options --------------------------------------------------------------------------------

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        desk = self._desk
        resources = options.get("resources") or {}
        if not isinstance(resources, Mapping):
            raise RunnerOptionError(f'resources is {resources!r}; it has to be a dict such as {{"GPU": 1}}')
        if options.get("allow_other_workers") and not options.get("workers"):
            raise RunnerOptionError("allow_other_workers says nothing without workers: add it or remove both")
        if desk is None or self.settings.adaptive or not desk.workers:
            return  # workers may come that have what is asked for
        has = [w.get("resources") or {} for w in desk.workers.values()]
        if not any(all(h.get(name, 0) >= n for name, n in resources.items()) for h in has):
            known = ", ".join(sorted({name for h in has for name in h})) or "none"
            raise RunnerOptionError(
                f"no worker has the resources {dict(resources)} (the workers' resources: {known}), so the "
                "task would wait for ever. Start workers with `dask worker --resources 'NAME=N'`."
            )
        self._check_workers(desk, options)

    def _check_workers(self, desk: Desk, options: Mapping[str, Any]) -> None:
        wanted = options.get("workers")
        if not wanted or options.get("allow_other_workers"):
            return
        wanted = {str(w) for w in ([wanted] if isinstance(wanted, str | int) else wanted)}
        known = set(desk.workers)
        for address, worker in desk.workers.items():
            known |= {str(worker.get("name")), str(worker.get("host")), address.partition("://")[2]}
        if not wanted & known:
            raise RunnerOptionError(
                f"no worker is named {' or '.join(sorted(wanted))}, so the task would wait for ever. The "
                f"workers are {', '.join(sorted(desk.workers))}; allow_other_workers=True makes it a wish."
            )

    # --- the rest -------------------------------------------------------------------------------

    def _started(self) -> Desk:
        if self._desk is None:
            raise RunnerNotStartedError("DaskTaskRunner is not running: it was closed or never started")
        return self._desk

    def _begin_report(self, client: Any) -> None:
        if self.performance_report_path:
            from distributed import performance_report

            self._report = performance_report(filename=str(self.performance_report_path))
            with client.as_current():
                self._report.__enter__()

    def _end_report(self, client: Any) -> None:
        report, self._report = self._report, None
        if report is not None:
            with contextlib.suppress(Exception), client.as_current():
                report.__exit__(None, None, None)


async def _stop(desk: Desk, run_id: str, batch_ids: list[int]) -> None:
    """Stop batches on all workers; those that no worker has begun are taken back."""
    begun: set[int] = set()
    with contextlib.suppress(Exception):
        replies = await asyncio.wait_for(desk.stop_on_workers(run_id, batch_ids), STOP_SECONDS)
        begun = {batch_id for there in replies.values() for batch_id in there}
    seen = {b for b in batch_ids if (flight := desk.flights.get(b)) is not None and flight.worker}
    desk.tell(partial(desk.give_back, [b for b in batch_ids if b not in begun | seen]))


def _close_at_exit(reference: weakref.ref[DaskTaskRunner]) -> None:
    runner = reference()
    if runner is not None:
        runner.close()


@contextmanager
def get_dask_client(timeout: float | None = None) -> Iterator[Any]:
    """Return a Dask client for use inside a task that `DaskTaskRunner` runs.

    The task gives its slot to others inside the block, so it may wait for Dask work of its own.

    Args:
        timeout: seconds to wait for the connection.

    Raises:
        UserError: called elsewhere than in such a task.
    """
    from distributed.worker import get_client, get_worker

    from .dask_worker import slot_lent

    try:
        get_worker()
    except ValueError:
        raise UserError("get_dask_client works inside tasks that DaskTaskRunner runs, only there") from None
    with slot_lent():
        client = get_client(timeout=timeout)
        with client.as_current():
            yield client
