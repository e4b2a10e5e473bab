"""What batches are made of, and what they have in common."""

from __future__ import annotations

from array import array
from typing import Any

from orchestration.core.batching import Sizer
from orchestration.core.commands import Fused, SubmitBatch
from orchestration.core.records import MAIN, Node
from orchestration.core.specs import NodeSpec
from orchestration.driver.packing import NodePayload, Packer
from runners.arguments import Aligned, Column, Source, Static
from runners.body import TaskBody
from runners.context import RunContext
from runners.messages import Batch
from runners.worker import run_batch

WIDTH = 6


class Nowhere:
    """A channel that nobody listens to."""

    def emit(self, event: Any) -> None:
        pass

    def call(self, *args: Any) -> bytes:
        raise AssertionError("nothing here asks")


def add(x: int, y: int = 1) -> int:
    return x + y


def grow(values: list[int], more: list[int]) -> int:
    more.append(len(values))
    return len(more)


def batches(second: TaskBody, *sources: Source) -> list[Batch]:
    """Return two batches of a map over `add(0..5)`, whose items are called with these sources."""
    nodes = {n: Node(NodeSpec(n, f"n{n}", f"n{n}", "map", WIDTH), Sizer()) for n in range(2)}
    for node in nodes.values():
        node.open(WIDTH)
    packer = Packer(RunContext("r", "n", "f"), nodes, in_process=False, keeps=True)
    packer.add(0, NodePayload(TaskBody(add, "add"), (Column(range(WIDTH)),), {}))
    packer.add(1, NodePayload(second, sources, {}))
    once = array("I", [1]) * 3
    return [
        packer.pack(SubmitBatch(n, 0, part, once, MAIN, None, False, (Fused(1, once),)))
        for n, part in enumerate((range(3), range(3, WIDTH)))
    ]


def results(batch: Batch) -> list[Any]:
    return list(run_batch(batch, [], Nowhere(), in_process=False)[0])


def test_what_a_stage_leaves_for_the_next_is_said_once() -> None:
    """A map over a map costs the flow's process no pickle per batch: its arguments are the same in all of them."""
    one, other = batches(TaskBody(add, "add"), Aligned(0, None), Static(10))
    assert one.stages[1].arguments is other.stages[1].arguments
    assert one.stages[1].arguments.digest  # workers keep it
    assert results(one) == [[1, 2, 3], [11, 12, 13]]
    assert results(other) == [[4, 5, 6], [14, 15, 16]]


def test_what_differs_between_items_is_cut_for_each_batch() -> None:
    """A further column, or other items than those with the same index, belong to the batch."""
    for source, expected in ((Column([0, 10, 20, 30, 40, 50]), [34, 45, 56]), (Static(2), [6, 7, 8])):
        one, other = batches(TaskBody(add, "add"), Aligned(0, None), source)
        assert (one.stages[1].arguments is other.stages[1].arguments) is isinstance(source, Static)
        assert results(other)[1] == expected


def test_what_a_batch_does_to_shared_values_stays_its_own() -> None:
    """Arguments that workers keep have no value of the user's in them."""
    one, other = batches(TaskBody(lambda x, more: grow([x], more), "grow"), Aligned(0, None), Static([]))
    assert results(one)[1] == results(other)[1] == [1, 2, 3]
