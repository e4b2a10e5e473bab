"""How small may tasks be? METG(50%) of Task Bench's dependence patterns, for Millrace and for the bare engines.

METG(50%) is the smallest task for which half of the cores' time goes into tasks. Every task checks that it got
exactly the results that it depends on; a wrong one ends the benchmark. Times are those of a task's own work: Task
Bench's plots show `wall * cores / tasks`, which is twice as much at an efficiency of one half.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from orchestration import flow, task, unmapped

from .harness import Case, Report, Target, duration, measure
from .scheduling.engines import Engine, chosen, running
from .scheduling.granularity import Peak, burn, metg, peak, sweep
from .scheduling.patterns import PATTERNS, dependencies, grid

WIDTH = 1024
# Bare engines take milliseconds per task, so their METG is searched with a narrower graph. What they make of tasks of
# that size in a graph as wide as Millrace's is measured, too: one half of the cores again, if they do not mind the
# width. Millrace's cost per task depends on it: batches grow with the width.
BARE_WIDTH = 128
STEPS = 8
DEFAULT_PATTERNS = ("no_comm", "stencil_1d")
TARGETS = {"no_comm": 0.1, "stencil_1d": 1.0}  # of the bare engine's METG(50%), on Dask and Ray

Point = tuple[int, int]  # (timestep, point): what a task returns
Rows = Sequence[Sequence[Point]]


class WrongInputError(Exception):
    """A task did not get what it depends on."""


def work(point: int, inputs: Sequence[Point], step: int, pattern: str, width: int, loops: int) -> Point:
    """Be busy and return one's own name, if the inputs are those of the pattern."""
    expected = [(step - 1, needed) for needed in dependencies(pattern, width, step, point)]
    if list(inputs) != expected:
        raise WrongInputError(f"point {point} of timestep {step} was given {inputs}, not {expected}")
    burn(loops)
    return step, point


def work_after(point: int, result: Point, step: int, pattern: str, width: int, loops: int) -> Point:
    """Do the same with one input that is no list."""
    return work(point, [result], step, pattern, width, loops)


node = task(work, name="work")
node_after = task(work_after, name="work")


@flow
def graph(pattern: str, width: int, steps: int, loops: int) -> Any:
    rows: list[Any] = []
    for step, needs in enumerate(grid(pattern, width, steps)):
        points = range(len(needs))
        rest = {"step": step, "pattern": pattern, "width": width, "loops": loops}
        if step == 0 or pattern == "trivial":
            rows.append(node.map(points, unmapped([]), **rest))
        elif pattern == "no_comm":
            rows.append(node_after.map(points, rows[-1], **rest))
        else:
            rows.append(node.map(points, [[rows[-1][i] for i in needed] for needed in needs], **rest))
    return rows


def run(
    *,
    repeats: int = 3,
    runner: str | None = None,
    patterns: Sequence[str] = DEFAULT_PATTERNS,
    width: int = WIDTH,
    bare_width: int = BARE_WIDTH,
    steps: int = STEPS,
) -> Report:
    """Search METG(50%) of each pattern on engines that are already there.

    Args:
        patterns: names of `PATTERNS`; "all" is all of them.
    """
    wanted = list(PATTERNS) if "all" in patterns else list(patterns)
    names = chosen(runner, ("dask", "ray"))
    with ExitStack() as stack:
        engines = stack.enter_context(running(names))
        rivals = [(pattern, engine) for pattern in wanted for engine in engines if engine.name in BARE]
        cases: list[Case] = []
        for pattern in wanted:
            for engine in engines:
                cases += _cases(stack, pattern, engine, (width, bare_width), steps)
        question = f"METG(50%): {steps} timesteps of up to {width} points, {bare_width} for bare engines"
        report = measure(question, cases, repeats=repeats, warmup=0)
        if width != bare_width:
            report.notes += [_widened(report, pattern, engine, width, steps) for pattern, engine in rivals]
    report.notes += [
        note for pattern in wanted for engine in engines if (note := _note(report, pattern, engine))
    ]
    return report


def _cases(stack: ExitStack, pattern: str, engine: Engine, widths: tuple[int, int], steps: int) -> list[Case]:
    """Return the cases of a pattern on an engine, each a search that begins where the last one ended."""
    cores = 1 if engine.name in {"sequential", "threads"} else engine.slots  # one GIL is one core
    top = stack.enter_context(peak(cores))
    shaped = graph.with_options(task_runner=engine.runner)
    width, bare_width = widths

    def ours(loops: int) -> Rows:
        return shaped(pattern, width, steps, loops)

    cases = [_case(f"{pattern}, millrace on {engine.name}", ours, grid(pattern, width, steps), cores, top)]
    if engine.name in BARE:

        def bare(loops: int) -> Rows:
            return BARE[engine.name](engine.bare, pattern, bare_width, steps, loops)

        cases.append(
            _case(f"{pattern}, bare {engine.name}", bare, grid(pattern, bare_width, steps), cores, top)
        )
    return cases


def _case(
    name: str, go: Callable[[int], Rows], needs: Sequence[Sequence[Any]], cores: int, top: Peak
) -> Case:
    expected = _own(needs)
    tasks = sum(map(len, expected))

    def checked(loops: int) -> None:
        _check(name, go(loops), expected)

    efficiency = sweep(checked, tasks, cores, top)
    last: list[float] = []

    def search() -> float:
        if not last:
            checked(1)
            began = time.perf_counter()
            checked(1)
            last.append(0.7 * (time.perf_counter() - began) * cores / tasks)
        last.append(metg(efficiency, last[-1]))
        return last[-1]

    return Case(name, search)


def _widened(report: Report, pattern: str, engine: Engine, width: int, steps: int) -> str:
    """Run a bare engine's graph as wide as Millrace's, with tasks as long as its METG(50%); return what came of it."""
    name = f"{pattern}, bare {engine.name}"
    needs = grid(pattern, width, steps)

    def bare(loops: int) -> None:
        _check(name, BARE[engine.name](engine.bare, pattern, width, steps, loops), _own(needs))

    with peak(engine.slots) as top:
        seconds, found = sweep(bare, sum(map(len, needs)), engine.slots, top)(report.of(name).median)
    return f"{name}, {width} points: tasks of {duration(seconds)} use {found:.0%} of the cores"


def _own(needs: Sequence[Sequence[Any]]) -> list[list[Point]]:
    """Return the results of a graph: each task's own name."""
    return [[(step, point) for point in range(len(row))] for step, row in enumerate(needs)]


def _check(name: str, rows: Rows, expected: Sequence[Sequence[Point]]) -> None:
    if [list(row) for row in rows] != expected:
        raise WrongInputError(f"{name}: a task's result is not its own")


def _note(report: Report, pattern: str, engine: Engine) -> str | None:
    if engine.name not in BARE:
        return None
    ours, bare = (report.of(f"{pattern}, {which} {engine.name}").median for which in ("millrace on", "bare"))
    if pattern in TARGETS:
        name = f"bare {engine.name}'s, {pattern}"
        report.targets.append(Target(name, ours / bare, TARGETS[pattern], at_most=True))
    return f"{pattern} on {engine.name}: {ours / bare:.2f} of the bare engine's"


def _bare_dask(client: Any, pattern: str, width: int, steps: int, loops: int) -> Rows:
    """Run the graph the faster way: a map where there is a result for each point, else submit (delayed: slower)."""
    rows: list[Any] = []
    for step, needs in enumerate(grid(pattern, width, steps)):
        rest = {"step": step, "pattern": pattern, "width": width, "loops": loops}
        points = range(len(needs))
        if step == 0 or pattern == "trivial":
            rows.append(client.map(work, points, inputs=[], pure=False, **rest))
        elif pattern == "no_comm":
            rows.append(client.map(work_after, points, rows[-1], pure=False, **rest))
        else:
            given = [[rows[-1][i] for i in needed] for needed in needs]
            rows.append([client.submit(work, p, given[p], pure=False, **rest) for p in points])
    results: Rows = client.gather(rows)
    return results


def _bare_ray(ray: Any, pattern: str, width: int, steps: int, loops: int) -> Rows:
    remote = ray.remote(_work_of_refs)
    rows: list[Any] = []
    for step, needs in enumerate(grid(pattern, width, steps)):
        before = rows[-1] if rows else []
        rows.append(
            [
                remote.remote(point, step, pattern, width, loops, *[before[i] for i in needed])
                for point, needed in enumerate(needs)
            ]
        )
    return [ray.get(row) for row in rows]


def _work_of_refs(point: int, step: int, pattern: str, width: int, loops: int, *inputs: Point) -> Point:
    return work(point, inputs, step, pattern, width, loops)


BARE: dict[str, Callable[..., Rows]] = {"dask": _bare_dask, "ray": _bare_ray}
