"""What does a link of a long chain of tasks cost, each waiting for the one before?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestration import flow, task

from .harness import Case, Report, measure
from .scheduling.engines import Engine, chosen, running

LINKS = 10_000
BARE_LINKS = 500


def add_one(x: int) -> int:
    return x + 1


one = task(add_one)


@flow
def chain(links: int) -> Any:
    found = one.submit(0)
    for _ in range(links - 1):
        found = one.submit(found)
    return found.result()


def run(*, repeats: int = 3, runner: str | None = None) -> Report:
    """Measure chains of futures on engines that are already there."""
    with running(chosen(runner)) as engines:
        cases: list[Case] = []
        for engine in engines:
            rival = None if engine.bare is None else f"bare {engine.name}"
            cases.append(Case(f"millrace on {engine.name}", _ours(engine), LINKS, rival))
            if engine.bare is not None:
                cases.append(Case(f"bare {engine.name}", _bare(engine), BARE_LINKS))
        report = measure(f"A chain of {LINKS:,} tasks", cases, repeats=repeats, warmup=0)
    for name in ("dask", "ray"):
        report.want_speed(f"millrace on {name}", f"bare {name}", 1)
    return report


def _ours(engine: Engine) -> Callable[[], None]:
    shaped = chain.with_options(task_runner=engine.runner)

    def ours() -> None:
        assert shaped(LINKS) == LINKS

    return ours


def _bare(engine: Engine) -> Callable[[], None]:
    def dask() -> None:
        found = engine.bare.submit(add_one, 0, pure=False)
        for _ in range(BARE_LINKS - 1):
            found = engine.bare.submit(add_one, found, pure=False)
        assert found.result() == BARE_LINKS

    def ray() -> None:
        remote = engine.bare.remote(add_one)
        found = remote.remote(0)
        for _ in range(BARE_LINKS - 1):
            found = remote.remote(found)
        assert engine.bare.get(found) == BARE_LINKS

    return dask if engine.name == "dask" else ray
