"""PostgreSQL is restarted, ends sessions and stands still under runs that go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from faultkit.bench import Bench, Trial
from faultkit.plan import Plan, random_plan
from faultkit.processes import Child

from orchestration.testing.postgres import PrivateServer, server_programs

pytestmark = [pytest.mark.timeout(600), pytest.mark.postgres]

THREADS: dict[str, Any] = {"kind": "threads"}
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def server(require: Callable[[str, object], None]) -> Iterator[PrivateServer]:
    """A server of this module's own, because it is stopped."""
    require("PostgreSQL's server programs", server_programs())
    with PrivateServer() as server:
        yield server


def begun(trial: Trial, server: PrivateServer) -> tuple[Plan, Child]:
    """Start a run that is recorded in a database of its own, and let it come to user code."""
    trial.use_postgres(server.new_database())
    plan = random_plan(trial.rng, width=20, seconds=0.02, persist=True, once=trial.rng.random() < 0.3)
    child = trial.start(plan, THREADS)
    trial.wait_for_lines(trial.rng.randint(1, 8), child)
    return plan, child


def test_the_server_restarts(bench: Bench, server: PrivateServer) -> None:
    """The server is stopped, at once or in order, and started again: the run waits and goes on."""
    for trial in bench.trials("PostgreSQL restarted", short=0, full=10, seconds=30):
        plan, child = begun(trial, server)
        for _ in range(trial.rng.randint(1, 2)):
            trial.let_go()
            server.stop(trial.rng.choice(("fast", "immediate")))
            trial.injected()
            server.start()
        trial.finish(child)
        trial.check(plan)


def test_sessions_are_ended(bench: Bench, server: PrivateServer) -> None:
    """All connections of the run are ended by the server, again and again."""
    for trial in bench.trials("PostgreSQL connections killed", short=1, full=40, seconds=40):
        plan, child = begun(trial, server)
        for _ in range(trial.rng.randint(1, 10)):
            with psycopg.connect(trial.postgres, autocommit=True) as connection:
                connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({SESSIONS}) AS sessions")
                trial.injected()
            if not trial.wait_for_lines(trial.lines() + trial.rng.randint(0, 3), child):
                break
        trial.finish(child)
        trial.check(plan)


def test_connections_break_in_commit(bench: Bench, server: PrivateServer) -> None:
    """The connection breaks in COMMIT: before the server has it, or before it is heard that it is done."""
    for trial in bench.trials("PostgreSQL connection killed in COMMIT", short=1, full=30, seconds=30):
        trial.use_postgres(server.new_database())
        plan = random_plan(trial.rng, seconds=0.01, persist=True, once=trial.rng.random() < 0.3)
        told = trial.folder / "broken"
        child = trial.start(plan, THREADS, inject=[["break_commits", trial.seed, 0.2, str(told)]])
        trial.finish(child)
        trial.injections += map(float, told.read_text().split() if told.exists() else ())
        trial.check(plan)


def test_flow_process_killed(bench: Bench, server: PrivateServer) -> None:
    """The flow's process is killed in user code and resumed, with the record in PostgreSQL."""
    for trial in bench.trials("flow process killed (PostgreSQL)", short=1, full=40, seconds=40):
        plan, child = begun(trial, server)
        trial.kill(child)
        for _ in range(trial.rng.randint(0, 2)):
            run = trial.run
            child = trial.start(plan, THREADS, resume=run.run_id if run else None)
            if trial.wait_for_lines(trial.lines() + trial.rng.randint(1, 8), child):
                trial.kill(child)
        trial.to_the_end(plan, THREADS)
        trial.check(plan)
