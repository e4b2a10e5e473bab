"""What does it cost to bring the results of a map together in one task?"""

from __future__ import annotations

from collections.abc import Callable

from orchestration import flow, task

from .harness import Case, Report, measure
from .scheduling.engines import Engine, chosen, running

WIDTH = 20_000
BARE_WIDTH = 1_000


def same(x: int) -> int:
    return x


def total(values: list[int]) -> int:
    return sum(values)


part, whole = task(same, name="part"), task(total, name="whole")


@flow
def fan_in(width: int) -> int:
    found: int = whole.submit(part.map(range(width))).result()
    return found


def run(*, repeats: int = 5, runner: str | None = None) -> Report:
    """Measure a map and one task that takes all its results, where they are."""
    with running(chosen(runner)) as engines:
        cases: list[Case] = []
        for engine in engines:
            rival = None if engine.bare is None else f"bare {engine.name}"
            cases.append(Case(f"millrace on {engine.name}", _ours(engine), WIDTH, rival))
            if engine.bare is not None:
                cases.append(Case(f"bare {engine.name}", _bare(engine), BARE_WIDTH))
        report = measure(f"A map of {WIDTH:,} and one task that takes all results", cases, repeats=repeats)
    for name in ("dask", "ray"):
        report.want_speed(f"millrace on {name}", f"bare {name}", 1)
    return report


def _ours(engine: Engine) -> Callable[[], None]:
    shaped = fan_in.with_options(task_runner=engine.runner)

    def ours() -> None:
        assert shaped(WIDTH) == sum(range(WIDTH))

    return ours


def _bare(engine: Engine) -> Callable[[], None]:
    def dask() -> None:
        client = engine.bare
        parts = client.map(same, range(BARE_WIDTH), pure=False)
        assert client.submit(total, parts, pure=False).result() == sum(range(BARE_WIDTH))

    def ray() -> None:
        library = engine.bare
        remote = library.remote(same)
        gather = library.remote(lambda *values: sum(values))
        refs = [remote.remote(x) for x in range(BARE_WIDTH)]
        assert library.get(gather.remote(*refs)) == sum(range(BARE_WIDTH))

    return dask if engine.name == "dask" else ray
