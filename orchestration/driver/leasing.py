"""Leases of a run: those of its batches, and those that user code takes for a block.

Whoever is refused has a place in the store's queue, and asks again when the store tells of news, when the answer said
that it is worth it, and now and then: that is also when processes are looked for that died with a lease.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from runners.context import listening

from ..core.commands import AskLeases
from ..core.events import LeasesAnswered
from ..core.records import Flight
from ..errors import CrashedRunError, InternalError, StoreError, UserError
from ..stores.base import Grant, Store

if TYPE_CHECKING:
    from .loop import Driver

log = logging.getLogger("millrace.driver")

SUSPICIOUS_SECONDS = 5.0  # a wait for blocks of the same run that takes so long may be one for itself
LOOK_SECONDS = 0.25  # how often who waits asks though there were no news, and looks for dead processes


@dataclass(frozen=True, slots=True)
class Waiter:
    """A demand that was refused, whom to tell when it is granted, and its place in the store's queue.

    Attributes:
        ahead: how many were before it there, when so much news had come as `heard` says.
    """

    holder: str
    names: tuple[str, ...]
    label: str
    slots: int
    remote: bool
    within: tuple[str, ...]
    tell: Callable[[Grant], None]
    ticket: int = 0
    ahead: int = 0
    heard: int = 0
    since: float = 0.0  # for batches: when it was refused


@dataclass(frozen=True, slots=True)
class Block:
    """A block of user code that takes limits. `holder` is unique over all runs."""

    holder: str
    names: tuple[str, ...]
    label: str
    slots: int


class Leasing:
    """The leases of one run. Used from its driver's thread, but for `hold` and `give_back`."""

    def __init__(self, store: Store, run_id: str, epoch: int, driver: Driver) -> None:
        self._store = store
        self._run_id = run_id
        self._epoch = epoch
        self._driver = driver
        self._waiting: dict[str, Waiter] = {}  # by holder
        self._passed_on: set[str] = set()  # blocks of this process that have had to wait
        self._blocks: dict[int, set[str]] = {}  # by batch: what code on workers holds or waits for
        self._stop_listening: Callable[[], None] | None = None
        self._told = False  # of news that were not looked at yet
        self._heard = 0  # news, for each lease that has ended about one
        self._due = 0.0  # when to ask again without news
        self._suspected: set[str] = set()  # limits for which the run may wait for itself: it was told

    # --- batches --------------------------------------------------------------------------------

    def ask(self, request: AskLeases) -> None:
        """Ask for a batch's leases; if they are not free, say so and wait for them."""

        def tell(grant: Grant) -> None:
            self._driver.post(LeasesAnswered(request.batch_id, grant.granted, grant.blocked_by))

        remote = not self._driver.runner.capabilities.in_process
        since = self._driver.clock.now()
        holder, within = self._holder(request.batch_id), self._leases_above(request.batch_id)
        waiter = Waiter(holder, request.names, request.label, 1, remote, within, tell, since=since)
        grant = self._acquire(waiter)
        tell(grant)
        if not grant.granted:
            self._wait(waiter, grant)

    def withdraw(self, batch_ids: tuple[int, ...]) -> None:
        """Stop waiting, and give back what was granted meanwhile."""
        self._leave([self._holder(batch_id) for batch_id in batch_ids])

    def _holder(self, batch_id: int) -> str:
        return f"{self._run_id}/batch/{batch_id}"

    # --- blocks of user code --------------------------------------------------------------------

    def hold(self, block: Block, batch_id: int | None, timeout: float | None) -> Grant:
        """Take limits for code of this process; wait until they are free. From any thread.

        Whatever comes of it, an exception, too: `give_back` has to be called.

        Args:
            batch_id: of the task run that the code is part of.

        Raises:
            UserError: it would wait for itself.
            FencedError: another process has the run.
        """
        told = threading.Event()
        answers: list[Grant] = []

        def tell(grant: Grant) -> None:
            answers.append(grant)
            told.set()

        waiter = self._waiter(block, batch_id, tell, remote=False)
        refused = self._acquire(waiter)
        if refused.granted:
            return refused
        self._passed_on.add(block.holder)
        self._driver.do(partial(self._try_or_wait, waiter))
        with listening(told.set):
            self._until(told, timeout)
        return answers[0] if answers else refused

    def _until(self, told: threading.Event, timeout: float | None) -> None:
        """Wait in slices: a driver that has broken tells nobody."""
        end = None if timeout is None else self._driver.clock.now() + timeout
        while True:
            left = 1.0 if end is None else min(1.0, end - self._driver.clock.now())
            if left <= 0 or told.wait(left):
                return
            if not self._driver.alive:
                raise self._driver.board.failure or InternalError("the driver has stopped")

    def give_back(self, holder: str) -> None:
        """End what `hold` began. From any thread."""
        if holder in self._passed_on:
            self._passed_on.discard(holder)
            self._driver.do(partial(self._leave, (holder,)))  # it may be asking again right now
        self._store.release([holder])

    def hold_remotely(
        self, block: Block, batch_id: int, timeout: float | None, tell: Callable[[Grant], None]
    ) -> None:
        """Take limits for code of a batch on a worker, and tell. They end with the batch at the latest.

        Raises:
            CrashedRunError: the batch has ended for its run, whatever its worker does.
            UserError: it would wait for itself.
        """
        if batch_id not in self._driver.core.ledger.live:
            raise CrashedRunError("this attempt is over for its run, so it cannot take limits any more")
        waiter = self._waiter(block, batch_id, tell, remote=True)
        self._blocks.setdefault(batch_id, set()).add(block.holder)
        refused = self._acquire(waiter)
        if refused.granted:
            tell(refused)
            return
        self._wait(waiter, refused)
        if timeout is not None:

            def give_up() -> None:
                if block.holder in self._waiting:
                    self.give_back_remotely(batch_id, block.holder)
                    tell(refused)

            self._driver.timers.at(self._driver.clock.now() + timeout, give_up)

    def give_back_remotely(self, batch_id: int, holder: str) -> None:
        """End what `hold_remotely` began."""
        self._blocks.get(batch_id, set()).discard(holder)
        self._leave((holder,))

    def batches_ended(self, live: Collection[int]) -> None:
        """Give back what code held in batches that are no longer live: it has ended, or died with its worker."""
        for batch_id in [batch_id for batch_id in self._blocks if batch_id not in live]:
            holders = self._blocks.pop(batch_id)
            if holders:
                self._leave(sorted(holders))

    def _waiter(
        self, block: Block, batch_id: int | None, tell: Callable[[Grant], None], *, remote: bool
    ) -> Waiter:
        lent = self._held_above(batch_id)
        for name in block.names:
            if name in lent and block.slots > 1:
                raise UserError(
                    f"concurrency({name!r}, {block.slots}) is inside a task run that holds one slot of that limit by "
                    "its tags, and might wait for itself. Take the tag off the task."
                )
        names = tuple(name for name in block.names if name not in lent)
        within = self._leases_above(batch_id)
        return Waiter(block.holder, names, block.label, block.slots, remote, within, tell)

    def _held_above(self, batch_id: int | None) -> set[str]:
        """Return the limits of which the batch, or one whose code has started it and waits for it, holds a slot."""
        return {name for flight in self._line_of(batch_id) for name in flight.names}

    def _leases_above(self, batch_id: int | None) -> tuple[str, ...]:
        """Return the holders of these leases."""
        return tuple(self._holder(flight.batch_id) for flight in self._line_of(batch_id) if flight.names)

    def _line_of(self, batch_id: int | None) -> Iterator[Flight]:
        """Yield a batch, that whose code has started it, and so on."""
        flight = None if batch_id is None else self._driver.core.ledger.live.get(batch_id)
        while flight is not None:
            yield flight
            parent = flight.node.spec.parent
            flight = None if parent is None else self._flight_of(*parent)

    def _flight_of(self, node_id: int, index: int) -> Flight | None:
        flights = list(self._driver.core.nodes[node_id].flights.values())
        return next((flight for flight in flights if index in flight.indices), None)

    # --- asking ---------------------------------------------------------------------------------

    def _acquire(self, waiter: Waiter) -> Grant:
        return self._store.acquire(
            waiter.names,
            holder=waiter.holder,
            run_id=self._run_id,
            epoch=self._epoch,
            label=waiter.label,
            slots=waiter.slots,
            now=self._store.now(),
            remote=waiter.remote,
            within=waiter.within,
        )

    def _try_or_wait(self, waiter: Waiter) -> None:
        grant = self._acquire(waiter)
        if grant.granted:
            waiter.tell(grant)
        else:
            self._wait(waiter, grant)

    def _wait(self, waiter: Waiter, refused: Grant) -> None:
        self._note(waiter, refused)
        if self._stop_listening is None:
            self._stop_listening = self._store.listen(self._notice)
            self._notice()  # of what has happened before we listened

    def _leave(self, holders: Sequence[str]) -> None:
        for holder in holders:
            self._waiting.pop(holder, None)
        self._store.release(holders)
        self._rest()

    def _notice(self) -> None:
        self._heard += 1  # from two threads at once one may be lost: a guess is enough
        if not self._told:
            self._told = True
            self._driver.do(self._look)

    def _look(self, *, all_: bool = False) -> None:
        """Ask again for what waits. Behind one that is refused nobody can be served who wants the same.

        Args:
            all_: not only for those whose turn it may be, by the news since they last asked.
        """
        self._told = False
        refused: set[tuple[tuple[str, ...], int]] = set()
        served: set[tuple[tuple[str, ...], int]] = set()
        # In the order of the store's queue: who comes first there is perhaps the last that came here.
        for waiter in sorted(self._waiting.values(), key=lambda waiter: waiter.ticket):
            wanted = waiter.names, waiter.slots
            if wanted in refused:
                continue
            if not (all_ or wanted in served or self._may_have_its_turn(waiter)):
                refused.add(wanted)
                continue
            grant = self._acquire(waiter)
            if grant.granted:
                served.add(wanted)
                del self._waiting[waiter.holder]
                waiter.tell(grant)
            else:
                refused.add(wanted)
                self._note(waiter, grant)
        self._rest()

    def _may_have_its_turn(self, waiter: Waiter) -> bool:
        """Whether so many leases have ended since a waiter asked that those before it may be served, or gone.

        If all asked at each news, 20 processes would keep two cores busy with being refused. Nobody relies on another
        one for his turn: who is first asks at each news, who is not comes nearer with each that he hears of. Of
        several leases that end in one transaction only one may be heard, so half of them are enough; and all ask when
        they are due.
        """
        return 2 * (self._heard - waiter.heard) > waiter.ahead

    def _note(self, waiter: Waiter, refused: Grant) -> None:
        self._waiting[waiter.holder] = replace(
            waiter, ticket=refused.ticket or 0, ahead=refused.ahead, heard=self._heard
        )
        self._ask_at(refused)

    def _ask_at(self, refused: Grant) -> None:
        """Have all ask again when it is worth it, or after LOOK_SECONDS."""
        delay = LOOK_SECONDS
        if refused.retry_at is not None:
            delay = max(0.0, min(delay, refused.retry_at - self._store.now()))
        now = self._driver.clock.now()
        due = now + delay
        if now < self._due <= due:
            return
        self._due = due
        self._driver.timers.at(due, partial(self._when_due, due))

    def _when_due(self, due: float) -> None:
        if not self._waiting or due != self._due:
            return
        try:
            self._store.reap(self._store.now())
        except StoreError as error:  # the journal will tell if it lasts
            log.debug("looking for dead processes: %s", error)
        self._look(all_=True)
        for waiter in list(self._waiting.values()):
            if waiter.since and self._driver.clock.now() - waiter.since > SUSPICIOUS_SECONDS:
                self._suspect(waiter)

    def _suspect(self, waiter: Waiter) -> None:
        """Warn, once per limit, of a batch that waits for blocks of its own run: they may wait for it."""
        for name in set(waiter.names) - self._suspected:
            held = [lease for lease in self._store.leases(name, self._store.now()) if lease.held]
            if held and all(lease.holder.startswith(f"{self._run_id}/block/") for lease in held):
                self._suspected.add(name)
                self._driver.warn(
                    f"{waiter.label} has waited {SUSPICIOUS_SECONDS:g} s for limit {name!r}, which concurrency() "
                    f"holds in {' and '.join(lease.label for lease in held)} of this same run. If the code "
                    f"there waits for {waiter.label}, neither will go on: take the limit in one place, by "
                    "the tag or by the block."
                )

    def _rest(self) -> None:
        if not self._waiting and self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None

    def close(self) -> None:
        self._waiting.clear()
        self._rest()
