"""Trials of faults: each has a seed, a folder, processes of its own, and a verdict that goes into a row."""

from __future__ import annotations

import contextlib
import math
import os
import random
import shutil
import signal
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from faultkit import checker, history
from faultkit.plan import Plan
from faultkit.processes import Child, is_alive, is_same, marked, wait_until

from orchestration.stores.base import RunRow, Store
from orchestration.stores.postgres import PostgresStore
from orchestration.stores.sqlite import SqliteStore

MODE = os.environ.get("MILLRACE_FAULTS", "short")
SEED = int(os.environ.get("MILLRACE_SEED", "1"))
USUAL_MINUTES = 40.0
MINUTES = float(
    os.environ.get("MILLRACE_FAULTS_MINUTES", USUAL_MINUTES)
)  # after which no further fault begins
BEGAN = time.monotonic()
ENOUGH_VIOLATIONS = 5
# what `Trial.check` expects of a run that somebody has cancelled, perhaps too late
CANCELLED = {"run_states": frozenset({"Completed", "Cancelled"}), "states": frozenset({"Cancelled"})}


@dataclass
class Row:
    """One line of the table: what was injected, and what came of it.

    Attributes:
        how: the fault in a sentence.
        defect: what is known not to hold yet.
        place: of its test, by which rows are sorted.
        made: when, as an ISO date; with which seed, and how long it took.
        again: executions beyond the first; `bad` are those that are not recorded or not allowed.
        wrong: states, what `millrace runs show` says, and what else was not as it should be.
        left: processes, leases and open states.
        spent, redone: seconds of executions, and of those whose result was lost.
    """

    fault: str
    how: str = ""
    defect: str = ""
    place: tuple[str, int] = ("", 0)
    made: str = ""
    seed: int = SEED
    took: float = 0.0
    injected: int = 0
    runs: int = 0
    task_runs: int = 0
    lost: int = 0
    again: int = 0
    bad: int = 0
    wrong: int = 0
    over_limit: int = 0
    left: int = 0
    spent: float = 0.0
    redone: float = 0.0
    recoveries: list[float] = field(default_factory=list)

    def add(self, trial: Trial) -> None:
        """Take over what came of a trial."""
        self.injected += len(trial.injections)
        told = 0
        for verdict in trial.verdicts:
            self.runs += 1
            self.task_runs += verdict.task_runs
            self.lost += len(verdict.lost)
            self.again += verdict.beyond_first
            self.bad += len(verdict.unrecorded) + len(verdict.forbidden)
            self.wrong += len(verdict.wrong) + len(verdict.untrue)
            self.over_limit += len(verdict.over_limit)
            self.left += len(verdict.left_behind)
            self.spent += verdict.seconds
            self.redone += verdict.redone_seconds
            told += len(verdict.violations)
        self.wrong += len(trial.violations) - told
        self.recoveries += trial.recoveries


class Trial:
    """One run, or a few, that one fault is injected into.

    Attributes:
        rng: all that the trial chooses by chance comes from it.
        deaths: of the trial's processes, by pid, by the monotonic clock.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self.rng = random.Random(seed)
        self.mark = f"{os.getpid()}-{folder.name}"
        self.home = folder / "home"
        self.home.mkdir()
        self.store_path = self.home / "millrace.db"
        self.history_path = folder / "history"
        self.children: list[Child] = []
        self.deaths: dict[int, float] = {}
        self.injections: list[float] = []
        self.violations: list[str] = []
        self.verdicts: list[checker.Verdict] = []
        self.recoveries: list[float] = []
        self.environ = {"MILLRACE_HOME": str(self.home), "MILLRACE_DISPLAY": "off"}
        self._store: Store | None = None
        self.postgres = ""  # the URL of a store that is no file

    # --- processes ------------------------------------------------------------------------------

    def start(
        self,
        plan: Plan,
        runner: dict[str, Any],
        *,
        resume: str | None = None,
        inject: list[list[Any]] | None = None,
        fresh: bool = False,
    ) -> Child:
        """Start a process that runs the plan, or resumes a run of it."""
        job = {
            "output": str(self.folder / f"output-{len(self.children)}"),
            "environ": self.environ,
            "runner": runner,
            "plan": plan.data(),
            "history": str(self.history_path),
            "resume": resume,
            "inject": inject or [],
        }
        child = Child(job, self.mark, fresh=fresh)
        self.children.append(child)
        return child

    def begin(self, plan: Plan, runner: dict[str, Any], least: int = 1, most: int = 12) -> bool:
        """Run a plan for a while and kill its process; the kill is no injection. Returns whether it came to that."""
        child = self.start(plan, runner)
        reached = self.wait_for_lines(self.rng.randint(least, most), child)
        if child.running:
            self.deaths[child.pid] = child.kill()
        return reached and child.wait(0) == -signal.SIGKILL

    def kill(self, child: Child) -> None:
        """Kill a flow's process, and note it as an injection."""
        if child.running:
            self.deaths[child.pid] = self.injected()
            child.kill()

    def injected(self) -> float:
        """Note that a fault has been injected now."""
        now = time.monotonic()
        self.injections.append(now)
        return now

    def lies(self) -> list[list[Any]]:
        """Return what makes the events of a flow's process lie, and note it as an injection."""
        lost, repeated, late = self.rng.random(), self.rng.random(), self.rng.choice((0.01, 0.1, 0.5))
        self.injected()
        return [["lie", self.seed, lost, repeated, late]]

    def finish(self, child: Child, timeout: float = 60.0) -> int:
        """Wait for a process to end by itself; one that does not is stuck."""
        code = child.wait(timeout)
        if code is None:
            child.signal(signal.SIGABRT)
            child.wait(5.0)
            child.kill()
            self.violations.append(
                f"stuck: pid {child.pid} still ran after {timeout:g} s\n{child.text[-6000:]}"
            )
            return 255
        if code < 0:
            self.deaths.setdefault(child.pid, time.monotonic())
        return code

    def to_the_end(
        self, plan: Plan, runner: dict[str, Any], *, resumes: int = 5, fresh: bool = False
    ) -> None:
        """Resume the run, or begin it where none is recorded, until its record is complete."""
        for _ in range(resumes):
            run = self.run
            if run is not None and run.state.title == "Completed":
                return
            child = self.start(plan, runner, resume=run.run_id if run else None, fresh=fresh)
            if self.finish(child) == 0:
                return
        self.violations.append(f"stuck: {resumes} resumes did not complete the run\n{self.output}")

    @property
    def output(self) -> str:
        return "\n".join(f"--- process {k}\n{child.text[-2500:]}" for k, child in enumerate(self.children))

    # --- the record -----------------------------------------------------------------------------

    def use_postgres(self, url: str) -> None:
        """Keep the record in a database."""
        self.postgres = self.environ["MILLRACE_STORE"] = url

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = PostgresStore(self.postgres) if self.postgres else SqliteStore(self.store_path)
        return self._store

    def let_go(self) -> None:
        """Close this process's view of the store, before the file is tampered with."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def run(self) -> RunRow | None:
        if not self.postgres and not self.store_path.exists():
            return None
        found = self.store.runs(limit=1)
        return found[0] if found else None

    @property
    def history(self) -> history.History:
        return history.read(self.history_path)

    def lines(self) -> int:
        """Return how many lines the history has by now."""
        return self.history_path.read_bytes().count(b"\n") if self.history_path.exists() else 0

    def wait_for_lines(self, number: int, child: Child, seconds: float = 30.0) -> bool:
        """Wait until so much has happened, or the process has ended. Returns whether it has."""
        wait_until(lambda: self.lines() >= number or not child.running, seconds)
        return self.lines() >= number

    # --- workers --------------------------------------------------------------------------------

    def busy(self, child: Child) -> int | None:
        """Wait until a worker is in the middle of user code; return its pid. None if the flow ends before."""
        found: list[int] = []

        def look() -> bool:
            running = (one for one in self.history.executions if not one.end)
            found[:] = sorted({one.pid for one in running if is_same(one.pid, one.started)})
            return bool(found) or not child.running

        wait_until(look, 30.0)
        return self.rng.choice(found) if found else None

    def strike(self, child: Child, times: int) -> None:
        """Kill workers in the middle of user code, a few times in one run."""
        for _ in range(times):
            self.wait_for_lines(self.lines() + self.rng.randint(1, 12), child)
            pid = self.busy(child)
            if pid is None:
                return
            os.kill(pid, signal.SIGKILL)
            self.deaths[pid] = self.injected()

    def suspend(self, child: Child, seconds: float) -> None:
        """Stop a worker in the middle of user code, and let it go on after a while."""
        pid = self.busy(child)
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            self.injected()
            child.wait(seconds)
            with contextlib.suppress(ProcessLookupError):  # somebody has ended it meanwhile
                os.kill(pid, signal.SIGCONT)

    def cancel(self, child: Child) -> None:
        """Ask from outside, at a random moment, that the run is cancelled."""
        self.wait_for_lines(self.rng.randint(1, 12), child)
        run = self.run
        if run is not None:
            self.store.request(run.run_id, cancel=True)
            self.injected()

    # --- the verdict ----------------------------------------------------------------------------

    def check(self, plan: Plan, **expected: Any) -> checker.Verdict:
        """Judge the run."""
        run = self.run
        told = self.history
        if run is None:
            verdict = checker.Verdict(lost=["no run is recorded"])
        else:
            verdict = checker.check(
                self.store, run.run_id, plan, told, checker.Expected(deaths=self.deaths, **expected)
            )
        self._look_for_processes(verdict, told)
        ends = sorted(one.ended for one in told.executions if one.ended is not None)
        for at in self.injections:
            after = next((end for end in ends if end > at), None)
            if after is not None:
                self.recoveries.append(after - at)
        self.verdicts.append(verdict)
        self.violations += verdict.violations
        return verdict

    def _look_for_processes(self, verdict: checker.Verdict, told: history.History) -> None:
        ours = {child.pid for child in self.children}
        wait_until(lambda: not any(map(is_alive, ours)) and not marked(self.mark), 15.0)
        verdict.left_behind += [f"flow process {pid} runs" for pid in ours if is_alive(pid)]
        verdict.left_behind += [f"process {pid}: {command}" for pid, command in marked(self.mark).items()]

    def close(self) -> None:
        self.let_go()
        for child in self.children:
            child.kill()
        for pid in marked(self.mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


class Bench:
    """Hands out trials, as many as the mode allows, and fails a test whose trials have found something.

    Args:
        to_come: how many tests of faults there are from this one on; they share the time that is left.
    """

    def __init__(
        self, test: str, place: tuple[str, int], rows: list[Row], how: str, defect: str, to_come: int
    ) -> None:
        self.test = test
        self.place = place
        self.rows = rows
        self.how = how
        self.defect = defect
        self.to_come = to_come

    def _enough(self, seconds: float, fault: str) -> float:
        """Return for how long trials of a fault may begin, that was given so many seconds."""
        left = MINUTES * 60 - (time.monotonic() - BEGAN)
        assert left > 0, (
            f"no time is left for {fault}: there were {MINUTES:g} min, see MILLRACE_FAULTS_MINUTES"
        )
        # twice its share: most need less than they may
        return min(seconds * MINUTES / USUAL_MINUTES, 2 * left / self.to_come)

    def trials(self, fault: str, *, short: int, full: int, seconds: float = 40.0) -> Iterator[Trial]:
        """Yield trials of a fault.

        Args:
            short, full: how many; with MILLRACE_FAULTS=one it is one, whose seed is MILLRACE_SEED.
            seconds: after which no further trial begins; less, or more, where the suite has other than its usual time.

        Raises:
            AssertionError: after the last one, with all that was found and how to see it again; or before the first,
                where the whole suite has no time left.
        """
        count = {"full": full, "one": 1}.get(MODE, short)
        if not count:
            pytest.skip("it takes long: make faults")
        began = time.monotonic()
        enough = self._enough(seconds, fault) if MODE == "full" else math.inf
        row = Row(fault, self.how, self.defect, self.place, date.today().isoformat())
        self.rows.append(row)
        own = zlib.crc32(fault.encode()) % 1_000_000
        found: list[str] = []
        for number in range(count):
            seed = SEED if MODE == "one" else SEED * 10_000_000 + own + number
            folder = Path(tempfile.mkdtemp(prefix="millrace-fault-"))
            trial = Trial(seed, folder)
            try:
                yield trial
            finally:
                trial.close()
            row.add(trial)
            row.took = time.monotonic() - began
            if trial.violations:
                found.append(self._report(fault, trial))
            else:
                shutil.rmtree(folder, ignore_errors=True)
            if time.monotonic() - began > enough or len(found) >= ENOUGH_VIOLATIONS:
                break
        assert not found, "\n\n".join(found)

    def _report(self, fault: str, trial: Trial) -> str:
        told = "\n  ".join(trial.violations[:12])
        if len(trial.violations) > 12:
            told += f"\n  and {len(trial.violations) - 12} more"
        (trial.folder / "violations").write_text(told)
        again = f"MILLRACE_FAULTS=one MILLRACE_SEED={trial.seed} python -m pytest '{self.test}'"
        return (
            f"{fault}, seed {trial.seed}:\n  {told}\nkept in {trial.folder}; again: {again}\n{trial.output}"
        )
