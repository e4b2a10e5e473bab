"""An hour of ordinary work while workers are killed: `make soak`, or `python tests/faults/soak.py --minutes 5`.

One process runs mixed flows one after another: maps of all sizes, maps over maps, retries, a limit, large results,
single task runs. Every few seconds a worker is killed. Each run has to give exactly its results, and what the process
holds (memory, open files, threads) and what a task run takes in the journal must not grow with time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from orchestration import flow, task
from orchestration.stores import open_store
from runners import DaskTaskRunner, RayTaskRunner, ThreadPoolTaskRunner

WARM = 0.25  # share of the time after which nothing may grow any more
MORE_MEMORY = 64 << 20  # bytes that the process may have more at the end than when it was warm ...
MORE_FILES = 20  # ... open files ...
MORE_THREADS = 10  # ... and threads
JOURNAL_BYTES = 400  # per task run, all of the store's files together: most of these flows are small
LIMIT = "soak"


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process held after a run."""

    seconds: float
    runs: int
    task_runs: int
    kills: int
    memory: int
    files: int
    threads: int
    store: int


def here(folder: str) -> None:
    """Show the killer which processes there are. A number alone may soon be another process's."""
    me = psutil.Process()
    Path(folder, f"{me.pid}-{me.create_time()!r}").touch()


def process_of(shown: Path) -> psutil.Process | None:
    """Return the process that has shown itself, if it is still there."""
    pid, _, began = shown.name.partition("-")
    try:
        process = psutil.Process(int(pid))
        return process if process.create_time() == float(began) else None
    except psutil.NoSuchProcess:
        return None


@task(retries_on_loss=100)
def quick(x: int, folder: str) -> int:
    if x % 1000 == 0:
        here(folder)
    return x + 1


@task(retries_on_loss=100)
def twice(x: int) -> int:
    return 2 * x


@task(retries=5, retries_on_loss=100)
def flaky(x: int) -> int:
    from orchestration import runtime

    if runtime.task_run.attempt <= x % 3:
        raise ValueError(f"not yet: {x}")
    return x


@task(tags={LIMIT}, retries_on_loss=100)
def limited(x: int, folder: str) -> int:
    here(folder)
    time.sleep(0.02)
    return x


@task(retries_on_loss=100)
def large(x: int) -> bytes:
    return bytes([x % 256]) * 200_000


@flow
def mixed(seed: int, folder: str) -> int:
    """Run some of everything; return a number that tells whether all results were right."""
    rng = random.Random(seed)
    n = rng.choice([1, 10, 1_000, 20_000])
    chained = twice.map(quick.map(range(n), folder=folder))
    several = flaky.map(range(rng.randint(1, 60)))
    few = limited.map(range(rng.randint(1, 20)), folder=folder)
    blobs = large.map(range(rng.randint(1, 8)))
    single = [quick.submit(k, folder) for k in range(5)]
    wrong = sum(chained.result()) - n * (n + 1)
    wrong += sum(several.result()) - sum(range(len(several)))
    wrong += sum(few.result()) - sum(range(len(few)))
    wrong += sum(len(blob) for blob in blobs.result()) - 200_000 * len(blobs)
    return wrong + sum(f.result() for f in single) - 15


class Killer(threading.Thread):
    """Kills one of the processes that have shown themselves, again and again."""

    def __init__(self, folder: Path, every: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._folder, self._every, self._rng = folder, every, random.Random(seed)
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._every):
            alive = []
            for shown in list(self._folder.iterdir()):
                process = process_of(shown)
                if process is None:
                    shown.unlink(missing_ok=True)
                elif process.pid != os.getpid():
                    alive.append(process)
            if alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._rng.choice(alive).kill()  # looks once more whether it is still the same process
                    self.kills += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


def soak(minutes: float, runner: Any, kill_every: float, seed: int, home: Path) -> list[Sample]:
    """Run flows until the time is over. Raises AssertionError at the first wrong result."""
    process, began = psutil.Process(), time.monotonic()
    pids = home / "pids"
    pids.mkdir()
    store = open_store(os.environ["MILLRACE_STORE"])
    store.set_limit(LIMIT, 2)
    killer = Killer(pids, kill_every, seed)
    killer.start()
    samples: list[Sample] = []
    task_runs = 0
    while time.monotonic() - began < 60 * minutes:
        state = mixed.with_options(task_runner=runner)(seed + len(samples), str(pids), return_state=True)
        assert state.is_completed(), f"run {len(samples)}: {state.name}: {state.message}"
        assert state.result() == 0, f"run {len(samples)} is wrong by {state.result()}"
        task_runs += sum(sum(node.counts) for node in store.nodes(store.runs(limit=1)[0].run_id))
        size = sum(path.stat().st_size for path in home.iterdir() if path.is_file())
        samples.append(
            Sample(
                time.monotonic() - began, len(samples) + 1, task_runs, killer.kills,
                process.memory_info().rss, process.num_fds(), threading.active_count(), size,
            )
        )  # fmt: skip
        if len(samples) % 10 == 1:
            print(line(samples[-1]), flush=True)
    killer.stop()
    return samples


def line(s: Sample) -> str:
    return (
        f"{s.seconds:6.0f} s {s.runs:5} runs {s.task_runs:9,} task runs {s.kills:4} kills {s.memory >> 20:5} MiB "
        f"{s.files:4} files {s.threads:3} threads {s.store / max(1, s.task_runs):5.0f} B each"
    )


def growth(samples: list[Sample]) -> list[str]:
    """Say what has grown since the process was warm."""
    warm = next(s for s in samples if s.seconds >= WARM * samples[-1].seconds)
    last, found = samples[-1], []
    for name, more in (("memory", MORE_MEMORY), ("files", MORE_FILES), ("threads", MORE_THREADS)):
        before, after = getattr(warm, name), getattr(last, name)
        if after > before + more:
            found.append(f"{name} grew from {before:,} to {after:,}")
    if last.store > JOURNAL_BYTES * last.task_runs + (1 << 20):
        found.append(f"the store has {last.store / last.task_runs:.0f} bytes per task run")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--runner", choices=["dask", "ray", "threads"], default="dask")
    parser.add_argument("--kill-every", type=float, default=4.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="millrace-soak-") as folder:
        os.environ |= {"MILLRACE_STORE": f"{folder}/millrace.db", "MILLRACE_DISPLAY": "off"}
        runner = {
            "dask": lambda: DaskTaskRunner(cluster_kwargs={"n_workers": 2}),
            "ray": RayTaskRunner,
            "threads": ThreadPoolTaskRunner,
        }[told.runner]()
        samples = soak(told.minutes, runner, told.kill_every, told.seed, Path(folder))
        print(line(samples[-1]))
    grown = growth(samples)
    print("\n".join(grown) or "nothing has grown, nothing was lost, nothing was wrong")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
