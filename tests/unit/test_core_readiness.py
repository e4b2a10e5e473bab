"""When items may run: every kind of dependency, in every order of things."""

from __future__ import annotations

import pytest

from orchestration.core.commands import SubmitBatch
from orchestration.core.events import CancelRequested
from orchestration.core.journal import AttemptsEnded, Moved, WidthLearned
from orchestration.core.specs import Dependency, Policy, Reach, Recovered
from orchestration.core.states import State
from orchestration.core.triggers import all_finished
from orchestration.testing.handdriven import HandDriven
from runners.messages import Outcome, SlotsChanged, Stored

ONE = Policy(batch=1)
P, S, C = State.PENDING, State.SUBMITTED, State.COMPLETED


def driven(slots: int = 20) -> HandDriven:
    return HandDriven(slots=slots)


def test_a_task_without_upstream_goes_at_once() -> None:
    """Nothing to wait for: the submission itself gives the batch."""
    run = driven()
    assert run.state(run.add()) is State.SUBMITTED


def test_all_waits_for_every_item() -> None:
    """A fan-in starts with the end of the last item, not before."""
    run = driven()
    up = run.add(width=3, policy=ONE)
    down = run.add(Dependency(up, Reach.ALL))
    run.end()
    run.end()
    assert run.state(down) is P
    run.end()
    assert run.state(down) is S


def test_all_of_nothing_is_fulfilled() -> None:
    """A fan-in over a map of no items runs at once."""
    run = driven()
    down = run.add(Dependency(run.add(width=0), Reach.ALL))
    assert run.state(down) is S


def test_some_waits_for_its_members_only() -> None:
    """The other items of the upstream map may take as long as they like; repeated members count once."""
    run = driven()
    up = run.add(width=4, policy=ONE)
    down = run.add(Dependency(up, Reach.SOME, (3, 0, 3)))
    run.end(batch_id=0)
    assert run.state(down) is P
    run.end(batch_id=3)
    assert run.state(down) is S


def test_some_of_a_batch_is_counted_once() -> None:
    """Members that end together in one batch, as a range or scattered, are all counted."""
    for members in ((1, 2, 3), (0, 2), (5, 1)):
        run = driven(slots=1)
        up = run.add(width=6, policy=Policy(batch=6))
        down = run.add(Dependency(up, Reach.SOME, members))
        run.end()
        assert run.state(down) is S


def test_aligned_items_go_one_by_one() -> None:
    """Item i waits for upstream item i and for no other."""
    run = driven()
    up = run.add(width=3, policy=ONE)
    down = run.add(Dependency(up, Reach.ALIGNED), width=None, policy=ONE)
    run.end(batch_id=1)
    assert run.states(down) == [P, S, P]
    run.end(batch_id=0)
    assert run.states(down) == [S, S, P]


def test_aligned_to_chosen_items() -> None:
    """A slice or a shuffled list of futures aligns with those items."""
    run = driven()
    up = run.add(width=4, policy=ONE)
    down = run.add(Dependency(up, Reach.ALIGNED, (3, 3, 0)), width=3, policy=ONE)
    run.end(batch_id=3)
    assert run.states(down) == [S, S, P]
    run.end(batch_id=0)
    assert run.states(down) == [S, S, S]


def test_picked_items_wait_for_their_own() -> None:
    """Items that wait for several, one, and none of the upstream items."""
    run = driven()
    up = run.add(width=3, policy=ONE)
    down = run.add(Dependency(up, Reach.PICKED, picks={0: [0, 1], 1: [1, 1]}), width=3, policy=ONE)
    assert run.states(down) == [P, P, S]
    run.end(batch_id=1)
    assert run.states(down) == [P, S, S]
    run.end(batch_id=0)
    assert run.states(down) == [S, S, S]


def test_two_dependencies_on_one_node() -> None:
    """`f.map(x, x)` and `f.map(x, wait_for=[x])` count each item once per dependency."""
    run = driven()
    up = run.add(width=2, policy=ONE)
    both = run.add(Dependency(up, Reach.ALIGNED), Dependency(up, Reach.ALIGNED), width=None, policy=ONE)
    late = run.add(Dependency(up, Reach.ALIGNED), Dependency(up, Reach.ALL), width=None, policy=ONE)
    run.end(batch_id=0)
    assert run.states(both) == [S, P]
    assert run.states(late) == [P, P]
    run.end(batch_id=1)
    assert run.states(both) == [S, S]
    assert run.states(late) == [S, S]


def test_a_width_is_learned_from_a_result() -> None:
    """A map over a list that a task returns opens when the list is there, and only then."""
    run = driven()
    up = run.add()
    down = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None)
    assert not run.core.nodes[down].opened
    run.end(lengths={0: 3})
    assert run.core.nodes[down].width == 3
    assert WidthLearned(down, 3) in run.said


def test_a_width_is_learned_through_several_maps() -> None:
    """Maps over maps over a list, submitted before anything has run, all open with it."""
    run = driven()
    up = run.add()
    first = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None)
    second = run.add(Dependency(first, Reach.ALIGNED), width=None)
    third = run.add(Dependency(second, Reach.ALIGNED), Dependency(up, Reach.ALL), width=None)
    total = run.add(Dependency(third, Reach.ALL))
    run.end(lengths={0: 4})
    assert [run.core.nodes[n].width for n in (first, second, third)] == [4, 4, 4]
    run.finish_all()
    assert run.state(total) is C


def test_two_dependencies_on_one_node_of_unknown_width() -> None:
    """A node that opens through one of two edges to the same upstream does not count the other twice."""
    run = driven()
    up = run.add()
    first = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None, policy=ONE)
    picks = {0: [1], 1: [0, 1]}
    second = run.add(
        Dependency(first, Reach.ALIGNED), Dependency(first, Reach.PICKED, picks=picks), width=None, policy=ONE
    )
    third = run.add(Dependency(first, Reach.PICKED, picks=picks), width=2, policy=ONE)
    run.end(lengths={0: 2})
    run.end(batch_id=1)
    assert run.states(second) == run.states(third) == [P, P]
    run.end(batch_id=2)
    assert run.states(second) == run.states(third) == [S, S]


def test_an_empty_list_makes_an_empty_map() -> None:
    """No items: what maps over it is empty as well, what waits for all of it runs."""
    run = driven()
    up = run.add()
    empty = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None)
    also = run.add(Dependency(empty, Reach.ALIGNED), width=None)
    total = run.add(Dependency(also, Reach.ALL))
    run.end(lengths={0: 0})
    assert run.states(empty) == run.states(also) == []
    assert run.state(total) is S


def test_upstream_that_ended_before_the_submission() -> None:
    """Late submissions see what has ended, for every kind of dependency."""
    run = driven()
    up = run.add(width=2, policy=Policy(batch=2))
    run.end(lengths={0: 5})
    for dependency, width in (
        (Dependency(up, Reach.ALL), 1),
        (Dependency(up, Reach.SOME, (1,)), 1),
        (Dependency(up, Reach.ALIGNED), None),
        (Dependency(up, Reach.ALIGNED, (1, 0, 1)), 3),
        (Dependency(up, Reach.PICKED, picks={0: [1]}), 1),
        (Dependency(up, Reach.ELEMENTS, (0,)), None),
    ):
        node = run.core.nodes[run.add(dependency, width=width)]
        assert node.opened
        assert node.counts[P] == 0
    assert node.width == 5


def test_upstream_that_ended_in_part_before_the_submission() -> None:
    """Some items have ended, some have not: each waiting item knows which."""
    run = driven()
    up = run.add(width=3, policy=ONE)
    run.end(batch_id=2)
    run.end(Outcome.FAILED, batch_id=1)
    down = run.add(Dependency(up, Reach.ALIGNED), width=None, policy=ONE)
    assert run.states(down) == [P, State.UPSTREAM_FAILED, S]
    run.end(batch_id=0)
    assert run.states(down) == [S, State.UPSTREAM_FAILED, S]


def test_what_never_runs_tells_whose_failure_it_was() -> None:
    """The journal names the task run that failed first, of each item its own, however many nodes lie between."""
    run = driven()
    up = run.add(width=3, policy=ONE)
    down = run.add(Dependency(up, Reach.ALIGNED), width=None, policy=ONE)
    after = run.add(Dependency(down, Reach.ALIGNED), width=None, policy=ONE)
    total = run.add(Dependency(down, Reach.ALL), width=2)
    for outcome in (Outcome.FAILED, Outcome.COMPLETED, Outcome.FAILED):
        run.end(outcome)
    run.finish_all()
    told = {}
    for move in run.all_said(Moved):
        if move.state is State.UPSTREAM_FAILED:
            assert move.roots is not None
            assert (move.roots.node_id, move.roots.task_name) == (up, "t0")
            told |= {(move.node_id, index): move.roots.of(k) for k, index in enumerate(move.indices)}
        else:
            assert move.roots is None
    aligned = {(node, index): (up, index) for node in (down, after) for index in (0, 2)}
    assert told == aligned | {(total, 0): (up, 0), (total, 1): (up, 0)}


@pytest.mark.parametrize("trigger", ["all_successful", "all_finished"])
def test_a_result_that_is_no_list(trigger: str) -> None:
    """Mapping over it is the user's mistake: one item fails, with the cure in its message."""
    run = driven()
    up = run.add()
    policy = Policy() if trigger == "all_successful" else Policy(trigger=all_finished)
    down = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None, policy=policy)
    after = run.add(Dependency(down, Reach.ALIGNED), width=None)
    run.end()
    assert run.states(down) == [State.FAILED]
    assert (
        "t0, which is no list, array or other sequence. Return a list from it, or use submit()"
        in run.reason(down)
    )
    assert run.core.nodes[down].details[0].type_name.endswith("MappingError")
    assert run.states(after) == [State.UPSTREAM_FAILED]
    assert run.core.nodes[after].roots[0] == (down, 0)


def test_mapping_over_what_failed() -> None:
    """There is no list: the one item that stands for the map never ran, because of its upstream."""
    run = driven()
    up = run.add()
    down = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None)
    tolerant = run.add(Dependency(up, Reach.ELEMENTS, (0,), tolerant=True), width=None)
    run.end(Outcome.FAILED)
    assert run.states(down) == [State.UPSTREAM_FAILED]
    assert run.states(tolerant) == [State.FAILED]
    assert "nothing to map over: t0 ended Failed" in run.reason(tolerant)


def test_lists_of_unequal_lengths() -> None:
    """Lengths that are known at run time only are compared at run time."""
    run = driven()
    first, second = run.add(), run.add()
    down = run.add(
        Dependency(first, Reach.ELEMENTS, (0,)), Dependency(second, Reach.ELEMENTS, (0,)), width=None
    )
    run.end(lengths={0: 3})
    assert not run.core.nodes[down].opened
    run.end(lengths={0: 2})
    assert run.states(down) == [State.FAILED]
    assert "unequal lengths" in run.reason(down)


def test_a_known_width_against_a_list_of_another_length() -> None:
    """A static list beside a list from upstream: every item fails rather than run with half of its data."""
    run = driven()
    up = run.add()
    elements = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=2)
    maps = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None)
    aligned = run.add(Dependency(maps, Reach.ALIGNED), width=2)
    run.end(lengths={0: 3})
    assert run.states(elements) == run.states(aligned) == [State.FAILED] * 2
    assert "unequal lengths" in run.reason(aligned)


def test_a_known_width_and_a_list_of_that_length() -> None:
    """A static list beside a list from upstream of equal length is an ordinary map."""
    run = driven()
    up = run.add()
    elements = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=2)
    maps = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None)
    aligned = run.add(Dependency(maps, Reach.ALIGNED), width=2)
    run.end(lengths={0: 2})
    run.finish_all()
    assert run.states(elements) == run.states(aligned) == [C] * 2


def test_recovered_items_count_as_ended() -> None:
    """What an earlier process has stored is Completed at once, and downstream goes on from there."""
    run = driven(slots=0)
    found = Recovered(results={1: (Stored("memory:7", ""), 4)}, attempts={1: 1, 2: 2})
    up = run.add(width=3, policy=ONE, recovered=found)
    down = run.add(Dependency(up, Reach.ALIGNED), width=None, policy=ONE)
    run.tell(SlotsChanged(9))
    assert run.states(up) == [S, C, S]
    assert run.states(down) == [P, S, P]
    assert run.core.nodes[up].stored[1] == (Stored("memory:7", ""), 4)
    assert run.attempts(up, 2) == 3


def test_recovered_items_of_a_map_that_opens_late() -> None:
    """Recovered results of a map whose width is learned are told to what was submitted before."""
    run = driven()
    up = run.add()
    found = Recovered(results={i: (Stored("memory:7", ""), i) for i in range(3)}, width=3)
    maps = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None, recovered=found)
    after = run.add(Dependency(maps, Reach.ALIGNED), width=None, policy=ONE)
    fixed = run.add(Dependency(maps, Reach.ALIGNED), width=3, policy=ONE)
    total = run.add(Dependency(maps, Reach.ALL))
    some = run.add(Dependency(maps, Reach.SOME, (2,)))
    run.end(lengths={0: 3})
    assert run.states(after) == run.states(fixed) == [S] * 3
    assert run.state(total) is run.state(some) is S


def test_recovered_results_of_another_width_are_not_taken_over() -> None:
    """The list has another length this time: item 1 then is not item 1 now."""
    run = driven()
    up = run.add()
    found = Recovered(results={1: (Stored("memory:7", ""), 1)}, width=4)
    maps = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None, recovered=found)
    run.end(lengths={0: 2})
    assert C not in run.states(maps)


@pytest.mark.parametrize("width", [2, 4])
def test_items_that_must_not_run_twice_do_not_start_where_they_cannot_be_told(width: int) -> None:
    """A map of another width: each item may be the one that had started. The reason names cause and cure."""
    run = driven()
    found = Recovered(started=frozenset({1}), width=3)
    node = run.add(width=width, policy=Policy(rerun_on_loss=False, batch=1), recovered=found)
    assert run.states(node) == [State.CRASHED] * width
    assert run.all_said(SubmitBatch) == []
    assert "started 1 of the 3 items" in run.reason(node)
    assert "Resume with the items of then" in run.reason(node)


def test_a_map_of_another_width_of_which_nothing_had_started_runs() -> None:
    """There is nothing that could run twice."""
    run = driven()
    node = run.add(width=2, policy=Policy(rerun_on_loss=False, batch=1), recovered=Recovered(width=3))
    assert run.states(node) == [S, S]


def test_a_recovered_list_can_be_mapped_over() -> None:
    """The length of a stored list comes with it."""
    run = driven()
    found = Recovered(results={0: (Stored("memory:7", ""), 0)}, lengths={0: 6})
    up = run.add(recovered=found)
    down = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None)
    assert run.core.nodes[down].width == 6


def test_the_length_of_a_stored_list_is_journalled() -> None:
    """Beside the attempt whose result it is, so that a resumed run can map over it; only if it is stored."""
    run = driven()
    for stored in (Stored("memory:0", ""), None):
        run.add(width=3, policy=Policy(batch=3))
        run.end([Outcome.FAILED, Outcome.COMPLETED, Outcome.COMPLETED], lengths={2: 7}, stored=stored)
    found, none = run.all_said(AttemptsEnded)
    assert (found.indices, found.lengths) == ([0, 1, 2], {2: 7})
    assert none.lengths == {}
    run.add(width=3, policy=Policy(batch=3))
    run.end([Outcome.UNSTARTED, Outcome.COMPLETED, Outcome.COMPLETED], lengths={2: 7}, stored=stored_at())
    last = run.all_said(AttemptsEnded)[-1]
    assert (last.indices, last.lengths) == ([1, 2], {1: 7})


def stored_at() -> Stored:
    return Stored("memory:9", "")


def test_a_map_that_is_cancelled_before_its_width_is_known() -> None:
    """One item stands for it, is Cancelled, and what maps over it hears of that."""
    run = driven()
    up = run.add()
    down = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None)
    after = run.add(Dependency(down, Reach.ALIGNED), width=None)
    fixed = run.add(Dependency(down, Reach.ALIGNED), width=3)
    one = run.add(Dependency(down, Reach.SOME, (2,)))
    total = run.add(Dependency(down, Reach.ALL))
    run.tell(CancelRequested(down))
    assert run.states(down) == [State.CANCELLED]
    for node_id in (after, fixed, one, total):
        assert set(run.states(node_id)) == {State.UPSTREAM_FAILED}
    run.end(lengths={0: 5})
    assert run.states(down) == [State.CANCELLED]


def test_a_stand_in_never_runs() -> None:
    """`all_finished` over a map that never was has nothing to be called with."""
    run = driven()
    up = run.add()
    maps = run.add(Dependency(up, Reach.ELEMENTS, (0,)), width=None)
    after = run.add(Dependency(maps, Reach.ALIGNED), width=None, policy=Policy(trigger=all_finished))
    run.end(Outcome.FAILED)
    assert run.states(after) == [State.FAILED]
    assert "nothing to map over" in run.reason(after)


def test_an_unknown_upstream_is_refused() -> None:
    """A node that depends on itself, or on one that was never submitted, is a defect of the caller."""
    run = driven()
    with pytest.raises(ValueError, match="depends on node 0"):
        run.add(Dependency(0, Reach.ALL))


def test_deeper_nodes_go_first() -> None:
    """What has been begun is finished before more is begun."""
    run = driven(slots=1)
    up = run.add(width=3, policy=ONE)
    down = run.add(Dependency(up, Reach.ALIGNED), width=None, policy=ONE)
    run.end()
    assert [batch.node_id for batch in run.batches.values()] == [down]


def test_what_follows_a_map_goes_before_the_rest_of_it() -> None:
    """A task run that takes some items of a map is not kept waiting until all others of the map have run."""
    run = driven(slots=1)
    up = run.add(width=3, policy=ONE)
    after = run.add(Dependency(up, Reach.SOME, (0,)))
    further = run.add(Dependency(after, Reach.ALL))
    for down in (after, further):
        run.end()
        assert [batch.node_id for batch in run.batches.values()] == [down]


def test_single_task_runs_go_in_the_order_of_their_submission() -> None:
    """A second step does not keep a first one waiting that was submitted before it."""
    run = driven(slots=1)
    first, second, third = run.add(), run.add(), run.add()
    run.add(Dependency(first, Reach.ALL), Dependency(second, Reach.ALL))
    run.end(moved_bytes=100)
    run.end(moved_bytes=100)
    assert [batch.node_id for batch in run.batches.values()] == [third]


@pytest.mark.parametrize("moved_bytes", [1 << 20, 0], ids=["much", "unknown"])
def test_what_reads_much_goes_first(moved_bytes: int) -> None:
    """Large results are used, and can go, before more of them are made. So are those whose size nobody knows."""
    run = driven(slots=1)
    first, _ = run.add(), run.add()
    reader = run.add(Dependency(first, Reach.ALL))
    run.end(moved_bytes=moved_bytes)
    assert [batch.node_id for batch in run.batches.values()] == [reader]


def test_a_higher_priority_goes_before_depth() -> None:
    """The user's priority decides first."""
    run = driven(slots=1)
    run.add()
    low, high = run.add(), run.add(policy=Policy(priority=3))
    run.end()
    assert [batch.node_id for batch in run.batches.values()] == [high]
    run.end()
    assert [batch.node_id for batch in run.all_said(SubmitBatch)] == [0, high, low]
