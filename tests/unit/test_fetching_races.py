"""What threads that fetch results see of nodes while the driver's thread changes them.

Nothing is locked: the columns are written in such an order that whoever reads between two statements finds the
result, or that it is gone and being made again.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.api.fetching import Fetching
from orchestration.core.events import ResultsWanted
from orchestration.core.records import Node
from orchestration.core.specs import Policy
from orchestration.errors import InternalError
from orchestration.testing.handdriven import HandDriven
from runners.messages import Stored

FILE = Stored("file:///r/1", "abc")


class Watched(array):  # type: ignore[type-arg]
    """The column that tells in which batch results are: calls `look` right after each change."""

    look: Callable[[], None]

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.look()


def watch(node: Node, look: Callable[[], None]) -> None:
    column = Watched("i", node.batches)
    column.look = look
    node.batches = column


def fetching(run: HandDriven) -> Fetching:
    """Return what fetches from a runner whose results say in which batch and where in it they are."""

    def fetch_many(wanted: Sequence[tuple[int, int, Sequence[int]]]) -> list[list[Any]]:
        return [[(batch_id, p) for p in positions] for batch_id, _, positions in wanted]

    driver = SimpleNamespace(
        core=run.core,
        runner=SimpleNamespace(fetch_many=fetch_many),
        post=run.tell,
        do=lambda act: act(),
        board=SimpleNamespace(poke=lambda: None, written=lambda: True, wait=lambda ready: ready()),
    )
    inline = SimpleNamespace(kept=lambda batch_id: None, problem=lambda *_: InternalError("it is nowhere"))
    session: Any = SimpleNamespace(driver=driver, inline=inline, closed=False, lent=lambda act: act())
    return Fetching(session)


def lose_one(run: HandDriven) -> Node:
    """Have a batch of two complete and lose its results, of which the second is then being made again."""
    up = run.add(width=2, policy=Policy(batch=2))
    run.end()
    run.lose_results(0)
    run.tell(ResultsWanted(up, (1,)))
    assert [list(batch.indices) for batch in run.batches.values()] == [[1]]
    return run.core.nodes[up]


def test_a_result_that_comes_back_while_it_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not there when its place was looked up, and is not gone when that is looked at."""
    run = HandDriven()
    node, gone = lose_one(run), Node.gone

    def comes_back(self: Node, index: int) -> bool:
        monkeypatch.undo()
        run.end()
        return gone(self, index)

    monkeypatch.setattr(Node, "gone", comes_back)
    assert list(fetching(run).outcomes(node.node_id, (1,), False)) == [((1, 0), None)]


def test_where_a_result_is_made_again_is_told_last() -> None:
    """Its position and its file are known before its batch is: else a reader would get another item's result."""
    run = HandDriven()
    node = lose_one(run)
    assert node.positions[1] == 1
    seen: list[Any] = []
    watch(node, lambda: seen.append((node.location(1), node.stored.get(1))))
    run.end(stored=FILE)
    assert seen == [((1, 0), (FILE, 0))]


def test_a_result_that_goes_is_gone_at_once() -> None:
    """It is never nowhere, which a reader would have to take for a defect."""
    run = HandDriven()
    run.add()
    run.end()
    node = run.core.nodes[0]
    seen: list[bool] = []
    watch(node, lambda: seen.append(node.gone(0)))
    run.lose_results(0)
    assert seen == [True]
