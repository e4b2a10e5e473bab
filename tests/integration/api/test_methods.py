"""Methods, static methods, callable objects, partials and lambdas as tasks and flows; `with_options`."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import cloudpickle
import pytest

from orchestration import flow, task
from orchestration.errors import UserError
from runners import SequentialTaskRunner
from runners.base import TaskRunner


class Scaler:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @task
    def scale(self, x: int) -> int:
        return self.factor * x

    @task
    @staticmethod
    def plain(x: int) -> int:
        return x + 1

    @staticmethod
    @task
    def outer_static(x: int) -> int:
        return x + 2

    @flow(task_runner=SequentialTaskRunner())
    def run(self, n: int) -> Any:
        return self.scale.map(range(n))

    @flow(task_runner=SequentialTaskRunner())
    @staticmethod
    def tripled(n: int) -> int:
        return 3 * n


class Adder:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, x: int) -> int:
        return x + self.n


def plus(x: int, y: int) -> int:
    return x + y


@task
def three(x: int) -> int:
    return x + 3


def test_methods_as_tasks(runner: TaskRunner) -> None:
    """A method that is a task takes its instance along, in calls, submits and maps."""

    @flow(task_runner=runner)
    def main() -> Any:
        scaler = Scaler(3)
        return scaler.scale(1), scaler.scale.submit(2), scaler.scale.map([3, 4]), Scaler(5).scale.submit(1)

    assert main() == (3, 6, [9, 12], 5)


def test_static_methods_as_tasks(runner: TaskRunner) -> None:
    """Static methods work in either order of the decorators."""

    @flow(task_runner=runner)
    def main() -> Any:
        scaler = Scaler(1)
        return (
            Scaler.plain.submit(1),
            Scaler.outer_static.submit(1),
            scaler.outer_static.submit(2),
            scaler.plain(3),
        )

    assert main() == (2, 3, 4, 4)
    assert Scaler.tripled(2) == Scaler(1).tripled(2) == 6


class Sized:
    size = 10

    @task
    @classmethod
    def grown(cls, by: int) -> int:
        return cls.size + by

    @classmethod
    @task
    def shrunk(cls, by: int) -> int:
        return cls.size - by

    @flow(task_runner=SequentialTaskRunner())
    @classmethod
    def run(cls, n: int) -> Any:
        return cls.grown.map(range(n))


class Larger(Sized):
    size = 20


def test_class_methods_as_tasks_and_flows(runner: TaskRunner) -> None:
    """A class method gets the class that it is asked of; `@task` above `@classmethod` is for all versions of Python."""

    @flow(task_runner=runner)
    def main() -> Any:
        return Sized.grown.submit(1), Larger.grown(1), Larger().grown.map([1, 2]), Larger.shrunk(1)

    assert main() == (11, 21, [21, 22], 19)
    assert (Larger.run(2), Sized().run(1)) == ([20, 21], [10])


def test_parameters_named_self(local_runner: TaskRunner) -> None:
    """Parameters may have any name, `self` among them."""

    @task
    def takes(self: int, fn: int = 0) -> tuple[int, int]:
        return self, fn

    @flow(task_runner=local_runner)
    def main(self: int) -> Any:
        return takes.submit(self=self, fn=2), takes(self=self), takes.map(self=[self])

    assert main(self=1) == ((1, 2), (1, 0), [(1, 0)])


def test_methods_as_flows() -> None:
    """A method can be a flow."""
    assert Scaler(2).run(3) == [0, 2, 4]


def test_callable_objects_partials_lambdas_and_builtins(runner: TaskRunner) -> None:
    """Whatever can be called can be a task."""

    @flow(task_runner=runner)
    def main() -> Any:
        return [
            task(Adder(10), name="adder").submit(1).result(),
            task(functools.partial(plus, y=5), name="partial").submit(1).result(),
            task(lambda x: x * 7, name="times").submit(1).result(),
            task(len).submit([1, 2]).result(),
        ]

    assert main() == [11, 6, 7, 2]


def test_plain_calls_outside_of_flows() -> None:
    """Outside a flow a task is its function."""
    assert three(1) == 4
    assert three.fn(2) == 5
    assert Scaler(3).scale(2) == 6


def test_with_options_copies(runner: TaskRunner) -> None:
    """`with_options` changes a copy; an unknown option is an error with a suggestion."""
    named = three.with_options(name="other", retries=2, tags=["a"])
    assert (named.name, named.retries, named.tags) == ("other", 2, frozenset({"a"}))
    assert (three.name, three.retries) == ("three", 0)
    with pytest.raises(UserError, match="'retries'"):
        three.with_options(retrys=2)
    with pytest.raises(UserError, match="'timeout_seconds'"):
        flow(plus).with_options(timeout_second=2)

    @flow(name="first", task_runner=SequentialTaskRunner())
    def main(x: int) -> Any:
        return named.submit(x)

    assert main.with_options(name="second", task_runner=runner)(1) == 4
    assert main.name == "first"


def test_bad_options() -> None:
    """Options that make no sense are errors when the task or flow is made."""
    for options in ({"retries": -1}, {"timeout_seconds": 0}, {"batch": 0}, {"retries": "3"}):
        with pytest.raises(UserError):
            task(**options)(plus)
    with pytest.raises(UserError, match="no function"):
        task(5)
    with pytest.raises(UserError, match="no task runner"):
        flow(task_runner="dusk")(plus)(1, 2)


def test_pickling_of_tasks() -> None:
    """Tasks and flows can be pickled, with hooks and options."""
    seen: list[Any] = []
    hooked = three.with_options(on_completion=[lambda *args: seen.append(1)], retries=3)
    copy = pickle.loads(cloudpickle.dumps(hooked))
    assert (copy.name, copy.retries, copy.fn(1)) == ("three", 3, 4)
    assert len(copy.on_completion) == 1


def test_tasks_with_hooks_inside_tasks(runner: TaskRunner) -> None:
    """A task with hooks can be submitted from inside a task."""

    def hook(*args: Any) -> None:
        return None

    inner = three.with_options(on_completion=[hook], on_running=[hook])

    @task
    def outer(x: int) -> Any:
        return inner.submit(x).result() + inner(x)

    @flow(task_runner=runner)
    def main() -> Any:
        return outer.submit(1)

    assert main() == 8


def test_functions_keep_their_name_and_doc() -> None:
    """Tasks and flows look like the functions they wrap."""

    @task
    def documented() -> None:
        """Says what it does."""

    assert documented.__name__ == "documented"
    assert documented.__doc__ == "Says what it does."
    assert documented.description == "Says what it does."
