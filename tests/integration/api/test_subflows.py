"""Flows inside flows and inside tasks: their own record, runner and outcome."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from orchestration import allow_failure, flow, quote, runtime, task
from orchestration.errors import UpstreamFailedError, UserError
from runners import SequentialTaskRunner
from runners.base import TaskRunner


@task
def double(x: int) -> int:
    return 2 * x


def test_subflow_has_its_own_run(runner: TaskRunner, record: Any) -> None:
    """A flow called in a flow returns its result and has a record with its parent's id."""

    @flow(task_runner=runner)
    def child(n: int) -> Any:
        assert runtime.flow_run.flow_name == "child"
        return double.map(range(n))

    @flow(task_runner=runner)
    def parent() -> Any:
        own = runtime.flow_run.id
        values = child(3)
        assert runtime.flow_run.id == own
        return sum(double.map(values).result())

    assert parent() == 12
    inner, outer = record.run("child"), record.run("parent")
    assert inner.parent_run_id == outer.run_id
    assert outer.parent_run_id is None
    assert record.states(run=inner) == ["Completed"] * 3


def test_subflow_with_another_runner(runner: TaskRunner, record: Any) -> None:
    """A subflow runs on the runner that it names itself."""

    @flow(task_runner=SequentialTaskRunner())
    def child() -> Any:
        return double.submit(4)

    @flow(task_runner=runner)
    def parent() -> Any:
        return double.submit(child())

    assert parent() == 16
    assert record.run("child").runner == "sequential"


def test_subflow_failure(runner: TaskRunner, record: Any) -> None:
    """A failing subflow raises in its parent, which may go on."""

    @flow(task_runner=runner)
    def child() -> None:
        raise ValueError("child")

    @flow(task_runner=runner)
    def parent() -> Any:
        with pytest.raises(ValueError, match="child"):
            child()
        assert child(return_state=True).is_failed()
        return double.submit(1)

    assert parent() == 2
    assert [row.state.title for row in record.runs("child")] == ["Failed", "Failed"]


def test_futures_as_parameters_of_a_subflow(runner: TaskRunner) -> None:
    """Futures given to a subflow arrive as values, also in containers."""

    @flow(task_runner=runner)
    def child(x: int, more: list[int]) -> Any:
        return x + sum(more)

    @flow(task_runner=runner)
    def parent() -> Any:
        return child(double.submit(1), [double.submit(2), 5]), child(double.submit(1), double.map([1, 2]))

    assert parent() == (11, 8)


def test_what_a_subflow_depends_on(runner: TaskRunner, record: Any) -> None:
    """States, quotes and `allow_failure` arrive as in tasks; `wait_for` orders; after a failure it never runs."""

    @task
    def fails() -> None:
        raise ValueError("no")

    @flow(task_runner=runner)
    def child(x: Any) -> Any:
        return repr(x)

    @flow(task_runner=runner)
    def parent() -> Any:
        broken, fine = fails.submit(), double.submit(1)
        assert child(double.submit(2, return_state=True)) == "4"
        assert child([child(5, return_state=True)]) == "['5']"
        assert child(allow_failure([broken])) == "[ValueError('no')]"
        assert child(quote(fine)).startswith("TaskRunFuture(")
        assert child(6, wait_for=[fine, [allow_failure(broken)], child(5, return_state=True)]) == "6"
        with pytest.raises(ValueError, match="no"):
            child(broken)
        with pytest.raises(
            UpstreamFailedError, match="flow 'child' never ran, because it waited for"
        ) as caught:
            child(7, wait_for=[fine, broken])
        assert isinstance(caught.value.__cause__, ValueError)
        ends = [child(broken, return_state=True), child(7, wait_for=[[broken]], return_state=True)]
        with pytest.raises(UserError, match="must be a list of futures"):
            child(7, wait_for=fine)
        return [end.name for end in ends]

    assert parent() == ["UpstreamFailed", "UpstreamFailed"]
    assert len(record.runs("child")) == 7


def test_an_async_subflow_waits_without_blocking_the_loop() -> None:
    """What an async flow waits for before it runs can be made on the loop that calls it."""

    @flow
    async def child(x: Any) -> Any:
        return x

    @flow
    async def parent() -> Any:
        given = asyncio.Event()
        loop = asyncio.get_running_loop()

        @task
        def waits() -> int:
            asyncio.run_coroutine_threadsafe(given.wait(), loop).result(20)
            return 3

        running = asyncio.create_task(child(waits.submit(), wait_for=[double.submit(1)]))
        await asyncio.sleep(0)
        given.set()
        return await running

    assert asyncio.run(parent()) == 3


def test_subflow_with_a_runner_of_its_own_in_a_task(process_runner: TaskRunner) -> None:
    """A flow travels to workers with its runner, whichever that is and whether or not it has been used."""

    @flow(task_runner=process_runner)
    def child(n: int) -> Any:
        return double.map(range(n))

    @task
    def describe() -> tuple[str, str]:
        return child.name, type(child.task_runner).__name__

    @flow(task_runner=process_runner)
    def parent() -> Any:
        return child(2), describe.submit()

    kind = type(process_runner).__name__
    assert parent() == ([0, 2], ("child", kind))
    with process_runner.duplicate() as started:
        assert type(pickle.loads(pickle.dumps(started))).__name__ == kind


def test_subflow_in_a_task(runner: TaskRunner, record: Any) -> None:
    """A flow called in a task runs where the task runs, as a run of its own with the task run as parent."""

    @flow(task_runner=SequentialTaskRunner())
    def child(n: int) -> int:
        return sum(double.map(range(n)).result())

    @task
    def work(n: int) -> int:
        return child(n) + double(n)

    @flow(task_runner=runner)
    def parent() -> Any:
        return work.map([2, 3])

    assert parent() == [2 + 4, 6 + 6]
    outer = record.run("parent")
    children = record.runs("child")
    assert len(children) == 2
    assert {row.parent_run_id for row in children} == {outer.run_id}
    works = {f"{outer.run_id}/{row.node_id}/{row.index}" for row in record.task_runs("work", outer)}
    assert {row.parent_task_run_id for row in children} == works


def test_sync_flow_in_an_async_flow(local_runner: TaskRunner, record: Any) -> None:
    """A sync flow may be called in an async one, and async ones may run side by side."""

    @flow(task_runner=local_runner)
    def sync_child(n: int) -> Any:
        return double.submit(n)

    @flow(task_runner=local_runner)
    async def async_child(n: int) -> Any:
        assert runtime.flow_run.flow_name == "async_child"
        return await double.submit(n)

    @flow(task_runner=local_runner)
    async def parent() -> Any:
        together = await asyncio.gather(async_child(1), async_child(2))
        assert runtime.flow_run.flow_name == "parent"
        return sync_child(5), together

    assert asyncio.run(parent()) == (10, [2, 4])
    outer = record.run("parent")
    assert {r.parent_run_id for r in record.runs() if r.flow_name != "parent"} == {outer.run_id}


def test_deep_subflows(local_runner: TaskRunner, record: Any) -> None:
    """Subflows nest."""

    @flow(task_runner=local_runner)
    def level(n: int) -> Any:
        return double.submit(level(n - 1)) if n else 1

    assert level(6) == 64
    assert len(record.runs("level")) == 7


def test_states_of_subflows_as_return_value(runner: TaskRunner) -> None:
    """A flow that returns the state of a failed subflow has failed."""

    @flow(task_runner=runner)
    def child(bad: bool) -> int:
        if bad:
            raise ValueError("x")
        return 3

    @flow(task_runner=runner)
    def parent(bad: bool) -> Any:
        return child(bad, return_state=True)

    assert parent(False) == 3
    state = parent(True, return_state=True)
    assert state.is_failed()
    assert "1/1" in state.message
