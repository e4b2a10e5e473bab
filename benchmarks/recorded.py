"""Runs as they would stand in a store, written there directly: what it takes to read them is the question."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from orchestration.core.journal import AttemptsEnded, Counted, Entry, NodeAdded, RunMoved
from orchestration.core.states import RunState, State
from orchestration.stores.base import RunRow, Store
from runners.messages import Detail, Outcome

WORKERS = 8
SECONDS = 0.01  # that each attempt takes
TROUBLE = Detail(
    "ValueError", "no such customer", "Traceback (most recent call last):\nValueError: no such customer"
)


def record(
    store: Store,
    number: int,
    items: int,
    *,
    created: float,
    batch: int = 50,
    failed: int = 997,
    retried: int = 97,
) -> str:
    """Write a run of one map that has ended; return its id.

    Args:
        number: of the run; from it come its id, its name and which of ten flows it is a run of.
        batch: items that came back together.
        failed, retried: one item in so many.
    """
    run_id = f"{number:08x}{0:024x}"
    store.create_run(
        RunRow(run_id, f"run-{number}", f"flow-{number % 10}", created=created, heartbeat=created)
    )
    bad = sum(index % failed == failed - 1 for index in range(items))
    counts = [0] * len(State)
    counts[State.COMPLETED], counts[State.FAILED] = items - bad, bad
    ended = created + SECONDS * items / WORKERS
    entries: list[Entry] = [
        RunMoved(RunState.RUNNING, created),
        NodeAdded(0, "work-0", "work", "map", items, created),
        *_attempts(items, created, batch, failed, retried),
        Counted(0, tuple(counts)),
        RunMoved(RunState.FAILED if bad else RunState.COMPLETED, ended),
    ]
    store.append(run_id, 1, entries)
    return run_id


def _attempts(items: int, created: float, batch: int, failed: int, retried: int) -> Iterator[AttemptsEnded]:
    """Yield batches as workers send them, one after the other on each."""
    for number, first in enumerate(range(0, items, batch)):
        indices = range(first, min(items, first + batch))
        began = created + SECONDS * batch * (number // WORKERS)
        again = [index for index in indices if index % retried == retried - 1]
        if again:
            yield _ended(2 * number, again, 1, began, State.AWAITING_RETRY, failed)
        yield _ended(2 * number + 1, indices, 2 if again else 1, began, State.COMPLETED, failed)


def _ended(
    number: int, indices: range | list[int], attempt: int, began: float, state: State, failed: int
) -> AttemptsEnded:
    n = len(indices)
    bad = [state is not State.COMPLETED or index % failed == failed - 1 for index in indices]
    after = state if state is not State.COMPLETED else State.FAILED
    return AttemptsEnded(
        0, number, f"x{number}", f"host:{1000 + number // 2 % WORKERS}", began + SECONDS * n, indices,
        array("I", [attempt]) * n,
        bytes(Outcome.FAILED if one else Outcome.COMPLETED for one in bad),
        bytes(after if one else State.COMPLETED for one in bad),
        array("d", [began + SECONDS * k for k in range(n)]), array("d", [SECONDS]) * n, range(n),
        {k: TROUBLE for k, one in enumerate(bad) if one},
    )  # fmt: skip
