"""The runners' memory of what was fetched last."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence

import pytest

from runners.base import Wanted
from runners.errors import ResultLostError
from runners.results import PackedResults
from runners.storage import MISSING
from runners.unpacked import Brought, Unpacked


def test_the_stage_used_longest_ago_goes_first() -> None:
    kept = Unpacked(max_stages=2)
    held = {1, 2, 3}
    kept.put(1, 0, ["a"], held)
    kept.put(2, 0, ["b"], held)
    assert kept.get(1, 0) == ["a"]
    kept.put(3, 0, ["c"], held)
    assert [kept.get(batch, 0) for batch in (1, 2, 3)] == [["a"], None, ["c"]]


def test_what_was_released_meanwhile_is_not_kept() -> None:
    """A fetch may end after the release of its batch."""
    kept = Unpacked()
    kept.put(1, 0, ["a"], held=set())
    assert kept.get(1, 0) is None


def test_packed_results_are_kept_within_bounds() -> None:
    """The ones used longest ago go first, those released at once."""
    packed = [PackedResults.pack([[b"x" * 1000], [batch]]) for batch in range(4)]
    kept, held = Unpacked(max_packed_bytes=2_500), {0, 1, 2}
    kept.put_packed(0, packed[0], held)
    kept.put_packed(1, packed[1], held)
    assert kept.get_packed(0) is packed[0]
    kept.put_packed(2, packed[2], held)
    kept.put_packed(3, packed[3], held)
    assert [kept.get_packed(batch) for batch in range(4)] == [packed[0], None, packed[2], None]
    kept.drop([0])
    kept.put_packed(1, packed[1], held)
    assert [kept.get_packed(batch) for batch in (0, 1, 2)] == [None, packed[1], packed[2]]


def test_what_was_fetched_is_not_kept_twice() -> None:
    """The values of a single stage are all there is; of several stages the others will be asked for."""
    kept, held = Unpacked(), {1, 2}
    kept.put_fetched(1, 0, ["a"], PackedResults.pack([["a"]]), held)
    several = PackedResults.pack([["a"], ["b"]])
    kept.put_fetched(2, 1, ["b"], several, held)
    assert (kept.get(1, 0), kept.get_packed(1)) == (["a"], None)
    assert (kept.get(2, 1), kept.get_packed(2)) == (["b"], several)


def test_what_is_here_is_not_asked_for() -> None:
    """Values, packed results and what the engine has come in the order asked for; errors stand in their places."""
    kept, held, asked = Unpacked(), {1, 2, 3, 4}, []
    kept.put(1, 0, ["a", "b"], held)
    kept.put_packed(2, PackedResults.pack([["c", MISSING], ["d"]]), held)
    gone = ResultLostError("gone")

    def bring(wanted: Sequence[Wanted]) -> list[Brought | ResultLostError]:
        asked.append(list(wanted))
        sent = {3: Brought(PackedResults.pack([["e", "f"]])), 4: Brought(PackedResults.pack([["h"]]), True)}
        return [sent.get(batch_id, gone) for batch_id, _, _ in wanted]

    wanted: list[Wanted] = [(5, 0, [0]), (1, 0, [1]), (2, 0, [0]), (2, 0, [1]), (2, 1, [0])]
    wanted += [(3, 0, [1, 0]), (4, 7, [99])]
    first = kept.fetch_many(wanted, held, bring)
    assert isinstance(lost := first.pop(3), ResultLostError)
    assert "batch 2 has no results at positions 1" in str(lost)
    assert first == [gone, ["b"], ["c"], ["d"], ["f", "e"], ["h"]]
    assert asked == [[(5, 0, [0]), (3, 0, [1, 0]), (4, 7, [99])]]
    assert kept.fetch_many([(3, 0, [1]), (2, 0, [0])], held, bring) == [["f"], ["c"]]
    assert len(asked) == 1


@pytest.fixture
def many_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_fetching_and_releasing_at_the_same_time(many_switches: None) -> None:
    """User threads put and get while the driver's thread drops; in the end nothing released is there."""
    kept, held = Unpacked(), set(range(2_000))
    errors: list[BaseException] = []

    def fetch() -> None:
        try:
            for batch in range(2_000):
                if kept.get(batch, 0) is None:
                    kept.put(batch, 0, [batch], held)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for batch in range(2_000):
        held.discard(batch)
        kept.drop([batch])
    for thread in threads:
        thread.join()
    assert errors == []
    assert [kept.get(batch, 0) for batch in range(2_000)] == [None] * 2_000
