"""What does it cost to take up a run again, per task run that is recorded of it?"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable

import runners
from orchestration import flow, task

from .harness import Case, Report, Target, measure

ITEMS = 100_000
SINGLES = 10_000
MOST_SECONDS = 1.0  # for 100,000 recorded task runs
RESUMED, ANEW = "single task runs", "the same, run anew"

nothing = task(lambda x: x, name="nothing")
single = task(lambda x: x, name="single")


@flow
def wide(n: int, repaired: str, fetch: bool) -> int:
    futures = nothing.map(range(n))
    futures.wait()
    if not os.path.exists(repaired):
        raise RuntimeError("as planned")
    return len(futures.result()) if fetch else len(futures)


@flow
def long(n: int, repaired: str, fetch: bool) -> int:
    futures = [single.submit(i) for i in range(n)]
    for future in futures:
        future.wait()
    if not os.path.exists(repaired):
        raise RuntimeError("as planned")
    return len([future.result() for future in futures]) if fetch else n


def run(*, size: int = ITEMS, singles: int = SINGLES, repeats: int = 3) -> Report:
    """Let runs fail when all their task runs have completed and been stored, and measure how long resuming takes."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        cases = [
            Case("a map", _resume(wide, folder, size, fetch=False), size),
            Case("a map, results read", _resume(wide, folder, size, fetch=True), size),
            Case(RESUMED, _resume(long, folder, singles, fetch=False), singles, ANEW),
            Case(ANEW, _anew(folder, singles), singles),
        ]
        report = measure("Resuming runs of which every task run is stored", cases, repeats=repeats, warmup=0)
    reached = report.of("a map").each * 100_000
    report.targets.append(Target("resume, per 100,000 task runs", reached, MOST_SECONDS, "s", at_most=True))
    report.want_speed(RESUMED, ANEW, 1.0)
    share = report.of(RESUMED).each / report.of(ANEW).each
    report.notes.append(
        f"A single task run that is taken over takes {share:.0%} of the time of one that is run, without its work: "
        "the flow function submits it again, its record is read, and the record says that it was taken over."
    )
    return report


def _anew(folder: str, size: int) -> Callable[[], None]:
    """Run the same flow, which ends the same way, without anything to take over."""
    shaped = long.with_options(
        task_runner=runners.SequentialTaskRunner(), store=f"sqlite:///{folder}/bench.db"
    )

    def run() -> None:
        assert shaped(size, folder, False) == size  # a folder that is there: it does not fail

    return run


def _resume(which: object, folder: str, size: int, *, fetch: bool) -> Callable[[], float]:
    numbers = itertools.count()

    def resume() -> float:
        repaired = os.path.join(folder, f"{id(which)}-{fetch}-{next(numbers)}")
        shaped = which.with_options(  # type: ignore[attr-defined]
            task_runner=runners.SequentialTaskRunner(),
            persist_results=True,
            flow_run_name=os.path.basename(repaired),
            store=f"sqlite:///{folder}/bench.db",
            result_storage=os.path.join(folder, "results"),
        )
        state = shaped(size, repaired, fetch, return_state=True)
        assert state.is_failed()
        open(repaired, "w").close()
        began = time.perf_counter()
        assert shaped.resume(os.path.basename(repaired)) == size
        return time.perf_counter() - began

    return resume
