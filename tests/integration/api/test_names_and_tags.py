"""Names of runs and task runs, and tags."""

from __future__ import annotations

import re
from typing import Any

import pytest

from orchestration import flow, runtime, tags, task
from orchestration.errors import UserError
from runners import SequentialTaskRunner
from runners.base import TaskRunner

SEQUENTIAL = SequentialTaskRunner()


@task(task_run_name="load {customer} of {day}")
def load(customer: str, day: str = "monday") -> Any:
    return runtime.task_run.name


@task
def names() -> Any:
    return runtime.flow_run.name


def test_run_names(record: Any) -> None:
    """Runs get two words, a template filled with parameters, or what a function returns."""

    @flow(task_runner=SEQUENTIAL)
    def main(n: int = 1) -> Any:
        return names.submit()

    assert re.fullmatch(r"[a-z]+-[a-z]+", main())
    assert main.with_options(flow_run_name="number {n}")(3) == "number 3"
    assert main.with_options(flow_run_name=lambda: "made")() == "made"
    assert main.with_options(flow_run_name=lambda parameters: f"of {parameters['n']}")(5) == "of 5"
    assert record.run().name == "of 5"
    with pytest.raises(UserError, match="no parameter"):
        main.with_options(flow_run_name="{k}")()


def test_task_run_names(runner: TaskRunner, record: Any) -> None:
    """Task runs have the name of their task with the index, or their own template filled in."""

    @flow(task_runner=runner)
    def main() -> Any:
        return load.submit("acme"), load.map(["a", "b"], day="friday"), names.submit()

    one, many, _ = main()
    assert one == "load acme of monday"
    assert many == ["load a of friday", "load b of friday"]
    rows = record.task_runs("load")
    assert [row.name for row in rows] == ["load acme of monday", "load a of friday", "load b of friday"]


def test_names_from_functions(runner: TaskRunner) -> None:
    """A function that names a run takes nothing or the parameters, called as it likes; it may ask `runtime`."""

    def by_runtime() -> str:
        return (
            f"{runtime.flow_run.flow_name} {runtime.flow_run.parameters['n']} {sorted(runtime.flow_run.tags)}"
        )

    @task
    def own(n: int) -> Any:
        return runtime.task_run.name

    @flow(flow_run_name=by_runtime, task_runner=SEQUENTIAL)
    def inner(n: int) -> Any:
        return runtime.flow_run.name

    @task
    def calls(n: int) -> Any:
        return inner(n)

    @flow(task_runner=runner, flow_run_name=lambda given, /: f"n is {given['n']}")
    def main(n: int) -> Any:
        named = own.with_options(task_run_name=lambda p: f"task {p['n']}")
        plain = own.with_options(task_run_name=lambda: f"runtime {runtime.task_run.parameters['n']}")
        with tags("a"):
            return runtime.flow_run.name, named.submit(1), plain.map([2, 3]), inner(4), calls.submit(5)

    assert main(0) == ("n is 0", "task 1", ["runtime 2", "runtime 3"], "inner 4 ['a']", "inner 5 []")
    assert runtime.flow_run.name is None


def test_flow_and_task_names(local_runner: TaskRunner, record: Any) -> None:
    """Names given to flows and tasks are those in the record."""

    @flow(name="the flow", task_runner=local_runner, version="7")
    def main() -> None:
        names.with_options(name="the task").submit()

    main()
    row = record.run("the flow")
    assert row.version == "7"
    assert [run.task_name for run in record.task_runs()] == ["the task"]


def test_tags(runner: TaskRunner, record: Any) -> None:
    """Tags of the task and of the blocks around its submission are united; runs have those around their call."""

    @task(tags=["own"])
    def tagged() -> Any:
        return sorted(runtime.task_run.tags or ())

    @flow(task_runner=runner)
    def main() -> Any:
        with tags("a", "b"):
            with tags("c"):
                one = tagged.submit()
            two = tagged.submit()
        return one, two, tagged.submit()

    with tags("around"):
        one, two, three = main()
    assert one == ["a", "around", "b", "c", "own"]
    assert two == ["a", "around", "b", "own"]
    assert three == ["around", "own"]
    assert record.run().tags == {"around"}
    assert [node.tags for node in record.nodes()] == [frozenset(x) for x in (one, two, three)]


def test_tags_inside_tasks(runner: TaskRunner) -> None:
    """`with tags` inside a task holds for what it submits."""

    @task
    def inner() -> Any:
        return sorted(runtime.task_run.tags or ())

    @task
    def outer() -> Any:
        with tags("deep"):
            return inner.submit().result(), inner()

    @flow(task_runner=runner)
    def main() -> Any:
        return outer.submit()

    assert main() == (["deep"], ["deep"])
