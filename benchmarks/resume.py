"""What does it cost to take up a run again, per task run that is recorded of it?"""

from __future__ import annotations

import itertools
import os
import statistics
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

_entered: list[float] = []  # when a flow function began

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
    _entered.append(time.perf_counter())
    futures = [single.submit(i) for i in range(n)]
    for future in futures:
        future.wait()
    if not os.path.exists(repaired):
        raise RuntimeError("as planned")
    return len([future.result() for future in futures]) if fetch else n


def run(*, size: int = ITEMS, singles: int = SINGLES, repeats: int = 3) -> Report:
    """Let runs fail when all their task runs have completed and been stored, and measure how long resuming takes."""
    before: list[float] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        cases = [
            Case("a map", _resume(wide, folder, size, fetch=False), size),
            Case("a map, results read", _resume(wide, folder, size, fetch=True), size),
            Case(RESUMED, _resume(long, folder, singles, fetch=False, before=before), singles, ANEW),
            Case(ANEW, _anew(folder, singles), singles),
        ]
        report = measure("Resuming runs of which every task run is stored", cases, repeats=repeats, warmup=0)
    reached = report.of("a map").each * 100_000
    report.targets.append(Target("resume, per 100,000 task runs", reached, MOST_SECONDS, "s", at_most=True))
    report.want_speed(RESUMED, ANEW, 1.0)
    reading = statistics.median(before) / singles
    report.targets.append(
        Target(
            "before the flow's code, per 100,000 singles", reading * 100_000, MOST_SECONDS, "s", at_most=True
        )
    )
    resumed, anew = report.of(RESUMED).each, report.of(ANEW).each
    report.notes.append(
        f"A single task run that is taken over takes {resumed / anew:.0%} of the time of one that is run, without its "
        f"work: {reading * 1e6:.0f} us to read the record before the flow's code begins, and "
        f"{(resumed - reading) * 1e6:.0f} us for the flow function's submit, to find it and to write that it was "
        f"taken over; one that is run takes {anew * 1e6:.0f} us."
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


def _resume(
    which: object, folder: str, size: int, *, fetch: bool, before: list[float] | None = None
) -> Callable[[], float]:
    """Return what makes a run fail and resumes it; `before` takes the seconds until the flow's code has begun."""
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
        ended = time.perf_counter()
        if before is not None:
            before.append(_entered[-1] - began)
        return ended - began

    return resume
