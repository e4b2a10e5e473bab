"""Well-formed messages that cannot be about the batch that they name: nothing of the run's state is hurt."""

from __future__ import annotations

import random
from array import array

import pytest

from orchestration.core import invariants
from orchestration.core.fitting import MISFIT
from orchestration.core.journal import AttemptsEnded
from orchestration.core.specs import Dependency, Policy, Reach
from orchestration.core.states import TERMINAL, State
from orchestration.testing.handdriven import HandDriven
from runners.messages import (
    BatchFinished,
    BatchProgress,
    BatchStarted,
    Detail,
    LogLine,
    Outcome,
    Stored,
    Table,
)

DONE = Outcome.COMPLETED


def strange(batch_id: int, rng: random.Random) -> BatchStarted | BatchProgress | BatchFinished:
    """Return a message about a batch with numbers that may be anything."""
    n, execution = rng.randint(0, 6), rng.choice("xy")
    outcomes = bytes(rng.choice(list(Outcome)) for _ in range(n))
    details = {k: Detail("E", "m", abandoned=rng.random() < 0.5) for k in range(n) if rng.random() < 0.3}
    lines = (LogLine(0, rng.choice([-1, 0, 99]), rng.choice([0, 5, -1]), 0.0, 20, "l", "m"),)
    kind = rng.randint(0, 3)
    if kind == 0:
        return BatchStarted(batch_id, execution, "w", rng.uniform(-1e9, 1e9))
    if kind == 1:
        entry = rng.choice([-5, 0, 1, 7, 10**6])
        return BatchProgress(
            batch_id,
            execution,
            "w",
            entry,
            rng.uniform(-1, 1e9),
            outcomes,
            details,
            lines * rng.randint(0, 1),
        )
    return BatchFinished(
        Table(
            batch_id,
            execution,
            "w",
            rng.uniform(-1, 1e9),
            outcomes,
            array("d", [rng.uniform(-5, 5) for _ in range(n)]),
            array("d", [rng.uniform(-1, 5) for _ in range(n)]),
            details,
            lengths={k: rng.choice([-3, 0, 5]) for k in range(n) if rng.random() < 0.3},
            logs=lines * rng.randint(0, 1),
            missing=tuple(rng.choice([-1, 0, batch_id, 77]) for _ in range(rng.randint(0, 2))),
            stored=(Stored("u", "d"),) * rng.choice([0, 0, 1, 3]),
            moved_bytes=rng.choice([0, -5, 2**50]),
            cpu_seconds=-3.0,
        )
    )


@pytest.mark.parametrize("block", range(4))
def test_strange_messages_break_nothing(block: int) -> None:
    """Maps over maps whose batches are answered with nonsense keep their invariants, and end when sense returns."""
    for seed in range(200 * block, 200 * block + 200):
        rng = random.Random(seed)
        run = HandDriven(slots=2)
        up = run.add(width=rng.randint(1, 4), policy=Policy(batch=3, retries_on_loss=9), task_name="a")
        run.add(Dependency(up, Reach.ALIGNED), width=run.core.nodes[up].width, task_name="b")
        for _ in range(4):
            if not run.batches:
                break
            message = strange(rng.choice(list(run.batches)), rng)
            run.tell(message)
            if isinstance(message, BatchFinished):
                run.batches.pop(message.table.batch_id, None)
            invariants.check(run.core)
        for _ in range(60):
            if all(
                state in TERMINAL for node in run.core.nodes.values() for state in map(State, node.states)
            ):
                break
            if run.batches:
                run.end(DONE, batch_id=min(run.batches))
            else:
                run.wait(60.0)
        else:
            pytest.fail(f"seed {seed}: not all task runs have ended")


def test_a_table_of_another_size_is_no_record() -> None:
    """The batch counts as lost, its items run again, and the reason says why."""
    run = HandDriven(slots=1)
    node = run.add(width=2, policy=Policy(batch=2))
    (batch,) = run.batches.values()
    one = array("d", [0.0])
    run.tell(BatchFinished(Table(batch.batch_id, "x", "w", 0.0, bytes([DONE]), one, one)))
    assert [end.reason for end in run.all_said(AttemptsEnded)] == [MISFIT]
    run.batches.pop(batch.batch_id, None)
    while run.batches:
        run.end(DONE)
    assert run.states(node) == [State.COMPLETED] * 2
