"""The flow's side of a Dask connection: what is in flight, and the thread that turns Dask's news into events.

Everything that Dask tells (events of the run's topic, workers that join or leave, futures that are done) is
put into one queue by handlers that do nothing else, and handled by one thread, in order.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from . import codec
from .base import Sink
from .dask_bans import BANS_CALL, Bans, welcome
from .dask_connect import Connection
from .dask_flights import Flight, Kept, probably_begun, repeatable
from .dask_places import place_for
from .dask_recall import Recall
from .dask_tasks import send_payload, submit_helper
from .dask_versions import PIP_LINE, lacks_millrace
from .errors import InternalError, VersionMismatchError
from .messages import (
    ENDED,
    HAS_RESULT,
    Batch,
    BatchFinished,
    BatchLost,
    BatchProgress,
    BatchStarted,
    Call,
    Payload,
    ResultsLost,
    RunnerFailed,
    SlotsChanged,
    Table,
)
from .results import PackedResults
from .shipping import PAYLOAD_CALL
from .tables import starved_table, unstarted_table
from .unpacked import Unpacked

SEND_SECONDS = 0.002  # between two messages to the scheduler
TICK_SECONDS = 1.0  # between looks at the connection, when nothing else happens
BROKEN = "the connection to the Dask scheduler broke"
DIED_AGAIN = "a worker that had to compute them again died"
BARE_SECONDS = 10.0  # without a worker, until that is said: a nanny starts another within a few
AWAY_SECONDS = 15.0  # for Dask's client to connect again by itself, which gives up after 10 s by default
MAX_CALLS = 10_000  # calls whose worker is remembered

logger = logging.getLogger("millrace.runners.dask")


class Desk:
    """Bookkeeping of one started runner. `submit` and the like are the port's; `_on_*` run in its thread."""

    def __init__(
        self,
        connection: Connection,
        sink: Sink,
        topic: str,
        unpacked: Unpacked,
        slots: Callable[[int], int],
        broken: Callable[[Desk, str], None],
        mended: Callable[[], None],
    ) -> None:
        self.connection = connection
        self.away = False  # the scheduler cannot be reached: nothing can be submitted
        self.progressed = False  # a batch has ended here with results
        self.client = connection.client
        self.topic = topic
        self.flights: dict[int, Flight] = {}  # in the order of submission
        self.kept: dict[int, Kept] = {}
        self.remade: dict[int, tuple[str, str]] = {}  # what Dask makes again: run, where it was made first
        self.lost: dict[str, tuple[str, int]] = {}  # batches that Dask begins anew until it hears of it
        self.begun_anew: set[tuple[int, str]] = set()  # batches that began after their end, and where
        self.callers: dict[str, tuple[str, int]] = {}  # call_id -> address of the worker that asked, batch
        self.workers: dict[str, Mapping[str, Any]] = {}
        self.lock = threading.RLock()
        # large payloads by digest, for as long as a flight or a result needs them
        self._shared: WeakValueDictionary[str, Payload] = WeakValueDictionary()
        self._shipping: set[tuple[str, str]] = set()  # payloads on their way: digest, address of the worker
        self._sink = sink
        self._unpacked = unpacked  # results that are here, and go when they are no longer kept
        self._slots = slots
        self._told_slots = 0
        self._news: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._broken = broken  # told, in this thread, that there will be no connection any more
        self._mended = mended  # told that there is one again
        self._away_since = 0.0
        self._bare_since: float | None = None  # since when there is work and no worker; infinite once said
        self._comm: Any = None
        self._recall = Recall(self)
        self.bans = Bans()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="millrace-dask", daemon=True)

    def start(self) -> None:
        self._subscribe()
        self.refresh_workers()
        self._thread.start()
        welcome(self, None)

    def stop(self) -> None:
        """Say nothing more. May be called from any thread, also this desk's own."""
        self._closed = True
        with contextlib.suppress(Exception):  # or else the scheduler tells the closed client of its own end
            self.client.unsubscribe_topic("all")
            self.client.unsubscribe_topic(self.topic)
        self._news.put(None)

    def tell(self, news: Callable[[], None]) -> None:
        """Have the desk's thread call `news`."""
        self._news.put(news)

    def watch(self, batch_id: int, future: Any) -> None:
        """Have the end of a future told."""
        future.add_done_callback(lambda done: self.tell(partial(self._on_done, batch_id, done)))
        self.tell(self._recall.sent)

    def spawn(self, make: Callable[[], Any]) -> None:
        """Run a coroutine on the client's loop, without waiting for it."""
        if self._closed or self.away:
            return

        async def quietly() -> None:
            with contextlib.suppress(Exception):  # a worker or the scheduler has gone: that is told elsewhere
                await make()

        self.client.loop.add_callback(quietly)

    def take(self, batch_id: int) -> Flight | None:
        """Remove a flight: who gets it reports it, so that each batch is reported once."""
        with self.lock:
            return self.flights.pop(batch_id, None)

    def _emit(self, event: Any) -> None:
        if not self._closed:
            self._sink.put(event)

    def _work(self) -> None:
        ticked = time.monotonic()
        while not self._closed:
            try:
                news = self._news.get(timeout=min(TICK_SECONDS, self._recall.wait_seconds))
            except queue.Empty:
                news = lambda: None  # noqa: E731
            if news is None:
                return
            self._handle(news)
            self._handle(self._recall.look)
            if time.monotonic() - ticked > TICK_SECONDS:
                self._handle(self._on_tick)
                ticked = time.monotonic()

    def _handle(self, news: Callable[[], None]) -> None:
        try:
            news()
        except Exception:
            if not self._closed:
                logger.exception("an event from Dask could not be handled; the run goes on")

    # --- what workers say -----------------------------------------------------------------------

    def _subscribe(self) -> None:
        self._comm = self.client.scheduler_comm
        if hasattr(self._comm, "interval"):  # 10 ms: so long may a message wait that follows another
            self._comm.interval = SEND_SECONDS
        self.client.subscribe_topic(self.topic, lambda event: self.tell(partial(self._on_message, *event[1])))
        self.client.subscribe_topic("all", self._hear_cluster)

    def _hear_cluster(self, event: tuple[float, Any]) -> None:
        message = event[1]
        action = message.get("action") if isinstance(message, dict) else None
        if action == "remove-worker":
            self.tell(partial(self._on_worker_removed, message))
        elif action == "add-worker":
            self.tell(self.refresh_workers)
            self.tell(partial(welcome, self, [message["worker"]]))

    def _on_message(self, address: str, data: bytes, size: int) -> None:
        try:
            message = codec.unpack(data)
        except InternalError:
            logger.exception("an event of worker %s cannot be read", address)
            return
        if isinstance(message, Call):
            if message.kind == PAYLOAD_CALL:
                self._ship(message.payload.decode(), address)
                return
            if message.kind == BANS_CALL:
                welcome(self, [address], message.call_id)
                return
            if message.batch_id in self.kept:  # a second execution, of which the flow knows nothing
                self._forsake([message.batch_id], "Dask was to compute them again")
                return
            while len(self.callers) >= MAX_CALLS:
                self.callers.pop(next(iter(self.callers)))
            self.callers[message.call_id] = address, message.batch_id
            with self.lock:
                asking = self.flights.get(message.batch_id)
                if asking is not None and message.kind != "permit":
                    asking.asking.add(message.call_id)
            self._emit(message)
            return
        with self.lock:
            flight = self.flights.get(message.batch_id)
            if flight is not None and isinstance(message, Table):
                flight.table, flight.size = data, size
            elif flight is not None and isinstance(message, BatchStarted):
                flight.worker, flight.process = address, message.worker
            elif isinstance(message, BatchStarted):
                self.begun_anew.add((message.batch_id, address))
        if isinstance(message, BatchStarted) or (flight is not None and isinstance(message, BatchProgress)):
            self._emit(message)

    def keep_shared(self, shared: Mapping[str, Payload]) -> dict[str, Payload]:
        """Have payloads ready for workers for as long as the caller keeps what is returned."""
        return {digest: self._shared.setdefault(digest, payload) for digest, payload in shared.items()}

    def _ship(self, digest: str, address: str) -> None:
        """Send a worker the payload that it has asked for, once even if it asks again meanwhile."""
        payload, parcel = self._shared.get(digest), (digest, address)
        if parcel in self._shipping:
            return
        self._shipping.add(parcel)

        async def ship() -> None:
            try:
                await send_payload(self.client, address, digest, payload)
            finally:
                self._shipping.discard(parcel)

        self.spawn(ship)

    def caller(self, call_id: str) -> str | None:
        """Return the address of the worker that asked, now that it gets its answer."""
        address, batch_id = self.callers.get(call_id, (None, -1))
        with self.lock:
            flight = self.flights.get(batch_id)
            if flight is not None:
                flight.asking.discard(call_id)
        return address

    def may_end(self, flight: Flight) -> bool:
        """Whether the process of a flight may be ended: no other batch there has items that must not run twice."""
        others = [
            f.batch for f in list(self.flights.values()) if f.process == flight.process and f is not flight
        ]
        return not any(stage.permit for batch in others for stage in batch.stages)

    def place_for(self, batch: Batch, upstream: Iterable[Kept]) -> str:
        """Return the address of the worker that shall run a batch; "" leaves it to Dask."""
        busy = [flight.worker or flight.place for flight in self.flights.values() if not flight.asking]
        return place_for(batch, self.workers, busy, [(kept.worker, kept.size) for kept in upstream])

    # --- ends of batches ------------------------------------------------------------------------

    def _on_done(self, batch_id: int, future: Any) -> None:
        with self.lock:
            flight = self.flights.get(batch_id)
        if flight is None or flight.future is not future:
            return
        match future.status:
            case "finished" if flight.table is not None:
                self._finish(batch_id, flight.table)
            case "finished":  # too large for an event, or the event was lost
                self._fetch_table(batch_id, future)
            case "error":
                self._on_error(batch_id, flight, future.exception())
            case "cancelled":
                self._look_at_connection()
                self._lose(batch_id, "Dask has cancelled it: the connection to the scheduler was lost")
            case _:  # computed again, as its worker died just now: the end will be told again
                self.watch(batch_id, future)

    def _fetch_table(self, batch_id: int, future: Any) -> None:
        helper = submit_helper(self.client, "table_of", future)

        def told(done: Any) -> None:
            if done.status == "finished":
                self._finish(batch_id, done.result())
            else:
                self._lose(batch_id, "its worker died before its record was read")

        helper.add_done_callback(lambda done: self.tell(partial(told, done)))

    def _finish(self, batch_id: int, data: bytes) -> None:
        try:
            table = codec.unpack(data)
            assert isinstance(table, Table)
            small = PackedResults.of_small(table.results) if table.results else None
        except InternalError as error:
            self._lose(batch_id, str(error), suspect=True)
            return
        with self.lock:
            flight = self.take(batch_id)
            if flight is None:
                return
            self._recall.ended()
            if not HAS_RESULT.isdisjoint(table.outcomes):  # or else nobody will ask for its results
                self.progressed = True
                self.kept[batch_id] = Kept(
                    flight.future,
                    flight.size,
                    len(table.outcomes),
                    flight.batch.run_id,
                    flight.worker,
                    repeatable(table, flight.batch),
                    flight.shared,
                )
                if small is not None:
                    self._unpacked.put_packed(batch_id, small, self.kept)
        self._emit(BatchFinished(table))

    def _lose(self, batch_id: int, reason: str, suspect: bool | None = None) -> None:
        flight = self.take(batch_id)
        if flight is not None:
            self._emit(BatchLost(batch_id, reason, bool(flight.worker) if suspect is None else suspect))

    def _on_error(self, batch_id: int, flight: Flight, error: BaseException) -> None:
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            if str(error.task) != str(flight.future.key):
                self._forsake(missing := [int(str(error.task).rpartition("-")[2])], DIED_AGAIN)
                self.lose_input(batch_id, missing, DIED_AGAIN)
            elif flight.orphaned:
                self._lose(batch_id, f"worker {getattr(error.last_worker, 'address', '?')} died")
            else:  # the news of the worker's end, which says more, is on its way
                flight.orphaned = True
        elif isinstance(error, VersionMismatchError) or lacks_millrace(error):
            self._fail(f"a worker cannot run this flow: {error}. Install it there: {PIP_LINE}")
        else:
            self._lose(batch_id, f"its Dask task failed: {type(error).__name__}: {error}", suspect=True)

    def lose_input(self, batch_id: int, missing: Sequence[int], reason: str) -> None:
        """Report that a batch could not start, since results of others are gone."""
        flight = self.take(batch_id)
        if flight is not None:
            self._emit(BatchFinished(starved_table(flight.batch, missing, reason)))

    def give_back(self, batch_ids: Iterable[int]) -> None:
        """Report batches as unstarted and take them from Dask. Runs in the desk's thread."""
        flights = [flight for b in batch_ids if (flight := self.take(b)) is not None]
        self.client.cancel([flight.future for flight in flights])
        for flight in flights:
            self._emit(BatchFinished(unstarted_table(flight.batch)))

    # --- workers come and go --------------------------------------------------------------------

    def refresh_workers(self) -> None:
        self.workers = dict(self.client.scheduler_info(n_workers=-1)["workers"])
        slots = self._slots(sum(int(w["nthreads"]) for w in self.workers.values()))
        if slots != self._told_slots:
            self._told_slots = slots
            self._emit(SlotsChanged(slots))

    def _on_worker_removed(self, message: Mapping[str, Any]) -> None:
        address, expected = message["worker"], bool(message.get("expected"))
        keys = {str(key) for key in message["processing-tasks"]}
        with self.lock:
            there = {b: f for b, f in self.flights.items() if f.future is not None and f.future.key in keys}
        threads = int(self.workers.get(address, {}).get("nthreads", 1))
        running = probably_begun(address, there, threads)
        if expected:
            reason = f"worker {address} was retired while it ran this"
        else:
            self._tell_of_reruns(address, keys, threads)
            reason = f"worker {address} died"
        gone = []
        for batch_id, flight in there.items():
            ran = batch_id in running
            if not ran and (expected or not self.connection.owned):
                continue  # it has not begun: Dask gives it to another worker
            if ran and not self.connection.owned:
                gone.append(flight)  # or else Dask runs it again by itself
            why = reason if ran else f"{reason}; this was only queued there"
            if flight.doomed:
                why = f"it {ENDED}"
            self._lose(batch_id, why, ran and not expected)
        if gone:
            begun = (f for f in gone if not f.asks_first)
            self.lost.update((f.future.key, (f.batch.run_id, f.batch.batch_id)) for f in begun)
            self.client.cancel([flight.future for flight in gone])
        keys = {str(key) for key in message.get("lost-computed-tasks", ())}
        gone_too = {b: kept for b, kept in list(self.kept.items()) if kept.future.key in keys}
        self.remade |= {b: (k.run_id, k.worker) for b, k in gone_too.items() if k.repeatable and k.worker}
        self._forsake([b for b, kept in gone_too.items() if not kept.repeatable], reason)
        self.refresh_workers()

    def _forsake(self, batch_ids: Sequence[int], reason: str) -> None:
        """Give up results that Dask is about to compute again and must not.

        The futures are released and not cancelled, since Dask would cancel with them what was computed from
        them. What waits for such a result finds it incomplete.
        """
        by_run: dict[str, list[int]] = {}
        for batch_id in batch_ids:
            kept = self.kept.pop(batch_id, None)
            if kept is not None:
                by_run.setdefault(kept.run_id, []).append(batch_id)
        for run_id, ids in by_run.items():
            self.spawn(partial(self.stop_on_workers, run_id, ids))
        if by_run:
            self._unpacked.drop(batch_ids)
            self._emit(ResultsLost(tuple(batch_ids), reason))

    async def stop_on_workers(self, run_id: str, batch_ids: list[int]) -> dict[str, list[int]]:
        """Stop batches wherever they are; returns by address of a worker those that it had begun."""
        from .dask_worker import stop_batches

        self.bans.stop(batch_ids)
        run = partial(self.client.run, on_error="ignore", asynchronous=True)
        replies: dict[str, list[int]] = await run(stop_batches, self.topic, run_id, batch_ids)
        return replies

    def _tell_of_reruns(self, address: str, keys: Collection[str], threads: int) -> None:
        """Tell of batches that Dask ran again by itself on a worker that died, perhaps before it came to say so."""
        known = {key: b for key, (_, b) in self.lost.items()}
        known |= {kept.future.key: b for b, kept in list(self.kept.items()) if kept.repeatable}
        there = sorted(known[key] for key in keys if key in known)  # Dask begins with the oldest
        for batch_id in there[:threads]:
            self.tell_start(batch_id, address)

    def tell_start(self, batch_id: int, address: str) -> None:
        """Tell that a batch began anew on a worker, unless the worker has said so itself."""
        if (batch_id, address) not in self.begun_anew:
            name = f"unknown-{uuid.uuid4().hex[:8]}"
            self._emit(BatchStarted(batch_id, name, address, time.time()))

    # --- the connection -------------------------------------------------------------------------

    def _on_tick(self) -> None:
        self.connection.mend()
        for batch_id, flight in list(self.flights.items()):
            if flight.orphaned:
                self._on_error(batch_id, flight, flight.future.exception())
        self._look_at_connection()
        self._look_for_workers()
        self._recall.look(anyway=True)

    def _look_for_workers(self) -> None:
        """Say it when batches wait for workers that may never come: Dask waits without a word."""
        now = time.monotonic()
        if self.workers or self.away or not self.flights:
            self._bare_since = None
        elif self._bare_since is None:
            self._bare_since = now
        elif now - self._bare_since > BARE_SECONDS:
            self._bare_since = math.inf
            logger.warning(
                "the Dask cluster at %s has no worker, and has had none for %g s; the run waits for one. Start some: "
                "dask worker %s",
                *(self.connection.where, BARE_SECONDS, self.connection.where),
            )

    def _look_at_connection(self) -> None:
        client, now = self.client, time.monotonic()
        there = client.status == "running" and client.scheduler_comm is not None
        if not self.away and (client.scheduler_comm is not self._comm or self._comm.comm.closed()):
            self.away, self._away_since = True, now
            self._lose_all()
        if self.away and there and not client.scheduler_comm.comm.closed():
            self.away = False
            self._subscribe()  # what is new knows of no subscription
            self.refresh_workers()
            self._mended()
        elif self.away and (client.status == "closed" or now - self._away_since > AWAY_SECONDS):
            self._broken(self, BROKEN)

    def _lose_all(self) -> None:
        """Dask has forgotten what it was given and what it has made. Nothing goes to it before it is there again."""
        self._told_slots = 0
        self._emit(SlotsChanged(0))
        lost = tuple(self.kept)
        self.kept.clear()
        self._unpacked.drop(lost)
        if lost:
            self._emit(ResultsLost(lost, BROKEN))
        for batch_id in list(self.flights):
            self._lose(batch_id, BROKEN)

    def _fail(self, reason: str) -> None:
        for batch_id in list(self.flights):
            self._lose(batch_id, reason)
        self._emit(RunnerFailed(reason))
        self._closed = True
