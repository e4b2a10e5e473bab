"""Triggers, skips, and whose failure it was."""

from __future__ import annotations

import pytest

from orchestration.core import triggers
from orchestration.core.journal import Moved
from orchestration.core.specs import Dependency, Policy, Reach
from orchestration.core.states import State
from orchestration.core.triggers import Trigger
from orchestration.testing.handdriven import HandDriven
from runners.messages import Detail, Outcome

D, F, K = Outcome.COMPLETED, Outcome.FAILED, Outcome.SKIPPED
ONE = Policy(batch=1)
RUNS, NEVER, SKIPPED = State.SUBMITTED, State.UPSTREAM_FAILED, State.SKIPPED


@pytest.mark.parametrize(
    ("trigger", "outcomes", "expected"),
    [
        (triggers.all_successful, [D, D], RUNS),
        (triggers.all_successful, [D, F], NEVER),
        (triggers.all_successful, [D, K], RUNS),
        (triggers.all_failed, [F, F], RUNS),
        (triggers.all_failed, [D, F], NEVER),
        (triggers.any_successful, [D, F], RUNS),
        (triggers.any_successful, [F, F], NEVER),
        (triggers.any_failed, [D, F], RUNS),
        (triggers.any_failed, [D, D], NEVER),
        (triggers.all_finished, [F, K], RUNS),
        (triggers.not_all_skipped, [K, K], NEVER),
        (triggers.not_all_skipped, [K, D], RUNS),
        (triggers.not_all_skipped, [D, F], NEVER),
        (triggers.some_successful(2), [D, F, D], RUNS),
        (triggers.some_successful(3), [D, F, D], NEVER),
        (triggers.some_successful(0.5), [D, F], RUNS),
        (triggers.some_successful(0.6), [D, F], NEVER),
        (Trigger("mine", lambda t: t.states() == [State.COMPLETED, State.FAILED]), [F, D], RUNS),
    ],
    ids=str,
)
@pytest.mark.parametrize("per_item", [False, True], ids=["node", "item"])
def test_each_trigger(trigger: Trigger, outcomes: list[Outcome], expected: State, per_item: bool) -> None:
    """A trigger holds or not, over a fan-in as over the upstreams of one item."""
    run = HandDriven()
    up = run.add(width=len(outcomes), policy=Policy(batch=len(outcomes)))
    reach = Reach.PICKED if per_item else Reach.ALL
    picks = {1: range(len(outcomes))} if per_item else None
    width = 2 if per_item else 1
    policy = Policy(trigger=trigger, skip_on_upstream_skip=False, batch=1)
    down = run.add(Dependency(up, reach, picks=picks), width=width, policy=policy)
    while up in {batch.node_id for batch in run.batches.values()}:
        batch_id = next(b.batch_id for b in run.batches.values() if b.node_id == up)
        run.end(outcomes[: len(run.batches[batch_id].indices)], batch_id=batch_id)
    assert run.state(down, width - 1) is expected


def test_without_upstream_every_trigger_holds() -> None:
    """There is nothing that could have failed."""
    run = HandDriven()
    empty = run.add(width=0)
    policy = Policy(trigger=triggers.any_successful)
    assert run.state(run.add(policy=policy)) is RUNS
    assert run.state(run.add(Dependency(empty, Reach.ALL), policy=policy)) is RUNS


def test_a_trigger_that_raises() -> None:
    """A user's condition with a mistake in it ends the task run, not the run."""
    run = HandDriven()
    up = run.add()
    broken = Trigger("broken", lambda tally: 1 / 0 > 0)
    down = run.add(Dependency(up, Reach.ALL), policy=Policy(trigger=broken))
    run.end()
    assert run.state(down) is NEVER
    assert run.reason(down) == "its trigger broken raised ZeroDivisionError: division by zero"


def test_skips_go_down_per_index() -> None:
    """What maps over a skipped item is skipped, its neighbours are not."""
    run = HandDriven(slots=9)
    up = run.add(width=3, policy=ONE)
    down = run.add(Dependency(up, Reach.ALIGNED), width=None, policy=ONE)
    last = run.add(Dependency(down, Reach.ALIGNED), width=None, policy=ONE)
    run.end(K, batch_id=1, details={0: Detail(message="too big")})
    run.end(batch_id=0)
    assert run.states(down) == [RUNS, SKIPPED, State.PENDING]
    assert run.states(last) == [State.PENDING, SKIPPED, State.PENDING]
    assert run.reason(up, 1) == "too big"


def test_a_skip_does_not_go_down_where_it_is_not_wanted() -> None:
    """skip_on_upstream_skip=False: the skipped upstream counts as a success."""
    run = HandDriven()
    up = run.add()
    down = run.add(Dependency(up, Reach.ALL), policy=Policy(skip_on_upstream_skip=False))
    run.end(K)
    assert run.state(down) is RUNS


def test_a_skip_goes_before_a_failure() -> None:
    """With one upstream skipped and one failed, the task run is skipped."""
    run = HandDriven()
    one, two = run.add(), run.add()
    down = run.add(Dependency(one, Reach.ALL), Dependency(two, Reach.ALL))
    run.end(F)
    run.end(K)
    assert run.state(down) is SKIPPED


def test_a_tolerated_failure_counts_as_success() -> None:
    """allow_failure: the task runs, and there is no root cause to name."""
    run = HandDriven()
    up = run.add(width=2, policy=Policy(batch=2))
    down = run.add(Dependency(up, Reach.ALL, tolerant=True))
    item = run.add(Dependency(up, Reach.ALIGNED, tolerant=True), width=None, policy=ONE)
    while up in {batch.node_id for batch in run.batches.values()}:
        run.end([F] * len(run.batches[min(run.batches)].indices))
    run.tell_slots(4)
    assert run.state(down) is RUNS
    assert run.states(item) == [RUNS, RUNS]


def test_a_tolerated_failure_is_not_blamed_for_another() -> None:
    """The root cause is the first upstream whose failure was not tolerated."""
    run = HandDriven(slots=4)
    fine, bad = run.add(width=2, policy=ONE), run.add()
    down = run.add(Dependency(fine, Reach.ALL, tolerant=True), Dependency(bad, Reach.ALL))
    for _ in range(3):
        run.end(F)
    assert run.core.nodes[down].roots[0] == (bad, 0)


def test_root_causes_are_named_through_chains() -> None:
    """However far down, the message names the task run that failed first, and how."""
    run = HandDriven(slots=9)
    up = run.add(width=3, policy=ONE, task_name="extract")
    middle = run.add(Dependency(up, Reach.ALIGNED), width=None, policy=ONE)
    last = run.add(Dependency(middle, Reach.ALIGNED), width=None, policy=ONE)
    total = run.add(Dependency(last, Reach.ALL))
    run.end(Outcome.TIMED_OUT, batch_id=2)
    run.end(batch_id=0)
    run.end(batch_id=1)
    while run.batches:
        run.end()
    for node_id, index in ((middle, 2), (last, 2), (total, 0)):
        assert run.state(node_id, index) is NEVER
        assert run.reason(node_id, index) == "extract[2] ended TimedOut"
        assert run.core.nodes[node_id].roots[index] == (up, 2)
    assert run.core.nodes[last].roots.get(0) is None


def test_a_rendered_name_is_used() -> None:
    """Where the task run has a name of its own, the message has it."""
    run = HandDriven()
    up = run.add()
    down = run.add(Dependency(up, Reach.ALL))
    batch = run.batches.pop(0)
    table = run.table(batch, F)
    object.__setattr__(table, "names", {0: "load acme"})
    run.tell_finished(table)
    assert run.reason(down) == "load acme ended Failed"


def test_a_trigger_that_cannot_hold_without_any_failure() -> None:
    """any_failed over successes: the trigger itself is the reason, nobody is blamed."""
    run = HandDriven()
    up = run.add()
    down = run.add(Dependency(up, Reach.ALL), policy=Policy(trigger=triggers.any_failed))
    run.end()
    assert run.reason(down) == "its trigger any_failed does not hold"
    assert run.core.nodes[down].roots.get(0) is None


def test_the_first_failure_by_index_is_the_root_of_a_fan_in() -> None:
    """Of several failures the earliest item is named, whichever ended first."""
    run = HandDriven(slots=9)
    up = run.add(width=4, policy=ONE)
    down = run.add(Dependency(up, Reach.ALL))
    for batch_id in (3, 0, 2, 1):
        run.end(D if batch_id == 0 else F, batch_id=batch_id)
    assert run.core.nodes[down].roots[0] == (up, 1)


def test_the_first_failure_is_the_root_whatever_kind_it_is() -> None:
    """A cancelled item before a failed one is named, and one after it is not."""
    run = HandDriven(slots=9)
    up = run.add(width=4, policy=ONE)
    down = run.add(Dependency(up, Reach.ALL))
    run.cancel(up, 1, 3)
    for batch_id, outcome in enumerate((D, Outcome.CANCELLED, F, Outcome.CANCELLED)):
        run.end(outcome, batch_id=batch_id)
    assert run.core.nodes[down].roots[0] == (up, 1)
    assert run.reason(down) == "t0[1] ended Cancelled"


def test_many_items_that_never_ran_make_few_entries() -> None:
    """A thousand items below a thousand cancelled ones are journalled at once, each with its own root."""
    run = HandDriven(slots=0)
    up = run.add(width=1000)
    down = run.add(Dependency(up, Reach.ALIGNED), width=None)
    total = run.add(Dependency(up, Reach.ALL), width=1000)
    run.cancel(up)
    assert set(run.states(down)) == set(run.states(total)) == {NEVER}
    assert run.core.nodes[down].roots[700] == (up, 700)
    assert run.core.nodes[total].roots[700] == (up, 0)
    assert len(run.all_said(Moved)) == 3
