"""What runs of a flow teach later ones in the same process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestration.api import lessons
from orchestration.core.batching import MAX_ITEMS, Lesson
from orchestration.core.coordinator import Coordinator
from orchestration.testing.handdriven import HandDriven


def flow_function(number: int) -> Callable[[], int]:
    """Return a function whose code is its own."""
    space: dict[str, Any] = {}
    exec(f"def main(): return {number}", space)
    main: Callable[[], int] = space["main"]
    return main


def test_a_run_teaches_the_next() -> None:
    """Times per item by task; a task that nothing is known of teaches nothing."""
    run = HandDriven(slots=1)
    run.add(width=1, task_name="quick")
    run.end(seconds=0.001)
    run.add(width=1, task_name="never ended")
    taught = run.core.lessons()
    assert taught == {"quick": Lesson(0.001, 0.0)}
    later = HandDriven(slots=1)
    later.core = Coordinator("later", lambda: 0.5, lessons=taught)
    later.tell_slots(1)
    later.add(width=1000, task_name="quick")
    (batch,) = later.batches.values()
    assert 1 < len(batch.indices) <= 10 < MAX_ITEMS


def test_flows_are_known_by_their_code() -> None:
    """A flow that was defined anew with other code, or on another runner, begins with nothing."""
    first, other = flow_function(1), flow_function(2)
    lessons.remember(first, "dask", {"t": Lesson(0.5, 1.0)})
    lessons.remember(first, "dask", {"u": Lesson(0.1, 1.0)})
    assert lessons.recall(flow_function(1), "dask") == {"t": Lesson(0.5, 1.0), "u": Lesson(0.1, 1.0)}
    assert lessons.recall(first, "ray") == lessons.recall(other, "dask") == {}


def test_what_was_used_longest_ago_is_forgotten() -> None:
    functions = [flow_function(n) for n in range(lessons.MAX_FLOWS + 1)]
    for function in functions:
        lessons.remember(function, "threads", {"t": Lesson(1.0, 0.0)})
    assert lessons.recall(functions[0], "threads") == {}
    assert lessons.recall(functions[-1], "threads") == {"t": Lesson(1.0, 0.0)}
