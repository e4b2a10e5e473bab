"""Loops of submits: short task runs share batches, and nobody can tell but by the time they take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from orchestration import Skip, flow, get_run_logger, task
from runners.base import TaskRunner


def test_each_of_a_loop_ends_in_its_own_way(runner: TaskRunner, record: Any) -> None:
    """Results, failures, retries, skips, names and log lines are those of their task run, whatever shared its batch."""

    @task(retries=1, task_run_name="number {n}")
    def odd_or_not(n: int, before: Any = None) -> int:
        get_run_logger().warning("this is %d", n)
        if n % 10 == 3:
            raise ValueError(f"no {n}")
        if n % 10 == 7:
            raise Skip(f"not {n}")
        return n

    @flow
    def loop() -> Any:
        odd_or_not.submit(0).wait()  # so that it is known to be short
        firsts = [odd_or_not.submit(n) for n in range(100)]
        seconds = [odd_or_not.submit(n + 100, before=first) for n, first in enumerate(firsts)]
        for future in [*firsts, *seconds]:
            future.wait()
        return [[future.state.name for future in futures] for futures in (firsts, seconds)]

    firsts, seconds = loop.with_options(task_runner=runner)()
    expected = {3: "Failed", 7: "Skipped"}
    assert firsts == [expected.get(n % 10, "Completed") for n in range(100)]
    assert seconds == [{3: "UpstreamFailed", 7: "Skipped"}.get(n % 10, "Completed") for n in range(100)]
    rows = record.task_runs("odd_or_not")[1:]
    assert [row.name for row in rows[:3]] == ["number 0", "number 1", "number 2"]
    assert [row.attempts for row in rows[:100]] == [2 if n % 10 == 3 else 1 for n in range(100)]
    said = [line for line in record.logs() if line.message == "this is 42"]
    assert len(said) == 1
    run = record.run()
    batches = [record.store.attempts(run.run_id, row.node_id, 0)[0].batch_id for row in rows if row.attempts]
    assert len(set(batches)) < len(batches) / 2


def test_those_that_wait_for_one_another_get_there(
    parallel_runner: TaskRunner, record: Any, tmp_path: Path
) -> None:
    """One that waits for what a later one does would wait for ever if that had to wait behind it."""
    done = tmp_path / "done"

    @task
    def meet(part: str, path: str) -> str:
        if part == "last":
            Path(path).touch()
        end = time.monotonic() + 60.0
        while part == "first" and not Path(path).exists() and time.monotonic() < end:
            time.sleep(0.01)
        return f"{part} {Path(path).exists()}"

    @flow
    def meeting() -> Any:
        meet.submit("before", str(done)).wait()
        parts = ["first", *["between"] * 20, "last"]
        return [future.result() for future in [meet.submit(part, str(done)) for part in parts]]

    found = meeting.with_options(task_runner=parallel_runner)()
    assert (found[0], found[-1]) == ("first True", "last True")
    assert [row.attempts for row in record.task_runs("meet")] == [1] * 23
