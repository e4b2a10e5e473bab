"""What does one of a loop of submits cost, all of them ready at once?"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from orchestration import flow, task

from .harness import Case, Report, measure
from .scheduling.engines import Engine, chosen, running

TASKS = 2_000
TOTAL = TASKS * (TASKS + 1) // 2  # of what they return


def add_one(x: int) -> int:
    return x + 1


one = task(add_one)


@flow
def loop(n: int) -> int:
    return sum(future.result() for future in [one.submit(i) for i in range(n)])


def run(*, repeats: int = 5, runner: str | None = None) -> Report:
    """Measure loops on engines that are already there, against the same loops on the bare engines."""
    with running(chosen(runner)) as engines:
        cases: list[Case] = []
        rivals: list[tuple[str, str]] = []
        for engine in engines:
            ours, bare = f"millrace on {engine.name}", f"bare {engine.name}"
            rival = _bare(engine)
            cases.append(Case(ours, _ours(engine), TASKS, bare if rival else None))
            if rival is not None:
                cases.append(Case(bare, rival, TASKS))
                rivals.append((ours, bare))
        report = measure(f"A loop of {TASKS:,} submits", cases, repeats=repeats)
    for ours, bare in rivals:
        if not bare.endswith("threads"):  # these cost 12 us, and record nothing
            report.want_speed(ours, bare, 1)
    return report


def _ours(engine: Engine) -> Callable[[], None]:
    shaped = loop.with_options(task_runner=engine.runner)

    def ours() -> None:
        assert shaped(TASKS) == TOTAL

    return ours


def _bare(engine: Engine) -> Callable[[], None] | None:
    def dask() -> None:
        futures = [engine.bare.submit(add_one, i, pure=False) for i in range(TASKS)]
        assert sum(engine.bare.gather(futures)) == TOTAL

    def ray() -> None:
        remote = engine.bare.remote(add_one)
        assert sum(engine.bare.get([remote.remote(i) for i in range(TASKS)])) == TOTAL

    def threads() -> None:
        with ThreadPoolExecutor(engine.slots) as pool:
            futures = [pool.submit(add_one, i) for i in range(TASKS)]
            assert sum(future.result() for future in futures) == TOTAL

    return {"dask": dask, "ray": ray, "threads": threads}.get(engine.name)
