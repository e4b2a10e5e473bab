"""What every store does with concurrency and rate limits. Part of `store_contract.StoreContract`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from ..core.journal import LeasesReturned, RunMoved
from ..core.states import RunState
from ..errors import FencedError, UserError
from ..stores.base import DEAD_AFTER_SECONDS, LEASE_SECONDS, Grant, RunRow, Store
from ..stores.liveness import this_host
from .store_entries import NOW


def ask(
    store: Store,
    holder: str,
    *names: str,
    slots: int = 1,
    now: float = NOW,
    run: str = "r1",
    epoch: int = 1,
    remote: bool = False,
    within: str = "",
) -> Grant:
    """Ask for limits in the name of a holder."""
    return store.acquire(
        names,
        holder=holder,
        run_id=run,
        epoch=epoch,
        label=f"task {holder}",
        slots=slots,
        now=now,
        remote=remote,
        within=within.split(),
    )


def new_run_of_another_process(store: Store) -> Callable[[], object]:
    """Record a run `r1` of another process of this host; return how to end that one."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = RunRow("r1", "calm-otter", "f", created=NOW, heartbeat=NOW, host=this_host(), pid=process.pid)
    store.create_run(run)
    store.append("r1", 1, [RunMoved(RunState.RUNNING, NOW)])
    return lambda: process.communicate(b"\n")


class LimitContract:
    """Leases are counted, first come first served, all or nothing, and never outlive their holders for long."""

    def test_names_without_a_limit_are_no_obstacle(self, store: Store) -> None:
        """Tags are asked for whether or not somebody has limited them."""
        assert ask(store, "a", "nothing", "else") == Grant(granted=True)
        assert store.limits(NOW) == []

    def test_never_more_than_the_slots(self, store: Store) -> None:
        """A limit of 2 lets in two; the third is told who is in the way."""
        store.set_limit("db", 2)
        assert ask(store, "a", "db") == Grant(granted=True, names=("db",))
        assert ask(store, "b", "db").granted
        third = ask(store, "c", "db")
        assert not third.granted
        assert third.names == ()
        assert set(third.blocked_by["db"]) == {"task a", "task b"}
        assert third.ahead == 0
        assert ask(store, "d", "db").ahead == 1
        store.release(["d"])
        (limit,) = store.limits(NOW)
        assert (limit.name, limit.slots, limit.held, limit.waiting) == ("db", 2, 2, 1)

    def test_asking_again_takes_nothing_more(self, store: Store) -> None:
        """A repeated demand of one holder is the same demand."""
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted
        assert ask(store, "a", "db", now=NOW + 50).granted
        assert [lease.holder for lease in store.leases("db", NOW + 50)] == ["a"]
        assert not ask(store, "b", "db", now=NOW + 100).granted, "the second demand has renewed the lease"

    def test_first_come_first_served(self, store: Store) -> None:
        """Who came later waits for who came earlier, even if the later one asks first."""
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted
        assert not ask(store, "b", "db").granted
        assert not ask(store, "c", "db").granted
        store.release(["a"])
        late = ask(store, "c", "db")
        assert not late.granted
        assert late.blocked_by == {"db": ["task b"]}
        assert ask(store, "b", "db").granted
        assert [(lease.holder, lease.held) for lease in store.leases("db", NOW)] == [
            ("b", True),
            ("c", False),
        ]

    def test_a_free_slot_beyond_those_of_earlier_waiters_is_taken(self, store: Store) -> None:
        """Keeping the order does not leave slots idle until the first waiter asks again."""
        store.set_limit("db", 2)
        for holder in "ab":
            assert ask(store, holder, "db").granted
        for holder in "cd":
            assert not ask(store, holder, "db").granted
        store.release(["a", "b"])
        assert ask(store, "d", "db").granted
        assert ask(store, "c", "db").granted

    def test_several_limits_are_all_taken_or_none(self, store: Store) -> None:
        """A demand that waits for one limit does not hold the other."""
        store.set_limit("db", 1)
        store.set_limit("api", 1)
        assert ask(store, "a", "api").granted
        both = ask(store, "b", "db", "api")
        assert not both.granted
        assert set(both.blocked_by) == {"api"}
        assert not any(lease.held for lease in store.leases("db", NOW))
        store.release(["a"])
        assert ask(store, "b", "api", "db").granted

    def test_what_is_freed_is_next_in_line(self, store: Store) -> None:
        """Whoever was first in the queue has it whenever he asks, and nobody else meanwhile."""
        store.set_limit("db", 2)
        store.set_limit("api", 1)
        now = store.now()
        assert ask(store, "a", "db", slots=2, now=now).granted
        assert ask(store, "x", "api", now=now).granted
        assert not ask(store, "b", "db", now=now).granted
        assert not ask(store, "both", "db", "api", now=now).granted
        assert not ask(store, "c", "db", now=now).granted
        store.release(["a"])
        late = ask(store, "d", "db", now=now)
        assert not late.granted
        assert set(late.blocked_by["db"]) == {"task b", "task both", "task c"}
        assert ask(store, "b", "db", now=now).granted
        store.release(["x"])
        assert ask(store, "both", "api", "db", now=now).granted
        assert not ask(store, "c", "db", now=now).granted

    def test_a_dead_process_that_was_next_holds_nobody_up(self, store: Store) -> None:
        """Its code was to run on a worker, which would outlive it, but has not begun."""
        end = new_run_of_another_process(store)
        store.set_limit("db", 1)
        now = store.now()
        assert ask(store, "a", "db", now=now, run="r2").granted
        assert not ask(store, "b", "db", now=now, remote=True).granted
        assert not ask(store, "c", "db", now=now, run="r2").granted
        end()
        store.release(["a"])
        assert store.reap(now, proven=True) == ["r1"]
        assert ask(store, "c", "db", now=now, run="r2").granted

    def test_a_lease_that_was_left_is_renewed_again_once_its_holder_asks(self, store: Store) -> None:
        """A flow run's turn, resumed by another process after the first had not been heard of."""
        store.create_run(RunRow("r1", "calm-otter", "f", created=NOW, heartbeat=NOW, host="far", pid=5))
        store.append("r1", 1, [RunMoved(RunState.RUNNING, NOW)])
        store.set_limit("flow:f", 1)
        assert ask(store, "r1/run", "flow:f").granted
        assert store.reap(NOW + DEAD_AFTER_SECONDS + 1) == ["r1"]
        late = NOW + DEAD_AFTER_SECONDS + 2
        epoch = store.claim("r1", host="far", pid=6, now=late).epoch
        assert ask(store, "r1/run", "flow:f", now=late, epoch=epoch).granted
        assert not store.heartbeat("r1", epoch, late + LEASE_SECONDS - 1).fenced
        assert not ask(store, "other", "flow:f", now=late + LEASE_SECONDS + 1, run="r2").granted

    def test_demands_for_several_limits_cannot_block_each_other(self, store: Store) -> None:
        """Two demands that name the same limits in another order are served one after the other."""
        for name in ("x", "y"):
            store.set_limit(name, 1)
        assert ask(store, "a", "x", "y").granted
        assert not ask(store, "b", "y", "x").granted
        assert not ask(store, "c", "x", "y").granted
        store.release(["a"])
        assert not ask(store, "c", "x", "y").granted
        assert ask(store, "b", "y", "x").granted
        store.release(["b"])
        assert ask(store, "c", "x", "y").granted

    def test_who_waits_for_a_lease_is_passed_within_it(self, store: Store) -> None:
        """A task run that holds x has started one that needs y. Who came between wants both: he cannot be first."""
        for name in ("x", "y"):
            store.set_limit(name, 1)
        assert ask(store, "parent", "x").granted
        assert not ask(store, "both", "x", "y").granted
        assert not ask(store, "behind", "y").granted, "it stands behind who waits for both"
        assert not ask(store, "other", "y", within="somebody").granted
        assert ask(store, "child", "y", within="somebody parent").granted
        store.release(["child", "parent"])
        assert not ask(store, "child-2", "y", within="parent").granted, "nobody waits for the parent any more"
        assert ask(store, "both", "x", "y").granted

    def test_more_slots_than_one(self, store: Store) -> None:
        """A demand for several slots waits until all are free, and is not starved by small ones."""
        store.set_limit("db", 3)
        assert ask(store, "a", "db", slots=2).granted
        assert not ask(store, "b", "db", slots=2).granted
        assert not ask(store, "c", "db").granted, "the free slot is one of those that b waits for"
        store.release(["a"])
        assert ask(store, "b", "db", slots=2).granted
        assert ask(store, "c", "db").granted

    def test_a_demand_that_can_never_be_met_is_in_nobodys_way(self, store: Store) -> None:
        """Asking for 5 of 2 slots is refused with the reason, and the queue moves on."""
        store.set_limit("db", 2)
        assert "5" in ask(store, "a", "db", slots=5).blocked_by["db"][0]
        assert ask(store, "b", "db").granted

    def test_zero_slots_stop_everything(self, store: Store) -> None:
        """A limit of 0 is a way to hold work back; raising it lets the waiters in."""
        store.set_limit("db", 0)
        assert not ask(store, "a", "db").granted
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted

    def test_leases_of_a_silent_holder_expire(self, store: Store) -> None:
        """A slot comes back at the expiry that the waiter was told."""
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted
        waits = ask(store, "b", "db", now=NOW + 10)
        assert waits.retry_at == NOW + LEASE_SECONDS
        assert ask(store, "b", "db", now=NOW + LEASE_SECONDS).granted

    def test_an_expired_lease_is_noted_in_its_runs_log(self, store: Store) -> None:
        """Giving a slot away that may still be in use is visible to people."""
        store.create_run(RunRow("r1", "calm-otter", "f", created=NOW, heartbeat=NOW))
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted
        assert ask(store, "b", "db", now=NOW + LEASE_SECONDS + 1, run="r2").granted
        (line,) = store.logs("r1", min_level=30)
        assert "overbooked" in line.message
        assert "task a" in line.message

    def test_the_heartbeat_renews_leases_and_places(self, store: Store) -> None:
        """As long as a run's process lives, its leases and its places in the queue stay."""
        store.create_run(RunRow("r1", "calm-otter", "f", created=NOW, heartbeat=NOW))
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted
        assert not ask(store, "b", "db").granted
        store.heartbeat("r1", 1, NOW + 50)
        assert not ask(store, "c", "db", now=NOW + 100, run="r2").granted
        store.release(["a"])
        assert not ask(store, "c", "db", now=NOW + 100, run="r2").granted, "b was first"

    def test_a_waiter_that_stopped_asking_is_passed_over(self, store: Store) -> None:
        """A place in the queue expires like a lease."""
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted
        assert not ask(store, "b", "db").granted
        assert ask(store, "a", "db", now=NOW + 59).granted
        store.release(["a"])
        assert ask(store, "c", "db", now=NOW + 61).granted

    def test_leaving_the_queue(self, store: Store) -> None:
        """`release` gives up a place, too."""
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted
        assert not ask(store, "b", "db").granted
        store.release(["b", "a", "never-heard-of"])
        assert ask(store, "c", "db").granted

    def test_leases_end_with_what_the_journal_says(self, store: Store) -> None:
        """The transaction that records the end of a batch frees its slot."""
        store.create_run(RunRow("r1", "calm-otter", "f", created=NOW, heartbeat=NOW))
        store.set_limit("db", 1)
        assert ask(store, "r1/batch/7", "db").granted
        store.append("r1", 1, [LeasesReturned(("r1/batch/7",))])
        assert ask(store, "r1/batch/8", "db").granted
        store.append("r1", 1, [RunMoved(RunState.COMPLETED, NOW)])
        assert ask(store, "other", "db", run="r2").granted, "a run that has ended holds nothing"

    def test_what_a_silent_process_held_comes_free_at_its_expiry(self, store: Store) -> None:
        """Nobody can know that its code has ended; its places in queues are given up at once."""
        store.create_run(RunRow("r1", "calm-otter", "f", created=NOW, heartbeat=NOW, host="far", pid=5))
        store.append("r1", 1, [RunMoved(RunState.RUNNING, NOW)])
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted
        assert not ask(store, "b", "db").granted
        assert store.reap(NOW + DEAD_AFTER_SECONDS + 1) == ["r1"]
        (left,) = store.leases("db", NOW + DEAD_AFTER_SECONDS + 1)
        assert (left.holder, left.left) == ("a", True)
        assert store.heartbeat("r1", 1, NOW + 50).fenced
        late = NOW + LEASE_SECONDS
        assert not ask(store, "c", "db", now=late - 1, run="r2").granted
        assert ask(store, "c", "db", now=late, run="r2").granted
        assert ["overbooked" in line.message for line in store.logs("r1", min_level=30)] == [True]
        store.release(["a", "b"])
        assert [lease.holder for lease in store.leases("db", late)] == ["c"], "a late release is harmless"

    def test_what_a_dead_process_held_comes_free_at_once(self, store: Store) -> None:
        """A process of this host that is provably gone holds nothing more, but for code that ran in others."""
        end = new_run_of_another_process(store)
        for name in ("db", "api"):
            store.set_limit(name, 1)
        assert ask(store, "a", "db").granted
        assert ask(store, "w", "api", remote=True).granted
        end()
        assert store.reap(NOW + 1) == ["r1"]
        assert ask(store, "c", "db", now=NOW + 1, run="r2").granted
        assert not ask(store, "d", "api", now=NOW + LEASE_SECONDS - 1, run="r2").granted
        assert ask(store, "d", "api", now=NOW + LEASE_SECONDS, run="r2").granted

    def test_a_process_that_resumes_does_not_renew_what_the_one_before_it_held(self, store: Store) -> None:
        """Code of the process before may still be at work on a worker; its lease runs out as if nobody had come."""
        end = new_run_of_another_process(store)
        store.set_limit("db", 2)
        assert ask(store, "a", "db", remote=True).granted
        assert ask(store, "b", "db").granted
        end()
        store.claim("r1", host="h", pid=1, now=NOW + 1)
        assert [lease.holder for lease in store.leases("db", NOW + 1)] == ["a"]
        assert ask(store, "c", "db", now=NOW + 1, epoch=2).granted
        store.heartbeat("r1", 2, NOW + 50)
        assert [lease.holder for lease in store.leases("db", NOW + LEASE_SECONDS)] == ["c"]
        store.append("r1", 2, [RunMoved(RunState.COMPLETED, NOW + 51)])
        assert [lease.holder for lease in store.leases("db", NOW + 51)] == ["a"]

    def test_a_run_that_was_taken_over_takes_no_slots(self, store: Store) -> None:
        """Nor places, whether somebody has resumed it or it was given up for dead."""
        store.create_run(RunRow("r1", "calm-otter", "f", created=NOW, heartbeat=NOW, host="far", pid=5))
        store.append("r1", 1, [RunMoved(RunState.RUNNING, NOW)])
        store.set_limit("db", 1)
        assert store.reap(NOW + DEAD_AFTER_SECONDS + 1) == ["r1"]
        for newest in (2, 3):
            with pytest.raises(FencedError):
                ask(store, "a", "db", now=NOW + 40, epoch=newest - 1)
            assert store.leases("db", NOW + 40) == []
            store.claim("r1", host="far", pid=6, now=NOW + 40 * newest)
        with pytest.raises(FencedError):
            ask(store, "a", "nothing")
        assert ask(store, "a", "db", now=NOW + 40, epoch=4).granted

    def test_a_run_whose_slot_was_given_away_is_fenced(self, store: Store) -> None:
        """Nobody has looked for dead runs: who takes the slot of a silent one ends that, for it may go on later."""
        store.create_run(RunRow("r1", "calm-otter", "f", created=NOW, heartbeat=NOW, host="far", pid=5))
        store.append("r1", 1, [RunMoved(RunState.RUNNING, NOW)])
        for name in ("db", "api"):
            store.set_limit(name, 1)
            assert ask(store, f"{name}-holder", name).granted
        assert ask(store, "b", "db", now=NOW + LEASE_SECONDS, run="r2").granted
        assert store.run("r1").state is RunState.CRASHED
        assert store.heartbeat("r1", 1, NOW + LEASE_SECONDS + 1).fenced
        assert not ask(store, "c", "db", now=NOW + LEASE_SECONDS + 2, run="r2").granted
        (note,) = store.logs("r1", min_level=30)
        assert "overbooked" in note.message
        assert ask(store, "b", "api", now=NOW + LEASE_SECONDS + 2, run="r2").granted
        assert len(store.logs("r1", min_level=30)) == 2, "each lease that has run out is noted"

    def test_what_an_earlier_process_had_left_ends_without_the_run(self, store: Store) -> None:
        """Its lease runs out as promised; the process that has resumed the run is not to blame."""
        end = new_run_of_another_process(store)
        store.set_limit("db", 1)
        assert ask(store, "a", "db", remote=True).granted
        end()
        store.claim("r1", host="far", pid=6, now=NOW + 1)
        store.heartbeat("r1", 2, NOW + LEASE_SECONDS)
        assert ask(store, "b", "db", now=NOW + LEASE_SECONDS, run="r2").granted
        assert not store.heartbeat("r1", 2, NOW + LEASE_SECONDS + 1).fenced

    def test_a_run_that_asks_lives(self, store: Store) -> None:
        """Its first word after a minute is a demand: what it holds is not given away, not even to itself."""
        store.create_run(RunRow("r1", "calm-otter", "f", created=NOW, heartbeat=NOW))
        store.append("r1", 1, [RunMoved(RunState.RUNNING, NOW)])
        store.set_limit("db", 1)
        late = NOW + LEASE_SECONDS + 1
        assert ask(store, "a", "db").granted
        assert not ask(store, "b", "db", now=late).granted
        assert not store.heartbeat("r1", 1, late).fenced
        assert not ask(store, "c", "db", now=late + LEASE_SECONDS - 1, run="r2").granted
        assert store.logs("r1", min_level=30) == []

    def test_a_limit_that_is_set_again_counts_who_held_it_before(self, store: Store) -> None:
        """Removing a limit and setting it anew does not let in more than it allows."""
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted
        assert store.remove_limit("db")
        store.set_limit("db", 1)
        assert not ask(store, "b", "db").granted
        store.release(["a"])
        assert ask(store, "b", "db").granted

    def test_slots_that_are_taken_away_and_given(self, store: Store) -> None:
        """From 3 to 1: who holds goes on, nobody is let in until less than 1 is held. To 5: all waiters are."""
        store.set_limit("db", 3)
        assert all(ask(store, holder, "db").granted for holder in "abc")
        store.set_limit("db", 1)
        waiters = "defgh"
        assert not any(ask(store, holder, "db").granted for holder in waiters)
        store.release(["a", "b"])
        assert not ask(store, "d", "db").granted
        store.release(["c"])
        assert [ask(store, holder, "db").granted for holder in waiters] == [True, *[False] * 4]
        store.set_limit("db", 5)
        assert all(ask(store, holder, "db").granted for holder in waiters)

    def test_who_waits_is_told(self, store: Store) -> None:
        """A release, a changed limit, a removed limit: each is news for who waits, until it does not listen."""
        told = threading.Event()
        store.create_run(RunRow("r1", "calm-otter", "f", created=NOW, heartbeat=NOW))
        store.set_limit("db", 1)
        for holder in "ab":
            ask(store, holder, "db")
        stop = store.listen(told.set)
        try:
            for news in (
                lambda: store.release(["a"]),
                lambda: store.append("r1", 1, [LeasesReturned(("b",))]),
                lambda: store.set_limit("db", 2),
                lambda: store.remove_limit("db"),
            ):
                told.clear()
                news()
                assert told.wait(20)
        finally:
            stop()
            stop()

    def test_removing_a_limit_lets_everyone_in(self, store: Store) -> None:
        """Without the limit nothing is counted."""
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted
        assert not ask(store, "b", "db").granted
        assert store.remove_limit("db")
        assert not store.remove_limit("db")
        assert ask(store, "b", "db") == Grant(granted=True)
        assert store.leases("db", NOW) == []

    def test_a_clock_that_went_back_does_not_stretch_leases(self, store: Store) -> None:
        """An hour back in time costs one lease time, not an hour."""
        store.set_limit("db", 1)
        assert ask(store, "a", "db", now=NOW + 3600).granted
        waits = ask(store, "b", "db", now=NOW)
        assert waits.retry_at == NOW + LEASE_SECONDS
        assert ask(store, "b", "db", now=NOW + LEASE_SECONDS + 1).granted

    def test_rate_limit(self, store: Store) -> None:
        """A bucket of 2 with one token per second: two at once, then one each second; nothing is held."""
        store.set_limit("api", 2, per_second=1.0)
        assert ask(store, "a", "api") == Grant(granted=True, names=("api",))
        assert ask(store, "b", "api").granted
        third = ask(store, "c", "api")
        assert not third.granted
        assert third.retry_at == pytest.approx(NOW + 1.0)
        assert not ask(store, "c", "api", now=NOW + 0.9).granted
        assert ask(store, "c", "api", now=NOW + 1.0).granted
        assert store.leases("api", NOW + 1.0) == []

    @pytest.mark.parametrize("jump", [-3600.0, 3600.0])
    def test_a_bucket_outlives_a_clock_that_jumps(self, store: Store, jump: float) -> None:
        """Back: tokens flow in from then on, not an hour later. Forward: the bucket is full, not fuller."""
        store.set_limit("api", 2, per_second=1.0)
        for holder in "ab":
            assert ask(store, holder, "api").granted
        now = NOW + jump
        granted = [ask(store, holder, "api", now=now).granted for holder in "cde"]
        assert granted == ([False] * 3 if jump < 0 else [True, True, False])
        first = granted.index(False)
        assert ask(store, "cde"[first], "api", now=now + 1.0).granted
        assert not ask(store, "f", "api", now=now + 1.0).granted

    def test_rate_limit_is_first_come_first_served(self, store: Store) -> None:
        """A later demand is told when its token will be there, after those of who waits already."""
        store.set_limit("api", 1, per_second=2.0)
        assert ask(store, "a", "api").granted
        assert ask(store, "b", "api").retry_at == pytest.approx(NOW + 0.5)
        assert ask(store, "c", "api").retry_at == pytest.approx(NOW + 1.0)
        assert not ask(store, "c", "api", now=NOW + 0.5).granted
        assert ask(store, "b", "api", now=NOW + 0.5).granted
        assert ask(store, "c", "api", now=NOW + 1.0).granted

    def test_a_blocked_demand_spends_no_tokens(self, store: Store) -> None:
        """All or nothing holds across both kinds of limit."""
        store.set_limit("api", 1, per_second=0.001)
        store.set_limit("db", 1)
        assert ask(store, "a", "db").granted
        assert set(ask(store, "b", "db", "api").blocked_by) == {"db"}
        store.release(["a"])
        assert ask(store, "b", "db", "api").granted
        assert ask(store, "b", "db", "api").granted, "repeated, and its token is not spent twice"

    @pytest.mark.parametrize(
        ("name", "slots", "per_second"), [("", 1, None), ("x", -1, None), ("x", 0, 1.0), ("x", 1, 0.0)]
    )
    def test_senseless_limits_are_refused(
        self, store: Store, name: str, slots: int, per_second: float | None
    ) -> None:
        """The user is told before anything waits for ever."""
        with pytest.raises(UserError):
            store.set_limit(name, slots, per_second)
