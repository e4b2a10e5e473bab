"""What do large arguments and results cost? One array for all items, and results that the next task takes in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from orchestration import flow, task, unmapped

from .harness import Case, Report, measure
from .scheduling.engines import Engine, chosen, running

SIZES = {"1 KB": 1_000, "100 KB": 100_000, "10 MB": 10_000_000, "100 MB": 100_000_000}
ITEMS = 20


def make(size: int) -> Any:
    return np.ones(size, dtype=np.uint8)


def length(x: int, array: Any) -> int:
    return int(array.nbytes) + x


def measure_of(array: Any) -> int:
    return int(array.nbytes)


use, made, taken = task(length, name="use"), task(make, name="make"), task(measure_of, name="take")


@flow
def results_in_place(size: int, items: int) -> int:
    return sum(taken.map(made.map([size] * items)).result())


def run(*, repeats: int = 3, runner: str | None = None) -> Report:
    """Measure flows with arrays of bytes on engines that are already there."""
    names = [name for name in chosen(runner, ("threads", "dask", "ray")) if name != "sequential"]
    with running(names) as engines:
        cases: list[Case] = []
        for label, size in SIZES.items():
            items = 4 if size > 10_000_000 else ITEMS
            for engine in engines:
                cases += [
                    Case(f"argument {label}, {engine.name}", _argument(engine, size, items), items),
                    Case(f"results {label}, {engine.name}", _results(engine, size, items), items),
                ]
                if engine.bare is not None:
                    cases += [
                        Case(
                            f"argument {label}, bare {engine.name}",
                            _bare_argument(engine, size, items),
                            items,
                        ),
                        Case(
                            f"results {label}, bare {engine.name}", _bare_results(engine, size, items), items
                        ),
                    ]
        question = "One array for all items (20, 4 of 100 MB); arrays made by a map and taken by the next"
        return measure(question, cases, repeats=repeats, warmup=0)


def _argument(engine: Engine, size: int, items: int) -> Callable[[], None]:
    array = make(size)

    @flow(task_runner=engine.runner)
    def one_argument() -> int:  # the array is no parameter: those are recorded
        return sum(use.map(range(items), unmapped(array)).result())

    def ours() -> None:
        assert one_argument() == items * size + sum(range(items))

    return ours


def _results(engine: Engine, size: int, items: int) -> Callable[[], None]:
    shaped = results_in_place.with_options(task_runner=engine.runner)

    def ours() -> None:
        assert shaped(size, items) == size * items

    return ours


def _bare_argument(engine: Engine, size: int, items: int) -> Callable[[], None]:
    array, library = make(size), engine.bare

    def dask() -> None:
        there = library.scatter(array, hash=False)
        futures = library.map(length, range(items), [there] * items, pure=False)
        assert sum(library.gather(futures)) == items * size + sum(range(items))

    def ray() -> None:
        there, remote = library.put(array), library.remote(length)
        found = library.get([remote.remote(x, there) for x in range(items)])
        assert sum(found) == items * size + sum(range(items))

    return dask if engine.name == "dask" else ray


def _bare_results(engine: Engine, size: int, items: int) -> Callable[[], None]:
    library = engine.bare

    def dask() -> None:
        arrays = library.map(make, [size] * items, pure=False)
        assert sum(library.gather(library.map(measure_of, arrays, pure=False))) == size * items

    def ray() -> None:
        makes, takes = library.remote(make), library.remote(measure_of)
        assert sum(library.get([takes.remote(makes.remote(size)) for _ in range(items)])) == size * items

    return dask if engine.name == "dask" else ray
