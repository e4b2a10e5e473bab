"""What does a mapped item take in the flow's process, in memory and CPU? A process of its own for each runner."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from .harness import Case, Report, Target, measure
from .scheduling.engines import chosen

ITEMS, FEW = 1_000_000, 10_000
MOST_BYTES, MOST_CPU = 200, 8e-6  # per item, by DESIGN.md

PROGRAM = """
import gc, sys, time
import runners
from orchestration import flow, task

@task
def nothing(x):
    return None

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

@flow
def wide(n):
    began = time.process_time()
    futures = nothing.map(range(n))
    futures.wait()
    waiting = time.process_time() - began
    gc.collect()
    waited = resident()
    began = time.process_time()
    values = futures.result()
    assert len(values) == n
    return waited, resident(), waiting + time.process_time() - began

if __name__ == "__main__":
    kinds = {"sequential": runners.SequentialTaskRunner, "threads": runners.ThreadPoolTaskRunner,
             "dask": runners.DaskTaskRunner, "ray": runners.RayTaskRunner}
    few, many = int(sys.argv[2]), int(sys.argv[3])
    shaped = wide.with_options(task_runner=kinds[sys.argv[1]]())
    before, after = shaped(few), shaped(many)
    print(*[(b - a) / (many - few) for a, b in zip(before, after)])
"""


def run(*, repeats: int = 1, runner: str | None = None) -> Report:
    """Measure resident bytes per item when all have ended, and with all results (here None) in a list.

    And the CPU seconds of the process, from the map to the list: on sequential and threads those of the
    tasks, too. What few items take is taken off, so that starting costs nothing here.
    """
    names = chosen(runner)
    found: dict[str, tuple[float, float, float]] = {}
    cases = [Case(f"{name}, whole process", lambda name=name: _measure(name, found), ITEMS) for name in names]
    report = measure(f"{ITEMS:,} items in one map", cases, repeats=repeats, warmup=0)
    for name, (waited, fetched, cpu) in found.items():
        report.notes.append(f"{name}: {waited:.0f} bytes per item when ended, {fetched:.0f} with results")
        report.targets.append(Target(f"per item on {name}", fetched, MOST_BYTES, "bytes", at_most=True))
        report.targets.append(Target(f"of CPU per item on {name}", cpu, MOST_CPU, "s", at_most=True))
    return report


def _measure(name: str, found: dict[str, tuple[float, float, float]]) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        program = os.path.join(folder, "wide.py")
        with open(program, "w", encoding="utf-8") as file:
            file.write(PROGRAM)
        env = {**os.environ, "MILLRACE_HOME": folder, "MILLRACE_DISPLAY": "off"}
        done = subprocess.run(
            [sys.executable, program, name, str(FEW), str(ITEMS)],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
    waited, fetched, cpu = map(float, done.stdout.split()[-3:])
    found[name] = waited, fetched, cpu
