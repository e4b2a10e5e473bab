"""Futures as arguments, however they are nested, and the wrappers that say how to take them."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestration import TaskRunFuture, allow_failure, flow, quote, task, unmapped
from orchestration.errors import DependencyError, UpstreamFailedError
from runners.base import TaskRunner

Point = namedtuple("Point", "x y")


@dataclass
class Order:
    number: Any
    lines: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Fixed:
    value: Any


@task
def one(x: Any = 1) -> Any:
    return x


@task
def same(value: Any) -> Any:
    return value


@task
def fail() -> None:
    raise ValueError("broken")


@task
def kind(value: Any) -> str:
    return type(value).__name__


def test_futures_in_containers_arrive_as_values(runner: TaskRunner) -> None:
    """Lists, tuples, named tuples, sets, dicts and their keys' values are searched at any depth."""

    @flow(task_runner=runner)
    def nested() -> Any:
        a, b = one.submit(1), one.submit(2)
        value = [a, (b, [a]), {"k": {"deep": b}}, {a}, frozenset([b]), Point(a, b), OrderedDict(k=[a])]
        return same.submit(value)

    assert nested() == [
        1,
        (2, [1]),
        {"k": {"deep": 2}},
        {1},
        frozenset([2]),
        Point(1, 2),
        OrderedDict(k=[1]),
    ]


def test_futures_in_dataclasses_arrive_as_values(runner: TaskRunner) -> None:
    """Fields of dataclasses are searched, frozen ones too, and the caller's object stays as it was."""

    @flow(task_runner=runner)
    def nested() -> Any:
        a = one.submit(1)
        order = Order(a, [a, Fixed(a)])
        done = same.submit(order).result()
        assert order.number is a
        return done.number, done.lines[0], done.lines[1].value

    assert nested() == (1, 1, 1)


def test_lists_of_futures_as_arguments(runner: TaskRunner) -> None:
    """A whole map as an argument arrives as the list of its results, also inside other things."""

    @flow(task_runner=runner)
    def nested() -> Any:
        many = one.map(range(3))
        return same.submit(many), same.submit({"many": many, "some": many[1:]})

    assert nested() == ([0, 1, 2], {"many": [0, 1, 2], "some": [1, 2]})


def test_plain_arguments_are_handed_over_untouched(local_runner: TaskRunner) -> None:
    """Without futures in it an argument is the very object, in runners of this process."""
    marker = {"list": [1, 2], "set": {3}}

    @flow(task_runner=local_runner)
    def plain() -> bool:
        return same.submit(marker).result() is marker

    assert plain()


def test_who_waits_for_another_does_not_share_its_batch(runner: TaskRunner) -> None:
    """What its code waits for is not in its arguments; that it does so is known from the first time, in later runs."""
    asked: list[TaskRunFuture[int]] = []

    @task
    def one(x: int) -> int:
        return x

    @task
    def ask(futures: Callable[[], list[TaskRunFuture[int]]]) -> int:
        return sum(future.result(timeout=60) for future in futures())

    @flow(task_runner=runner)
    def hidden() -> list[int]:
        asked[:] = [one.submit(x) for x in range(20)]
        there = tuple(asked)
        return [future.result() for future in [ask.submit(lambda: list(there)) for _ in range(8)]]

    for _ in range(3):
        assert hidden() == [190] * 8


def test_quote_stops_the_search(local_runner: TaskRunner) -> None:
    """`quote` hands over the value as it is, futures included."""

    @flow(task_runner=local_runner)
    def quoted() -> Any:
        future = one.submit(5)
        inside = same.submit(quote([future])).result()
        assert isinstance(inside[0], TaskRunFuture)
        return inside[0].result()

    assert quoted() == 5


def test_quoted_futures_work_on_workers(runner: TaskRunner) -> None:
    """A future that was handed over as such can be asked for its result inside the task."""

    @task
    def ask(futures: list[Any]) -> Any:
        return [future.result() for future in futures]

    @flow(task_runner=runner)
    def quoted() -> Any:
        return ask.submit(quote([one.submit(5), one.submit(6)]))

    for _ in range(4):  # later runs know that both are short, and could put them into one batch
        assert quoted() == [5, 6]


def test_unmapped_future(runner: TaskRunner) -> None:
    """`unmapped` of a future gives its result to every item."""

    @task
    def both(a: Any, b: Any) -> Any:
        return (a, b)

    @flow(task_runner=runner)
    def maps() -> Any:
        return both.map([1, 2], unmapped(one.submit([9])))

    assert maps() == [(1, [9]), (2, [9])]


def test_upstream_failure(runner: TaskRunner) -> None:
    """What depends on a failure never runs, and its error names the root cause."""

    @flow(task_runner=runner)
    def fails() -> Any:
        bad = fail.submit()
        after = same.submit(bad)
        last = same.submit([after])
        with pytest.raises(UpstreamFailedError, match="fail ended Failed") as caught:
            last.result()
        assert isinstance(caught.value.__cause__, ValueError)
        return bad.state.type, after.state.type, last.state.type

    assert fails() == ("Failed", "UpstreamFailed", "UpstreamFailed")


def test_allow_failure(runner: TaskRunner) -> None:
    """`allow_failure` hands over the exception, for single futures, lists, maps and in containers."""

    @flow(task_runner=runner)
    def tolerates() -> Any:
        bad, good = fail.submit(), one.submit(3)
        return [
            kind.submit(allow_failure(bad)).result(),
            kind.submit(allow_failure(good)).result(),
            [type(v).__name__ for v in same.submit([allow_failure(bad), good]).result()],
            kind.map(allow_failure([bad, good])).result(),
            kind.map(allow_failure(kind.map([bad, good]))).result(),
            kind.map([1, 2]).result() if unmapped else None,
        ]

    assert tolerates() == [
        "ValueError",
        "int",
        ["ValueError", "int"],
        ["ValueError", "int"],
        ["UpstreamFailedError", "str"],
        ["int", "int"],
    ]


def test_wait_for_orders_without_data(runner: TaskRunner, tmp_path: Path) -> None:
    """`wait_for` makes a task start after others, for single futures, lists and maps, on submit and map."""
    notes = tmp_path / "notes"

    @task
    def note(text: str) -> None:
        with notes.open("a") as file:
            file.write(text)

    @flow(task_runner=runner)
    def ordered() -> None:
        first = note.map(["a"] * 5)
        second = note.submit("b", wait_for=[first])
        third = note.map(["c"] * 3, wait_for=[second, first[0]])
        note.submit("d", wait_for=third)

    ordered()
    assert notes.read_text() == "aaaaabcccd"


def test_wait_for_a_failure(runner: TaskRunner) -> None:
    """Waiting for what fails means never to run, unless the failure is allowed."""

    @flow(task_runner=runner)
    def ordered() -> Any:
        bad = fail.submit()
        blocked = one.submit(wait_for=[bad])
        tolerant = one.submit(wait_for=[allow_failure(bad)])
        blocked.wait()
        return blocked.state.type, tolerant.result()

    assert ordered() == ("UpstreamFailed", 1)


def test_a_direct_call_waits_for_its_arguments(runner: TaskRunner) -> None:
    """A task that is called takes futures as arguments like one that is submitted."""

    @flow(task_runner=runner)
    def calls() -> Any:
        many = one.map(range(3))
        return same(many), same({"k": many[1]}), same(1, wait_for=[many])

    assert calls() == ([0, 1, 2], {"k": 1}, 1)


def test_self_dependency(runner: TaskRunner) -> None:
    """A task that submits something which waits for itself gets an error and not a deadlock."""

    @task
    def inner(futures: Any) -> Any:
        return futures

    @task
    def outer(box: Path, me: Any) -> str:
        try:
            inner.submit(me).result()
        except DependencyError as error:
            return str(error)
        return "no error"

    @task
    def myself() -> str:
        from orchestration.api.futures import TaskRunFuture
        from orchestration.api.sessions import active_session
        from runners.context import current_item

        item = current_item.get()
        me = TaskRunFuture(active_session(), item.node_id, item.index)
        try:
            inner.submit(me)
        except DependencyError as error:
            return str(error)
        return "no error"

    @flow(task_runner=runner)
    def circular() -> Any:
        return myself.submit()

    assert "would wait for" in circular()


def test_future_of_another_run(runner: TaskRunner) -> None:
    """A future of another run arrives as its value, as long as that can be had."""

    @flow(task_runner=runner)
    def child() -> Any:
        future = one.submit(4)
        future.result()
        return {"f": quote(future)}

    @flow(task_runner=runner)
    def parent() -> Any:
        box = child()
        return same.submit([box["f"].value])

    assert parent() == [4]


@task
def fails() -> None:
    raise ValueError("no")


def test_states_stand_for_results(runner: TaskRunner) -> None:
    """A State as an argument, nested or in `wait_for`, is a dependency like the future of its task run."""

    @task
    def total(values: Any) -> int:
        return sum(values)

    @flow(task_runner=runner)
    def main() -> Any:
        submitted, called = one.submit(2, return_state=True), one(3, return_state=True)
        mapped = one.map([4, 5], return_state=True)
        parts: list[Any] = one.submit([6, 7], return_state=True)  # type: ignore[assignment]
        return (
            total.submit([submitted, called, *mapped]).result(),
            one.map(mapped).result(),
            one.map(parts).result(),
            one(submitted),
            one.submit(8, wait_for=[called, mapped]).result(),
        )

    assert main() == (14, [4, 5], [6, 7], 2, 8)


def test_states_of_failures(runner: TaskRunner) -> None:
    """The State of a failed task run makes what depends on it UpstreamFailed, or arrives as its exception."""

    @flow(task_runner=runner)
    def main() -> Any:
        submitted, called = fails.submit(return_state=True), fails(return_state=True)
        down = [one.submit(state) for state in (submitted, called)]
        down += [one.submit(1, wait_for=[state]) for state in (submitted, called)]
        kept = [repr(one.submit(allow_failure(state)).result()) for state in (submitted, called)]
        for future in down:
            future.wait()
        return [future.state.name for future in down], kept

    assert main() == (["UpstreamFailed"] * 4, ["ValueError('no')"] * 2)


def test_states_travel(runner: TaskRunner) -> None:
    """A quoted State arrives on a worker as itself, a task may return one, and its result can be asked for there."""

    @task
    def read(states: Any) -> Any:
        return [(state.name, repr(state.result(raise_on_failure=False))) for state in states]

    @task
    def inner() -> Any:
        return one.submit(5, return_state=True)

    @flow(task_runner=runner)
    def main() -> Any:
        states = [
            one.submit(2, return_state=True),
            one([3], return_state=True),
            fails.submit(return_state=True),
        ]
        return read.submit(quote(states)).result(), inner.submit().result().result()

    failed = ("Failed", "ValueError('no')")
    assert main() == ([("Completed", "2"), ("Completed", "[3]"), failed], 5)
