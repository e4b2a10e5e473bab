"""Which batches are taken back from Dask: those that wait at a busy worker while another has nothing to do.

The next batch of a slot is sent before the one that runs there has ended, for a round trip takes as long as many
short items. Where it should go cannot be known then: what was thought to be short may take long, or another worker
may be done first. Dask itself moves what has not begun ten times a second, but only from workers with more than
0.2 s to do by the means that it knows, which are those of all items of a task.

Workers are asked for a batch that should have begun by now. One that waits at a worker whose threads are all busy is
barred on all workers; if none has begun it, it goes back unstarted. Then the flow sends it, or what is better by now,
to where there is room. Nothing runs twice, and no attempt is spent.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .dask_flights import Flight
from .dask_places import LARGE_INPUTS

if TYPE_CHECKING:
    from .dask_desk import Desk

UNHEARD_SECONDS = (
    0.05  # after its submission a batch waits for something: an idle worker begins it within 10 ms
)
SETTLE_SECONDS = 0.03  # after the end of a batch: so soon the worker's next one is heard of
REPLY_SECONDS = 5.0  # for workers to say what they have begun
MAX_CAUTION = 64  # times as long: how rarely workers are asked where that is in vain
MAX_TIMES = 10_000  # items of which it is known how often they were taken back

Item = tuple[str, int, int]  # run, node, index
Replies = dict[
    str, tuple[list[int], list[int]]
]  # by address of a worker: batches begun there, and waiting there


class Recall:
    """Looks for batches to take back. All of it runs in the desk's thread but for the questions to workers."""

    def __init__(self, desk: Desk, clock: Callable[[], float] = time.monotonic) -> None:
        self._desk = desk
        self._clock = clock
        self._ends: deque[float] = deque()  # when batches ended whose workers may have begun others since
        self._due = math.inf  # when to look
        self._caution = (
            1  # both times are so much longer where news takes long: everything had begun when asked for
        )
        self._asked = False  # workers are being asked what they have begun
        self._times: Counter[Item] = Counter()

    @property
    def wait_seconds(self) -> float:
        """How long until there is something to look for, if nothing is told meanwhile."""
        if self._asked or self._desk.away:
            return math.inf
        return max(0.0, self._due - self._clock())

    def sent(self) -> None:
        """A batch has been submitted: it may have gone where it has to wait."""
        self._due = min(self._due, self._clock() + UNHEARD_SECONDS * self._caution)

    def ended(self) -> None:
        """A batch has ended: its worker has another one, or nothing to do."""
        self._ends.append(self._clock())
        self._due = min(self._due, self._ends[0] + self._settle)

    @property
    def _settle(self) -> float:
        return SETTLE_SECONDS * self._caution

    def look(self, *, anyway: bool = False) -> None:
        """Take back what waits in vain, if it is time to look for it."""
        now = self._clock()
        if (now < self._due and not anyway) or self._asked or self._desk.away:
            return
        found = self._find(now)
        if found:
            self._asked = True
            self._desk.spawn(partial(self._take_back, found))

    def _find(self, now: float) -> list[Flight]:
        """Return the batches to take back now, and note when to look again."""
        desk, ends = self._desk, self._ends
        while ends and ends[0] + self._settle <= now:
            ends.popleft()
        self._due = ends[0] + self._settle if ends else math.inf
        with desk.lock:
            flights = [flight for flight in desk.flights.values() if flight.future is not None]
        threads = sum(int(worker["nthreads"]) for worker in desk.workers.values())
        idle = threads - sum(bool(flight.worker) and not flight.asking for flight in flights)
        idle -= len(ends)
        if idle <= 0:
            return []
        found: list[Flight] = []
        unheard = UNHEARD_SECONDS * self._caution
        for flight in flights:
            if flight.worker:
                continue
            due = flight.submitted + unheard
            if now < due:  # it may be just about to begin
                idle -= 1
            elif not self._may_move(flight):
                continue
            due = flight.submitted + unheard * 2 ** self._times[_item(flight)]
            if now < due:
                self._due = min(self._due, due)
            else:
                found.append(flight)
        return found[: max(0, idle)]

    def _may_move(self, flight: Flight) -> bool:
        """Whether it could begin elsewhere: not if the user, or the size of its inputs, says where it goes."""
        batch, kept = flight.batch, self._desk.kept
        if flight.orphaned or flight.doomed or batch.options.keys() - {"priority"}:
            return False
        return sum(kept[b].size for b in batch.reads if b in kept) <= LARGE_INPUTS

    async def _take_back(self, found: list[Flight]) -> None:
        from .dask_worker import bar_batches, waiting_batches

        waiting: list[Flight] = []
        begun: set[int] | None = None
        try:
            keys = {flight.batch.batch_id: flight.future.key for flight in found}
            there = {b for reply in (await self._ask(waiting_batches, keys)).values() for b in reply}
            waiting = [flight for flight in found if flight.batch.batch_id in there]
            if waiting:
                ids = [flight.batch.batch_id for flight in waiting]
                self._desk.bans.bar(ids)
                replies = await self._ask(bar_batches, self._desk.topic, ids)
                if self._desk.workers.keys() <= replies.keys():  # who does not answer may have begun them
                    begun = {b for reply in replies.values() for b in reply}
        finally:
            self._desk.tell(partial(self._give_back, found, waiting, begun))

    def _give_back(self, found: list[Flight], waiting: list[Flight], begun: set[int] | None) -> None:
        """Give back those that wait in vain and are barred everywhere. The others stay where they are."""
        desk, self._asked = self._desk, False
        for flight in found:
            self._count(flight)
        there = [
            flight.batch.batch_id for flight in waiting if desk.flights.get(flight.batch.batch_id) is flight
        ]
        back = [b for b in there if begun is not None and b not in begun and not desk.flights[b].worker]
        left = [b for b in there if b not in back]
        self._caution = max(1, self._caution // 2) if back else min(MAX_CAUTION, 2 * self._caution)
        desk.bans.stop(back)
        desk.bans.unbar(flight.batch.batch_id for flight in waiting)
        desk.give_back(back)
        if left:
            from .dask_worker import unbar_batches

            desk.spawn(partial(self._ask, unbar_batches, desk.topic, left))
        self._due = self._clock() + self._settle

    async def _ask(self, function: Any, *args: Any) -> dict[str, Any]:
        """Call a function on all workers; those that do not answer in time are left out."""
        asked = self._desk.client.run(function, *args, on_error="ignore", asynchronous=True)
        with contextlib.suppress(asyncio.TimeoutError):
            replies: dict[str, Any] = await asyncio.wait_for(asked, REPLY_SECONDS)
            return replies
        return {}

    def _count(self, flight: Flight) -> None:
        """The next time an item gets twice as long to begin: it may be that it can begin nowhere."""
        while len(self._times) >= MAX_TIMES:
            self._times.pop(next(iter(self._times)))
        self._times[_item(flight)] += 1


def _item(flight: Flight) -> Item:
    batch = flight.batch
    return batch.run_id, batch.stages[0].node_id, batch.indices[0]
