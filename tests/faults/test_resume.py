"""What may happen between the death of a flow's process and its resume, or to both at once."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from faultkit.bench import Bench, Trial
from faultkit.plan import random_plan

from orchestration.stores import clock
from orchestration.stores.sqlite import SqliteStore

pytestmark = pytest.mark.timeout(600)

SEQUENTIAL: dict[str, Any] = {"kind": "sequential"}
THREADS: dict[str, Any] = {"kind": "threads"}


def run_id(trial: Trial) -> str | None:
    run = trial.run
    return run.run_id if run else None


def test_many_processes_resume_one_run(bench: Bench) -> None:
    """Three processes resume a crashed run at once: one does it, the others are told so, nothing runs twice."""
    for trial in bench.trials("three processes resume one run", short=1, full=40):
        plan = random_plan(trial.rng, seconds=0.01, persist=True, once=trial.rng.random() < 0.3)
        if not trial.begin(plan, THREADS):
            continue
        found = run_id(trial)
        children = [trial.start(plan, THREADS, resume=found) for _ in range(3)]
        trial.injected()
        codes = [trial.finish(child) for child in children]
        if codes.count(0) > 1:
            trial.violations.append(f"{codes.count(0)} of them resumed it")
        for child, code in zip(children, codes, strict=True):
            if code and not any(name in child.text for name in ("RunAliveError", "RunNotResumableError")):
                trial.violations.append(f"no clear refusal: {child.text[-1500:]}")
        trial.check(plan)


def test_a_stopped_process_is_taken_for_dead(bench: Bench) -> None:
    """A process is stopped, another takes its run over, the first goes on: it must not act on its own any more."""
    for trial in bench.trials("flow process SIGSTOP, run taken over, SIGCONT", short=1, full=30):
        plan = random_plan(trial.rng, width=20, seconds=0.02, persist=True)
        first = trial.start(plan, THREADS)
        trial.wait_for_lines(trial.rng.randint(2, 10), first)
        first.signal(signal.SIGSTOP)
        at = trial.injected()
        found = run_id(trial)
        time.sleep(0.3)  # the silence after which the other process takes it for dead
        second = trial.start(plan, THREADS, resume=found, inject=[["impatient", 0.2]])
        trial.wait_for_lines(trial.lines() + trial.rng.randint(1, 8), second)
        first.signal(signal.SIGCONT)
        ended = trial.finish(second)
        code = trial.finish(first)
        trial.deaths.setdefault(first.pid, at)
        if ended == 0 and code == 0:
            trial.violations.append("both processes believe that they have completed the run")
        trial.to_the_end(plan, THREADS)
        trial.check(plan)


def test_code_changed(bench: Bench) -> None:
    """The task's code has changed when the run is resumed: it runs anew, but for what must not run twice."""
    for trial in bench.trials("code changed between crash and resume", short=1, full=30):
        once = trial.rng.random() < 0.4
        plan = random_plan(trial.rng, seconds=0.01, persist=True, once=once)
        if not trial.begin(plan, THREADS):
            continue
        trial.injected()
        trial.finish(trial.start(plan, THREADS, resume=run_id(trial), inject=[["change_code"]]))
        trial.check(plan, rerun_stored=True)


def test_stored_results_damaged(bench: Bench) -> None:
    """Files of stored results are flipped, cut or deleted: what they held is made again, or is told to be lost."""
    for trial in bench.trials("stored result corrupted or deleted", short=2, full=60):
        plan = random_plan(trial.rng, seconds=0.004, persist=True, once=trial.rng.random() < 0.3)
        runner = trial.rng.choice((SEQUENTIAL, THREADS))
        if not trial.begin(plan, runner, 6, 40):
            continue
        files = sorted(path for path in (trial.home / "results").rglob("*") if path.is_file())
        for path in trial.rng.sample(files, min(len(files), trial.rng.randint(1, 3))):
            data = bytearray(path.read_bytes())
            match trial.rng.choice(("flip", "cut", "delete")):
                case "flip":
                    data[trial.rng.randrange(len(data))] ^= 1 << trial.rng.randrange(8)
                    path.write_bytes(data)
                case "cut":
                    path.write_bytes(data[: trial.rng.randrange(len(data))])
                case "delete":
                    path.unlink()
            trial.injected()
        trial.to_the_end(plan, runner, resumes=1)
        trial.check(plan, rerun_stored=True, damaged=True)


def test_clock_jumps(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock jumps by an hour while the run goes on, and somebody looks for dead runs by either clock."""
    for trial in bench.trials("clock jumps of an hour", short=1, full=40):
        plan = random_plan(trial.rng, width=20, seconds=0.02, persist=True)
        by = trial.rng.choice((3600.0, -3600.0))
        child = trial.start(plan, THREADS, inject=[["jump_clock", trial.rng.uniform(0.0, 0.3), by]])
        trial.wait_for_lines(trial.rng.randint(1, 10), child)
        trial.injected()
        if trial.store_path.exists():
            for offset in (0.0, by):  # as in a process that has begun before, or after, the jump
                monkeypatch.setattr(clock, "_OFFSET", clock._OFFSET + offset)
                watcher = SqliteStore(trial.store_path)
                watcher.reap(watcher.now())
                watcher.close()
                monkeypatch.undo()
        trial.finish(child)
        trial.to_the_end(plan, THREADS)
        trial.check(plan)
        run = trial.run
        if run is not None and run.epoch > 1:
            trial.violations.append("a live run was taken for dead")


def test_events_lie(bench: Bench) -> None:
    """Live events and tables are lost, repeated, late and out of order on their way to the coordinator."""
    for trial in bench.trials("events lost, repeated, reordered, late", short=2, full=80):
        plan = random_plan(trial.rng, seconds=0.004, once=trial.rng.random() < 0.2)
        child = trial.start(plan, trial.rng.choice((SEQUENTIAL, THREADS)), inject=trial.lies())
        trial.finish(child)
        trial.check(plan)


def test_under_a_limit(bench: Bench) -> None:
    """Four processes under one limit of two, killed and resumed: never more than two at once, no lease is left."""
    for trial in bench.trials("flow processes killed under a shared limit", short=1, full=25):
        plan = random_plan(trial.rng, width=10, seconds=0.02, persist=True, limited=True)
        trial.store.set_limit("shared", 2)
        trial.let_go()
        child = trial.start(plan, THREADS)
        for _ in range(trial.rng.randint(1, 4)):
            if not trial.wait_for_lines(trial.lines() + trial.rng.randint(1, 10), child):
                break
            trial.kill(child)
            child = trial.start(plan, THREADS, resume=run_id(trial))
        trial.finish(child)
        trial.to_the_end(plan, THREADS)
        trial.check(plan, limit=2)
