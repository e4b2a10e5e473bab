"""What does a task run cost? A map of no-ops on each runner, beside the bare engines, pools and other orchestrators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from orchestration import flow, task

from .harness import Case, Report, measure
from .peers import peer_cases
from .scheduling.engines import Engine, bare_map, chosen, running

ITEMS = 100_000
BARE_ITEMS = 2_000  # bare engines take milliseconds per task: fewer items give the same rate
CHUNK = 1_000


def noop(x: int) -> int:
    return x


def noops(chunk: range) -> list[int]:
    return [noop(x) for x in chunk]


nothing = task(noop)


@flow
def plain_map(n: int) -> int:
    return len(nothing.map(range(n)).result())


def run(*, repeats: int = 5, runner: str | None = None, size: int = ITEMS) -> Report:
    """Measure flows that are started anew each time, on engines that are already there."""
    names, items = chosen(runner), size
    with ExitStack() as stack:
        engines = stack.enter_context(running(names))
        cases: list[Case] = []
        for engine in engines:
            rival = None if engine.bare is None else f"bare {engine.name}"
            cases.append(Case(f"millrace on {engine.name}", _ours(engine, items), items, rival))
            cases += _bare(engine, items)
        if runner is None:
            cases += stack.enter_context(_Pools(items))
        peers, notes = stack.enter_context(peer_cases(names))
        cases += peers
        question = f"A map of no-ops, {items:,} task runs, journalled to SQLite"
        report = measure(question, cases, repeats=repeats, notes=notes)
    _aim(report)
    return report


def _ours(engine: Engine, items: int) -> Callable[[], None]:
    shaped = plain_map.with_options(task_runner=engine.runner)

    def ours() -> None:
        assert shaped(items) == items

    return ours


def _bare(engine: Engine, items: int) -> Iterator[Case]:
    if engine.bare is None:
        return

    def obvious() -> None:
        assert len(bare_map(engine, noop, range(BARE_ITEMS))) == BARE_ITEMS

    def chunked() -> None:
        chunks = [range(at, min(at + CHUNK, items)) for at in range(0, items, CHUNK)]
        assert sum(map(len, bare_map(engine, noops, chunks))) == items

    yield Case(f"bare {engine.name}", obvious, BARE_ITEMS)
    yield Case(f"bare {engine.name}, chunks of {CHUNK} by hand", chunked, items)


class _Pools:
    """Loops and pools of the standard library, and joblib where it is installed."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.stack = ExitStack()

    def __enter__(self) -> list[Case]:
        items = self.items
        threads = self.stack.enter_context(ThreadPoolExecutor())
        processes = self.stack.enter_context(ProcessPoolExecutor())

        def loop() -> None:
            assert len([noop(x) for x in range(items)]) == items

        def submit() -> None:
            futures = [threads.submit(noop, x) for x in range(items)]
            assert len([future.result() for future in futures]) == items

        def process_map() -> None:
            assert len(list(processes.map(noop, range(items), chunksize=CHUNK))) == items

        cases = [
            Case("plain loop", loop, items),
            Case("ThreadPoolExecutor.submit + result", submit, items),
            Case(f"ProcessPoolExecutor.map, chunks of {CHUNK}", process_map, items),
        ]
        try:
            import joblib
        except ImportError:
            return cases

        def parallel() -> None:
            found = joblib.Parallel(n_jobs=-1)(joblib.delayed(noop)(x) for x in range(items))
            assert len(found) == items

        return [*cases, Case("joblib.Parallel (loky)", parallel, items)]

    def __exit__(self, *_: Any) -> None:
        self.stack.close()


def _aim(report: Report) -> None:
    report.want_speed("millrace on dask", "bare dask", 150)
    report.want_speed("millrace on ray", "bare ray", 50)
    report.want_speed("millrace on dask", f"bare dask, chunks of {CHUNK} by hand", 1.5)
    report.want_speed("millrace on threads", "ThreadPoolExecutor.submit + result", 1)
    report.want_rate("millrace on sequential", 150_000)
    report.want_rate("millrace on threads", 100_000)
    for name, wanted in (("threads", 300), ("dask", 5_000), ("ray", 5_000)):
        report.want_speed(f"millrace on {name}", f"Prefect on {name}", wanted)
