"""What every store does with concurrency and rate limits. Part of `store_contract.StoreContract`."""

from __future__ import annotations

import pytest

from ..core.journal import LeasesReturned, RunMoved
from ..core.states import RunState
from ..errors import UserError
from ..stores.base import LEASE_SECONDS, Grant, RunRow, Store
from .store_entries import NOW


def ask(store: Store, holder: str, *names: str, slots: int = 1, now: float = NOW, run: str = "r1") -> Grant:
    """Ask for limits in the name of a holder."""
    return store.acquire(names, holder=holder, run_id=run, label=f"task {holder}", slots=slots, now=now)


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
