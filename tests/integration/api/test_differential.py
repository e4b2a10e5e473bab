"""Random flows give the same on every runner, and what a naive interpreter in plain Python gives.

A flow is plain data: a list of nodes, each with its upstream, its policy and a plan that says for each item and
attempt how it ends. One flow function interprets it. Compared are results, and the record: states, attempts and
error types by the node's path and index.

MILLRACE_EXAMPLES sets the number of examples for Dask and Ray (default 6; sequential and threads: 10 times that).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration import (
    Fail,
    Skip,
    all_failed,
    all_finished,
    all_successful,
    allow_failure,
    any_failed,
    any_successful,
    flow,
    not_all_skipped,
    runtime,
    task,
)
from orchestration.stores import open_store
from runners.messages import Outcome

EXAMPLES = int(os.environ.get("MILLRACE_EXAMPLES", "6"))
TRIGGERS = {
    trigger.name: trigger
    for trigger in (all_successful, all_failed, any_failed, any_successful, all_finished, not_all_skipped)
}
OK, ERROR, SKIP, FAIL = "ok", "error", "skip", "fail"


@dataclass(frozen=True)
class Plan:
    """One node.

    Attributes:
        shape: "single", "map" (over a literal list), "over" (a map over upstream node `ups[0]`), "late" (a map
            over the list that the one item of `ups[0]` returns), "join" (all items of all `ups`, nested).
        ups: positions of upstream nodes; beyond what `shape` says they are only waited for.
        ends: how attempt a of item i ends: ends[i % len][a], the last entry repeating.
    """

    shape: str
    width: int = 1
    ups: tuple[int, ...] = ()
    ends: tuple[tuple[str, ...], ...] = ((OK,),)
    retries: int = 0
    trigger: str = "all_successful"
    spread_skips: bool = True
    tolerant: bool = False
    listy: bool = False  # results are lists, so that a map may be over them

    def end(self, index: int, attempt: int) -> str:
        ends = self.ends[index % len(self.ends)]
        return ends[min(attempt, len(ends)) - 1]


@dataclass
class Item:
    """How an item ends."""

    state: str
    attempts: int
    value: Any = None
    error: str = ""
    hollow: bool = False  # it stands for a map that had nothing to map over


# --- the flow -------------------------------------------------------------------------------------


def result_of(name: int, index: int, seen: Any, listy: bool) -> Any:
    value = [name, index, seen]
    return [value] * (index % 3) if listy else value


def shown(value: Any) -> Any:
    """Stand for exceptions by their type, wherever they are."""
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, list | tuple):
        return [shown(part) for part in value]
    if isinstance(value, dict):
        return {key: shown(part) for key, part in value.items()}
    return value


@task
def act(name: int, plan: Plan, seen: Any = None, item: Any = None) -> Any:
    index, attempt = runtime.task_run.index or 0, runtime.task_run.attempt or 0
    end = plan.end(index, attempt)
    if end == ERROR:
        raise ValueError(f"{name}.{index}.{attempt}")
    if end == SKIP:
        raise Skip(f"{name}.{index}")
    if end == FAIL:
        raise Fail(f"{name}.{index}")
    return result_of(name, index, shown(item if plan.shape in ("map", "over", "late") else seen), plan.listy)


def submit(name: int, plan: Plan, futures: list[Any]) -> Any:
    """Submit one node."""
    from orchestration import unmapped

    chosen = act.with_options(
        name=f"n{name}",
        retries=plan.retries,
        trigger=TRIGGERS[plan.trigger],
        skip_on_upstream_skip=plan.spread_skips,
    )
    wrap = allow_failure if plan.tolerant else (lambda future: future)
    ups = [futures[up] for up in plan.ups]
    if plan.shape == "single":
        return chosen.submit(name, plan, wait_for=[wrap(up) for up in ups])
    if plan.shape == "join":
        return chosen.submit(name, plan, {"ups": [wrap(up) for up in ups]})
    if plan.shape == "map":
        waits = [wrap(up) for up in ups]
        return chosen.map(name, unmapped(plan), None, list(range(plan.width)), wait_for=waits)
    source, waits = ups[0], [wrap(up) for up in ups[1:]]
    return chosen.map(name, unmapped(plan), None, wrap(source), wait_for=waits)


def interpret(plans: list[Plan]) -> list[Any]:
    futures: list[Any] = []
    for name, plan in enumerate(plans):
        futures.append(submit(name, plan, futures))
    results = []
    for future in futures:
        got = future.result(raise_on_failure=False)
        results.append(shown(got))
    return results


# --- the reference --------------------------------------------------------------------------------

FAILED = ("Failed", "UpstreamFailed")


def reference(plans: list[Plan]) -> list[list[Item]]:
    """Return how each item of each node ends, by going through them in order."""
    nodes: list[list[Item]] = []
    for name, plan in enumerate(plans):
        ups = [nodes[up] for up in plan.ups]
        nodes.append(_node(name, plan, ups, [plans[up] for up in plan.ups]))
    return nodes


def _node(name: int, plan: Plan, ups: list[list[Item]], plans: list[Plan]) -> list[Item]:
    everything = [item for up in ups for item in up]
    if plan.shape == "single":
        return [_item(name, plan, 0, everything, None)]
    if plan.shape == "join":
        seen = {"ups": [_arrives(p, up) for p, up in zip(plans, ups, strict=True)]}
        return [_item(name, plan, 0, everything, seen)]
    if plan.shape == "map":
        return [_item(name, plan, i, everything, i) for i in range(plan.width)]
    rest = [item for up in ups[1:] for item in up]
    if plan.shape == "over" and [up.hollow for up in ups[0]] == [True]:
        return [_unusable(plan, [ups[0][0], *rest])]
    if plan.shape == "over":
        return [_item(name, plan, i, [up, *rest], _value(up)) for i, up in enumerate(ups[0])]
    (source,) = ups[0]
    if source.state != "Completed":
        return [_unusable(plan, [source, *rest])]
    return [_item(name, plan, i, [source, *rest], part) for i, part in enumerate(source.value)]


def _arrives(plan: Plan, items: list[Item]) -> Any:
    values = [_value(item) for item in items]
    return values[0] if plan.shape in ("single", "join") else values


def _value(item: Item) -> Any:
    if item.state == "Completed":
        return item.value
    return None if item.state == "Skipped" else item.error


def _judged(plan: Plan, ups: list[Item]) -> Item | None:
    """Return how an item ends that does not run, or None."""
    states = [up.state for up in ups]
    if plan.spread_skips and "Skipped" in states:
        return Item("Skipped", 0)
    bad = sum(state in FAILED for state in states)
    skipped = states.count("Skipped")
    good, total = len(states) - bad, len(states)
    if plan.tolerant:
        good, bad = total, 0
    holds = {
        "all_successful": not bad,
        "all_failed": bad == total,
        "any_failed": bad > 0,
        "any_successful": good > 0,
        "all_finished": True,
        "not_all_skipped": skipped < total and not bad,
    }[plan.trigger]
    return None if holds or not total else Item("UpstreamFailed", 0, error="UpstreamFailedError")


def _unusable(plan: Plan, ups: list[Item]) -> Item:
    ended = _judged(plan, ups) or Item("Failed", 0, error="MappingError")
    return replace(ended, hollow=True)


def _item(name: int, plan: Plan, index: int, ups: list[Item], seen: Any) -> Item:
    ended = _judged(plan, ups)
    if ended is not None:
        return ended
    for attempt in range(1, plan.retries + 2):
        end = plan.end(index, attempt)
        if end == OK:
            return Item("Completed", attempt, result_of(name, index, seen, plan.listy))
        if end == SKIP:
            return Item("Skipped", attempt)
        if end == FAIL or attempt == plan.retries + 1:
            return Item("Failed", attempt, error="Fail" if end == FAIL else "ValueError")
    raise AssertionError("the loop always returns")


# --- random plans ---------------------------------------------------------------------------------


@st.composite
def flows(draw: st.DrawFn) -> list[Plan]:
    """Flows of up to seven nodes."""
    plans: list[Plan] = []
    attempts = st.lists(st.sampled_from([OK, OK, OK, ERROR, ERROR, SKIP, FAIL]), min_size=1, max_size=3).map(
        tuple
    )
    for name in range(draw(st.integers(1, 7))):
        maps = [n for n, p in enumerate(plans) if p.shape in ("map", "over", "late")]
        lists = [n for n, p in enumerate(plans) if p.shape in ("single", "join") and p.listy]
        shapes = ["single", "map"] + ["join"] * 2 * bool(plans) + ["over"] * 3 * bool(maps)
        shape = draw(st.sampled_from(shapes + ["late"] * 3 * bool(lists)))
        extra = draw(st.lists(st.sampled_from(range(name)), max_size=3, unique=True)) if name else []
        if shape == "over":
            extra = [draw(st.sampled_from(maps)), *extra[:1]]
        elif shape == "late":
            extra = [draw(st.sampled_from(lists)), *extra[:1]]
        plans.append(
            Plan(
                shape=shape,
                width=draw(st.integers(0, 5)),
                ups=tuple(dict.fromkeys(extra)),
                ends=tuple(draw(st.lists(attempts, min_size=1, max_size=4))),
                retries=draw(st.integers(0, 2)),
                trigger=draw(st.sampled_from(["all_successful"] * 4 + sorted(TRIGGERS))),
                spread_skips=draw(st.booleans()),
                tolerant=draw(st.booleans()) if draw(st.booleans()) else False,
                listy=draw(st.booleans()),
            )
        )
    return plans


# --- the comparison -------------------------------------------------------------------------------


def recorded(run_id: str, n_nodes: int) -> list[list[Item]]:
    """Return how the items of each node ended, by the store's record."""
    store = open_store(None)
    nodes: list[list[Item]] = [[] for _ in range(n_nodes)]
    names = {node.node_id: int(node.path.split("-")[0][1:]) for node in store.nodes(run_id)}
    for row in store.task_runs(run_id, limit=1_000_000):
        attempts = store.attempts(run_id, row.node_id, row.index)
        assert len(attempts) == row.attempts, (row, attempts)
        kinds = [Outcome(a.outcome).name for a in attempts]
        assert all(kind == "FAILED" for kind in kinds[:-1]), kinds
        error = row.detail.type_name.rpartition(".")[2] if row.detail is not None else ""
        nodes[names[row.node_id]].append(Item(row.state.title, row.attempts, error=error))
    return nodes


def check(plans: list[Plan], runner: Any) -> None:
    """Run a flow and compare it with the reference."""
    run_ids: list[str] = []

    @flow(task_runner=runner, validate_parameters=False)
    def main(plans: list[Plan]) -> Any:
        run_ids.append(str(runtime.flow_run.id))
        return {"results": interpret(plans)}

    results = main(plans)["results"]
    expected = reference(plans)
    wanted = [_arrives(plan, items) for plan, items in zip(plans, expected, strict=True)]
    assert results == wanted
    for name, (got, want) in enumerate(zip(recorded(run_ids[0], len(plans)), expected, strict=True)):
        assert [(i.state, i.attempts) for i in got] == [(i.state, i.attempts) for i in want], name
        for item, ideal in zip(got, want, strict=True):
            if ideal.state == "Failed" and ideal.attempts:
                assert item.error == ideal.error, name


QUICK = settings(
    max_examples=10 * EXAMPLES,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=list(HealthCheck),
)
SLOW = settings(QUICK, max_examples=EXAMPLES)


@QUICK
@given(plans=flows())
def test_local_runners(local_runner: Any, millrace_home: Path, plans: list[Plan]) -> None:
    """Random flows end on sequential and threads as the reference says."""
    check(plans, local_runner)


@SLOW
@given(plans=flows())
def test_process_runners(process_runner: Any, millrace_home: Path, plans: list[Plan]) -> None:
    """Random flows end on Dask and Ray as the reference says."""
    check(plans, process_runner)


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever may share a batch does so from the first one on."""
    monkeypatch.setattr("orchestration.core.fusing.short", lambda node: True)
    monkeypatch.setattr("orchestration.core.batching.FIRST_SIZE", 10_000)


@QUICK
@given(plans=flows())
def test_local_runners_in_crowded_batches(
    crowded: None, local_runner: Any, millrace_home: Path, plans: list[Plan]
) -> None:
    """Fused and large batches change nothing on sequential and threads."""
    check(plans, local_runner)


@SLOW
@given(plans=flows())
def test_process_runners_in_crowded_batches(
    crowded: None, process_runner: Any, millrace_home: Path, plans: list[Plan]
) -> None:
    """Fused and large batches change nothing on Dask and Ray."""
    check(plans, process_runner)


def test_known_flows(runner: Any, millrace_home: Path) -> None:
    """A flow with everything in it, the same on every run."""
    plans = [
        Plan("map", 5, ends=((OK,), (ERROR, OK), (SKIP,), (FAIL,), (ERROR,)), retries=1),
        Plan("over", ups=(0,), trigger="all_finished", spread_skips=False),
        Plan("over", ups=(0,), tolerant=True),
        Plan("join", ups=(0, 1, 2), tolerant=True, spread_skips=False),
        Plan("single", listy=True),
        Plan("late", ups=(4,)),
        Plan("join", ups=(5, 1)),
        Plan("single", ups=(0,), trigger="any_failed", spread_skips=False),
        Plan("map", 0, ups=(3,)),
        Plan("join", ups=(8,)),
    ]
    check(plans, runner)


def test_known_flows_in_crowded_batches(crowded: None, runner: Any, millrace_home: Path) -> None:
    """Chains of maps and of single tasks that fail, skip and are tried again at every stage."""
    plans = [
        Plan("map", 6, ends=((OK,), (ERROR, OK), (SKIP,), (FAIL,), (ERROR,), (OK,)), retries=1),
        Plan("over", ups=(0,), ends=((OK,), (ERROR, OK)), retries=1),
        Plan("over", ups=(1,), ends=((OK,), (OK,), (OK,), (OK,), (OK,), (ERROR,))),
        Plan("over", ups=(2,), trigger="all_finished", spread_skips=False),
        Plan("join", ups=(2, 3), tolerant=True, spread_skips=False),
        Plan("single", ups=(4,)),
        Plan("single", ups=(5,), ends=((ERROR, OK),), retries=1),
    ]
    check(plans, runner)
