"""`map`: what is mapped over, what is static, widths learned late, lists of futures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from orchestration import TaskRunFutureList, allow_failure, flow, task, unmapped
from orchestration.errors import MappingError
from runners.base import TaskRunner


@task
def add(x: Any, y: Any = 0) -> Any:
    return x + y


@task
def pair(x: Any, y: Any = None) -> Any:
    return (x, y)


@task
def numbers(n: int) -> list[int]:
    return list(range(n))


@task
def total(values: list[Any]) -> Any:
    return sum(values)


def test_map_over_two_iterables(runner: TaskRunner) -> None:
    """Iterables of equal length are taken side by side; what is no iterable is the same for all."""

    @flow(task_runner=runner)
    def maps() -> Any:
        return add.map([1, 2, 3], (10, 20, 30)), add.map(range(3), y=5)

    assert maps() == ([11, 22, 33], [5, 6, 7])


def test_static_arguments(runner: TaskRunner) -> None:
    """Strings, bytes, mappings, scalars and `unmapped` lists go to every item as they are."""

    @flow(task_runner=runner)
    def maps() -> Any:
        return [
            pair.map([1, 2], "ab").result(),
            pair.map([1, 2], b"ab").result(),
            pair.map([1, 2], {"k": 1}).result(),
            pair.map([1, 2], y=unmapped([7, 8, 9])).result(),
            pair.map([1, 2], None).result(),
        ]

    assert maps() == [
        [(1, "ab"), (2, "ab")],
        [(1, b"ab"), (2, b"ab")],
        [(1, {"k": 1}), (2, {"k": 1})],
        [(1, [7, 8, 9]), (2, [7, 8, 9])],
        [(1, None), (2, None)],
    ]


def test_generators_are_consumed_once(runner: TaskRunner) -> None:
    """A generator is read when `map` is called, and only then."""
    taken: list[int] = []

    def source() -> Iterator[int]:
        for n in range(4):
            taken.append(n)
            yield n

    @flow(task_runner=runner)
    def maps() -> Any:
        futures = add.map(source(), 1)
        assert taken == [0, 1, 2, 3]
        return futures

    assert maps() == [1, 2, 3, 4]


def test_map_over_a_map(runner: TaskRunner) -> None:
    """Item i of a map over a map takes the result of item i."""

    @flow(task_runner=runner)
    def maps() -> Any:
        first = add.map(range(5), 1)
        second = add.map(first, first)
        return add.map(second, range(5))

    assert maps() == [2, 5, 8, 11, 14]


def test_map_over_a_future_learns_its_width(runner: TaskRunner) -> None:
    """An upstream future that gives a list is mapped over without blocking the flow."""

    @flow(task_runner=runner)
    def maps() -> Any:
        source = numbers.submit(4)
        mapped = add.map(source, 10)
        again = add.map(mapped, mapped)
        joined = total.submit(again)
        assert len(mapped) == 4
        return mapped, again, joined

    assert maps() == ([10, 11, 12, 13], [20, 22, 24, 26], 92)


def test_a_late_width_beside_other_arguments(runner: TaskRunner) -> None:
    """A width that is learned late goes with static arguments and with futures for all items."""

    @flow(task_runner=runner)
    def maps() -> Any:
        return pair.map(numbers.submit(3), unmapped(numbers.submit(2)))

    assert maps() == [(0, [0, 1]), (1, [0, 1]), (2, [0, 1])]


def test_empty_maps(runner: TaskRunner) -> None:
    """A map over nothing has no items and an empty result, also when that is learned late."""

    @flow(task_runner=runner)
    def maps() -> Any:
        at_once = add.map([])
        late = add.map(numbers.submit(0), 1)
        onward = add.map(late, 1)
        return at_once, late, onward, total.submit(onward), total.submit(at_once)

    assert maps() == ([], [], [], 0, 0)


def test_a_flow_with_only_an_empty_map_ends(runner: TaskRunner) -> None:
    """A run ends though nothing ever happened in it."""

    @flow(task_runner=runner)
    def maps() -> str:
        add.map([])
        return "done"

    assert maps() == "done"


def test_lists_of_futures_are_sequences(runner: TaskRunner) -> None:
    """A list of futures can be sliced, indexed, iterated, compared and counted; slices share its futures."""

    @flow(task_runner=runner)
    def maps() -> Any:
        futures = add.map(range(6), 1)
        assert isinstance(futures, TaskRunFutureList)
        part = futures[1:5:2]
        assert len(futures) == 6
        assert part[0] == futures[1]
        assert [f.index for f in futures[::-1]] == [5, 4, 3, 2, 1, 0]
        assert futures[-1].result() == 6
        assert part.result() == [2, 4]
        assert futures[2:2].result() == []
        assert futures.states.counts == {"Completed": 6} if futures.wait() else False
        assert [state.type for state in futures.states[:2]] == ["Completed"] * 2
        assert futures.done()
        return add.map(part, 100), total.submit(futures[3:])

    assert maps() == ([102, 104], 15)


def test_map_over_a_list_of_futures(runner: TaskRunner) -> None:
    """A plain list of futures is mapped over: each item waits for its own."""

    @flow(task_runner=runner)
    def maps() -> Any:
        singles = [add.submit(n, 1) for n in range(3)]
        mixed = [singles[0], 5, [singles[1], {"k": singles[2]}]]
        return add.map(singles, 10), pair.map(mixed, [1, 2, 3])

    assert maps() == ([11, 12, 13], [(1, 1), (5, 2), ([2, {"k": 3}], 3)])


def test_unequal_lengths(runner: TaskRunner) -> None:
    """Iterables of unequal length are an error that names the arguments and their lengths."""

    @flow(task_runner=runner)
    def maps() -> None:
        with pytest.raises(MappingError, match=r"unequal length \(x: 2, y: 3\)"):
            add.map([1, 2], [1, 2, 3])
        with pytest.raises(MappingError, match="unequal length"):
            add.map(add.map([1, 2]), [1, 2, 3])

    maps()


def test_unequal_lengths_that_are_learned_late(runner: TaskRunner) -> None:
    """Lengths that turn out unequal at run time fail the map with the same error, not with a wrong result."""

    @flow(task_runner=runner)
    def maps() -> Any:
        futures = add.map(numbers.submit(3), [1, 2])
        futures.wait()
        with pytest.raises(MappingError, match="unequal"):
            futures.result()
        futures = add.map(numbers.submit(2), numbers.submit(4))
        futures.wait()
        with pytest.raises(MappingError, match="unequal"):
            futures.result()

    maps()


def test_nothing_to_map_over(runner: TaskRunner) -> None:
    """`map` without any iterable says to use `submit`."""

    @flow(task_runner=runner)
    def maps() -> None:
        with pytest.raises(MappingError, match=r"nothing to map over.*submit"):
            add.map(1, unmapped([2]))

    maps()


def test_map_over_a_result_that_is_no_list(runner: TaskRunner) -> None:
    """Mapping over a future that gives no list fails the map with a message that names the task."""

    @flow(task_runner=runner)
    def maps() -> None:
        futures = add.map(add.submit(1, 2), 1)
        futures.wait()
        with pytest.raises(MappingError, match="no list, array or other sequence"):
            futures.result()

    maps()


def test_map_over_results_that_are_sequences(runner: TaskRunner) -> None:
    """Whatever has its items in an order may be mapped over as a result, too: each item is what iterating gives."""

    @task
    def made(kind: str) -> Any:
        import array
        from collections import deque

        import numpy as np
        import pandas as pd

        return {
            "tuple": (5, 6),
            "range": range(5, 7),
            "deque": deque([5, 6]),
            "array": array.array("i", [5, 6]),
            "numpy": np.array([[5], [6]]).reshape(2),
            "rows": np.array([[4, 1], [4, 2]]),
            "series": pd.Series([5, 6], index=[1, 0]),
            "empty": np.array([]),
        }[kind]

    @task
    def plain(item: Any) -> Any:
        return int(item.sum()) if getattr(item, "ndim", 0) else int(item)

    @task
    def other(kind: str) -> Any:
        import numpy as np
        import pandas as pd

        return {"set": {1}, "dict": {1: 1}, "frame": pd.DataFrame({"a": [1]}), "point": np.array(5)}[kind]

    @flow(task_runner=runner)
    def maps() -> None:
        for kind in ("tuple", "range", "deque", "array", "numpy", "rows", "series"):
            assert plain.map(made.submit(kind)).result() == [5, 6], kind
        assert plain.map(made.submit("empty")).result() == []
        for kind in ("set", "dict", "frame", "point"):
            with pytest.raises(MappingError, match="no list, array or other sequence"):
                plain.map(other.submit(kind)).result()

    maps()


def test_map_over_what_fails(runner: TaskRunner) -> None:
    """Mapping over a future that fails gives one item that never ran and names the cause."""

    @flow(task_runner=runner)
    def maps() -> Any:
        futures = add.map(numbers.submit("three"), 1)
        futures.wait()
        return [state.type for state in futures.states]

    assert maps() == ["UpstreamFailed"]


def test_one_failure_does_not_stop_the_others(runner: TaskRunner) -> None:
    """Items of a map fail on their own; what follows from the others runs."""

    @flow(task_runner=runner)
    def maps() -> Any:
        first = add.map([1, "x", 3], 1)
        second = add.map(first, 10)
        second.wait()
        return [s.type for s in first.states], [s.type for s in second.states], second[2].result()

    assert maps() == (
        ["Completed", "Failed", "Completed"],
        ["Completed", "UpstreamFailed", "Completed"],
        14,
    )


@pytest.mark.parametrize("batch", [1, 7, "auto"])
def test_batch_sizes(runner: TaskRunner, batch: Any) -> None:
    """The size of batches changes nothing about results."""

    @flow(task_runner=runner)
    def maps() -> Any:
        return add.with_options(batch=batch).map(range(50), 1)

    assert maps() == list(range(1, 51))


def test_a_map_over_a_map_that_cannot_be_known_to_be_so(runner: TaskRunner) -> None:
    """It ends the same whether that was known when it was submitted or not."""

    @task
    def fails() -> list[int]:
        raise ValueError("no list")

    @flow(task_runner=runner)
    def maps() -> list[str]:
        ended = []
        for waits in (False, True):
            first = add.map(fails.submit())
            if waits:
                first.wait()
            second = add.map(allow_failure(first), return_state=True)
            ended += [state.type for state in second]
        return ended

    assert maps() == ["Failed", "Failed"]


@task(batch=2)
def spoil(x: int, values: Any) -> int:
    seen = int(values.sum())
    values += 1
    return seen + x


def test_a_large_static_argument(process_runner: TaskRunner) -> None:
    """It travels once to each worker, and yet no batch sees what another one has done to it."""
    numpy = pytest.importorskip("numpy")

    @flow(task_runner=process_runner)
    def maps() -> list[int]:
        zeros = numpy.zeros(200_000)
        return spoil.map(range(0, 40, 2), unmapped(zeros)).result()

    found = maps()
    assert found[::2] == list(range(0, 40, 4))
