"""Does a map over a map over a map cost more per task run than a plain map?"""

from __future__ import annotations

from collections.abc import Callable

from orchestration import flow, task

from .harness import Case, Report, measure
from .scheduling.engines import Engine, chosen, running

WIDTH, STAGES = 30_000, 3
BARE_WIDTH = 500


def add_one(x: int) -> int:
    return x + 1


first, second, third = (task(add_one, name=name) for name in ("first", "second", "third"))


@flow
def maps_over_maps(width: int) -> int:
    return sum(third.map(second.map(first.map(range(width)))).result())


@flow
def plain_map(width: int) -> int:
    return sum(first.map(range(width)).result())


def run(*, repeats: int = 5, runner: str | None = None) -> Report:
    """Measure fused maps against a plain map with as many task runs, and the bare engine's maps over maps."""
    count = WIDTH * STAGES
    with running(chosen(runner)) as engines:
        cases: list[Case] = []
        for engine in engines:
            cases += [
                Case(
                    f"map over map over map, {engine.name}",
                    _fused(engine),
                    count,
                    f"plain map, {engine.name}",
                ),
                Case(f"plain map, {engine.name}", _plain(engine, count), count, f"bare {engine.name}"),
            ]
            if engine.bare is not None:
                cases.append(Case(f"bare {engine.name}", _bare(engine), BARE_WIDTH * STAGES))
        report = measure(f"{WIDTH:,} x {STAGES}: maps over maps", cases, repeats=repeats)
    for name in ("dask", "ray"):
        report.want_speed(f"map over map over map, {name}", f"plain map, {name}", 1)
    return report


def _fused(engine: Engine) -> Callable[[], None]:
    shaped = maps_over_maps.with_options(task_runner=engine.runner)

    def fused() -> None:
        assert shaped(WIDTH) == sum(range(WIDTH)) + STAGES * WIDTH

    return fused


def _plain(engine: Engine, width: int) -> Callable[[], None]:
    shaped = plain_map.with_options(task_runner=engine.runner)

    def plain() -> None:
        assert shaped(width) == sum(range(width)) + width

    return plain


def _bare(engine: Engine) -> Callable[[], None]:
    def dask() -> None:
        client, found = engine.bare, range(BARE_WIDTH)
        for _ in range(STAGES):
            found = client.map(add_one, found, pure=False)
        assert sum(client.gather(found)) == sum(range(BARE_WIDTH)) + STAGES * BARE_WIDTH

    def ray() -> None:
        remote = engine.bare.remote(add_one)
        refs = list(range(BARE_WIDTH))
        for _ in range(STAGES):
            refs = [remote.remote(ref) for ref in refs]
        assert sum(engine.bare.get(refs)) == sum(range(BARE_WIDTH)) + STAGES * BARE_WIDTH

    return dask if engine.name == "dask" else ray
