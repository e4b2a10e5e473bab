"""The checker finds what is wrong: a history that has been tampered with does not pass for a good one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faultkit.bench import Trial
from faultkit.plan import Node, Plan

PLAN = Plan(
    (
        Node("t0", 6, retries=1, flaky={1: 1}, skips=(2,), fatal=(3,)),
        Node("t1", 6, source=0),
        Node("t2", 2, once=True),
    ),
    persist=True,
)
NEW = "0123456789abcdef:0"  # an execution that the record does not know


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """A run of the plan to which nothing has happened."""
    trial = Trial(1, tmp_path_factory.mktemp("checker"))
    trial.finish(trial.start(PLAN, {"kind": "sequential"}))
    yield trial
    trial.close()


def judged(ended: Trial, tmp_path: Path, change: Any, plan: Plan = PLAN) -> list[str]:
    """Return what the checker says when the lines of the history have been changed."""
    lines = [json.loads(line) for line in ended.history_path.read_text().splitlines()]
    original, ended.history_path = ended.history_path, tmp_path / "history"
    ended.history_path.write_text("".join(f"{json.dumps(line)}\n" for line in change(lines)))
    try:
        return ended.check(plan).violations
    finally:
        ended.history_path = original


def again(name: str, index: int, **change: Any) -> Any:
    """Run an item's last execution once more at the end of the history."""

    def changed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        own = [line for line in lines if line.get("n") == name and line.get("i") == index][-2:]
        return lines + [{**line, **change} for line in own]

    return changed


def test_what_was_good_passes(ended: Trial, tmp_path: Path) -> None:
    """The history as it is has nothing wrong."""
    assert judged(ended, tmp_path, lambda lines: lines) == []


@pytest.mark.parametrize(
    ("name", "index"), [("t0", 0), ("t0", 1), ("t0", 2), ("t0", 3), ("t1", 0), ("t2", 1)]
)
@pytest.mark.parametrize("execution", [{}, {"x": NEW}])
def test_a_start_without_a_reason_is_found(
    ended: Trial, tmp_path: Path, name: str, index: int, execution: dict[str, str]
) -> None:
    """Whether it is known by name or not, and whether the item completed, failed or was skipped before it."""
    found = judged(ended, tmp_path, again(name, index, **execution))
    assert any(told.startswith("forbidden") for told in found)
    assert not execution or any(told.startswith("unrecorded") for told in found)


def test_a_missing_execution_and_a_missing_result_are_found(ended: Trial, tmp_path: Path) -> None:
    """Completed without an execution; an execution whose value is another; a flow that got nothing."""
    without = lambda lines: [line for line in lines if (line.get("n"), line.get("i")) != ("t1", 0)]  # noqa: E731
    assert any("no execution has made its value" in told for told in judged(ended, tmp_path, without))
    other = lambda lines: [{**line, "v": 1} if "v" in line else line for line in lines]  # noqa: E731
    assert any("no execution has made its value" in told for told in judged(ended, tmp_path, other))
    nothing = lambda lines: [line for line in lines if line["e"] != "results"]  # noqa: E731
    assert any("the flow got None" in told for told in judged(ended, tmp_path, nothing))


def test_a_wrong_state_is_found(ended: Trial, tmp_path: Path) -> None:
    """The record says of items what the plan does not."""
    first, *rest = PLAN.nodes
    plan = Plan((replace(first, skips=(4,)), *rest), persist=True)
    found = judged(ended, tmp_path, lambda lines: lines, plan)
    assert {told.partition(" is ")[0] for told in found if "wrong" in told} >= {
        "wrong: t0[2]",
        "wrong: t0[4]",
    }
