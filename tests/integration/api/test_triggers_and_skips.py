"""Triggers, `Skip`, and what follows from them, per index."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration import (
    Skip,
    all_failed,
    all_finished,
    all_successful,
    any_failed,
    any_successful,
    flow,
    not_all_skipped,
    some_successful,
    task,
)
from runners.base import TaskRunner


@task
def act(how: str) -> str:
    if how == "fail":
        raise ValueError(how)
    if how == "skip":
        raise Skip("not today")
    return how


@task
def after(*values: Any) -> list[Any]:
    return [type(v).__name__ if isinstance(v, Exception) else v for v in values]


F, S, C = "fail", "skip", "ok"

CASES = [
    (all_successful, (C, C), "Completed"),
    (all_successful, (C, F), "UpstreamFailed"),
    (all_failed, (F, F), "Completed"),
    (all_failed, (F, C), "UpstreamFailed"),
    (any_successful, (F, C), "Completed"),
    (any_successful, (F, F), "UpstreamFailed"),
    (any_failed, (F, C), "Completed"),
    (any_failed, (C, C), "UpstreamFailed"),
    (all_finished, (F, F), "Completed"),
    (all_finished, (C, S), "Skipped"),
    (some_successful(2), (C, C, F), "Completed"),
    (some_successful(2), (C, F, F), "UpstreamFailed"),
]


@pytest.mark.parametrize(("trigger", "ends", "expected"), CASES)
def test_triggers(local_runner: TaskRunner, trigger: Any, ends: tuple[str, ...], expected: str) -> None:
    """Each trigger decides from how its upstream ended."""

    @flow(task_runner=local_runner)
    def triggered() -> str:
        futures = [act.submit(how) for how in ends]
        last = after.with_options(trigger=trigger).submit(*futures)
        last.wait()
        return last.state.type

    assert triggered() == expected


def test_triggers_on_every_runner(runner: TaskRunner) -> None:
    """All triggers in one flow give the same on every runner."""

    @flow(task_runner=runner)
    def triggered() -> list[str]:
        lasts = []
        for trigger, ends, _ in CASES:
            futures = act.map(ends)
            lasts.append(after.with_options(trigger=trigger).submit(*futures))
        for last in lasts:
            last.wait()
        return [last.state.type for last in lasts]

    assert triggered() == [expected for _, _, expected in CASES]


def test_what_arrives_from_failures(runner: TaskRunner) -> None:
    """A task that runs in spite of failures gets the exceptions in their place, and None for what was skipped."""

    @flow(task_runner=runner)
    def triggered() -> Any:
        futures = act.map([C, F, S])
        return after.with_options(trigger=all_finished, skip_on_upstream_skip=False).submit(*futures)

    assert triggered() == ["ok", "ValueError", None]


def test_skips_spread_and_count_as_success(runner: TaskRunner) -> None:
    """What follows a skip is skipped, per index, and the run is Completed."""

    @flow(task_runner=runner)
    def skips() -> Any:
        first = act.map([C, S, C])
        second = after.map(first)
        second.wait()
        return second

    state = skips(return_state=True)
    assert state.is_completed()
    assert state.result() == [["ok"], None, ["ok"]]


def test_skip_states_and_reasons(runner: TaskRunner, record: Any) -> None:
    """The record has the words of the Skip, and of what it caused."""

    @flow(task_runner=runner)
    def skips() -> None:
        after.submit(act.submit(S))

    skips()
    first, second = record.task_runs()
    assert (first.state.title, second.state.title) == ("Skipped", "Skipped")
    assert "not today" in (first.reason or "") + (first.detail.message if first.detail else "")
    assert "skipped" in second.reason


def test_not_all_skipped(runner: TaskRunner) -> None:
    """`not_all_skipped` runs if anything was not skipped, once skips are no longer passed on."""

    @flow(task_runner=runner)
    def skips() -> Any:
        tolerant = after.with_options(trigger=not_all_skipped, skip_on_upstream_skip=False)
        some, none = tolerant.submit(*act.map([S, C])), tolerant.submit(*act.map([S, S]))
        none.wait()
        return some.result(), none.state.type

    assert skips() == ([None, "ok"], "UpstreamFailed")


def test_a_trigger_function_gets_states(runner: TaskRunner) -> None:
    """A callable trigger gets the upstream states; one that raises stops its task and nothing else."""

    def two_failed(states: list[Any]) -> bool:
        return sum(state.is_failed() for state in states) == 2

    def broken(states: list[Any]) -> bool:
        raise RuntimeError("trigger")

    @flow(task_runner=runner)
    def triggered() -> Any:
        futures = act.map([F, F, C])
        yes = after.with_options(trigger=two_failed).submit(*futures)
        no = after.with_options(trigger=two_failed).submit(*futures[1:])
        bad = after.with_options(trigger=broken).submit(*futures)
        fine = act.submit(C)
        no.wait()
        bad.wait(20)
        return yes.state.type if yes.wait() else "", no.state.type, bad.state.is_failed(), fine.result()

    assert triggered() == ("Completed", "UpstreamFailed", True, "ok")


def test_a_trigger_per_index(runner: TaskRunner) -> None:
    """In a map over a map each item is judged by its own upstream."""

    @flow(task_runner=runner)
    def triggered() -> Any:
        cleanup = after.with_options(trigger=any_failed).map(act.map([C, F, C, F]))
        cleanup.wait()
        return [state.type for state in cleanup.states]

    assert triggered() == ["UpstreamFailed", "Completed", "UpstreamFailed", "Completed"]
