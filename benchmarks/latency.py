"""How long does one task run take, from `submit` to its result in the flow? Beside the bare engine's round trip."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from orchestration import flow, task

from .harness import Case, Report, Target, measure
from .scheduling.engines import Engine, chosen, running

TRIPS = 100  # per round
MORE = 0.001  # seconds that ours may take longer, by DESIGN.md


def add_one(x: int) -> int:
    return x + 1


one = task(add_one)


@flow(validate_parameters=False)
def trips(n: int, seconds: list[float]) -> None:
    for x in range(n):
        began = time.perf_counter()
        assert one.submit(x).result() == x + 1
        seconds.append(time.perf_counter() - began)


def run(*, repeats: int = 5, runner: str | None = None) -> Report:
    """Measure single round trips on engines that are already there; a round's figure is its median."""
    taken: dict[str, list[float]] = {}
    with running(chosen(runner)) as engines, ThreadPoolExecutor(2) as pool:
        cases: list[Case] = []
        for engine in engines:
            shaped = trips.with_options(task_runner=engine.runner)
            for name, trip in (
                (f"millrace on {engine.name}", lambda seconds, shaped=shaped: shaped(TRIPS, seconds)),
                (f"bare {engine.name}", _bare(engine, pool)),
            ):
                if trip is not None:
                    cases.append(Case(name, _timed(trip, taken.setdefault(name, []))))
        report = measure("One task run, from submit to result", cases, repeats=repeats)
    for name, seconds in taken.items():
        late = statistics.quantiles(seconds[TRIPS:], n=100)[98]
        report.notes.append(f"{name}: p99 {late * 1000:.2f} ms")
    for name in ("threads", "dask", "ray"):
        ours, bare = f"millrace on {name}", f"bare {name}"
        if report.has(ours, bare):
            more = (report.of(ours).median - report.of(bare).median) * 1000
            report.targets.append(Target(f"over bare {name}", more, MORE * 1000, "ms", at_most=True))
    return report


def _timed(trip: Callable[[list[float]], Any], taken: list[float]) -> Callable[[], float]:
    def timed() -> float:
        seconds: list[float] = []
        trip(seconds)
        taken.extend(seconds)
        return statistics.median(seconds)

    return timed


def _bare(engine: Engine, pool: ThreadPoolExecutor) -> Callable[[list[float]], None] | None:
    call: Callable[[int], int]
    if engine.name == "threads":
        call = lambda x: pool.submit(add_one, x).result()  # noqa: E731
    elif engine.name == "dask":
        call = lambda x: int(engine.bare.submit(add_one, x, pure=False).result())  # noqa: E731
    elif engine.name == "ray":
        remote = engine.bare.remote(add_one)
        call = lambda x: int(engine.bare.get(remote.remote(x)))  # noqa: E731
    else:
        return None

    def trip(seconds: list[float]) -> None:
        for x in range(TRIPS):
            began = time.perf_counter()
            assert call(x) == x + 1
            seconds.append(time.perf_counter() - began)

    return trip
