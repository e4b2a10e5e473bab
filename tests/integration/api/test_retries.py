"""Retries of tasks and flows: how often, after how long, for what."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestration import Fail, Retry, exponential_backoff, flow, runtime, task
from runners.base import TaskRunner


@task
def succeed_at(attempt: int) -> int:
    now = runtime.task_run.attempt
    assert now is not None
    if now < attempt:
        raise ValueError(f"attempt {now}")
    return now


def test_retries_until_success(runner: TaskRunner, record: Any) -> None:
    """A failing task is tried again as often as it may be; each attempt is recorded."""

    @flow(task_runner=runner)
    def retries() -> Any:
        return succeed_at.with_options(retries=3).submit(3)

    assert retries() == 3
    (row,) = record.task_runs()
    assert (row.state.title, row.attempts) == ("Completed", 3)
    assert record.outcomes("succeed_at") == ["FAILED", "FAILED", "COMPLETED"]
    assert [a.attempt for a in record.attempts("succeed_at")] == [1, 2, 3]


def test_retries_run_out(runner: TaskRunner, record: Any) -> None:
    """After the last retry the task run has failed with its last error."""

    @flow(task_runner=runner)
    def retries() -> Any:
        succeed_at.with_options(retries=2).submit(9).result()

    with pytest.raises(ValueError, match="attempt 3"):
        retries()
    assert record.outcomes("succeed_at") == ["FAILED"] * 3


def test_retries_per_item(runner: TaskRunner, record: Any) -> None:
    """Items of a map are retried alone; the others are run once."""

    @flow(task_runner=runner)
    def retries() -> Any:
        return succeed_at.with_options(retries=4).map([1, 3, 1, 5, 1])

    assert retries() == [1, 3, 1, 5, 1]
    assert [row.attempts for row in record.task_runs()] == [1, 3, 1, 5, 1]


def test_delays(local_runner: TaskRunner, record: Any) -> None:
    """A list of delays is used in turn, its last entry repeats, and waiting is shown as such."""

    @flow(task_runner=local_runner)
    def retries() -> Any:
        return succeed_at.with_options(retries=3, retry_delay_seconds=[0.0, 0.2]).submit(4)

    assert retries() == 4
    starts = [a.started for a in record.attempts("succeed_at")]
    gaps = [b - a for a, b in pairwise(starts)]
    assert gaps[0] < 0.19
    assert min(gaps[1:]) >= 0.19


def test_delay_functions() -> None:
    """`exponential_backoff` doubles from its factor up to a bound."""
    delay = exponential_backoff(1.5, max_seconds=5)
    assert [delay(n) for n in (1, 2, 3, 4)] == [1.5, 3.0, 5, 5]


def test_waiting_for_a_retry_holds_no_slot(local_runner: TaskRunner) -> None:
    """While one item waits for its retry, others run in its place."""

    @flow(task_runner=local_runner)
    def retries() -> Any:
        slow = succeed_at.with_options(retries=1, retry_delay_seconds=30).submit(2)
        others = [succeed_at.submit(1) for _ in range(10)]
        assert [other.result(timeout=20) for other in others] == [1] * 10
        slow.cancel()

    retries()


def test_retry_raised_by_the_task(runner: TaskRunner, record: Any) -> None:
    """Raising Retry asks for another attempt, after a delay of its own."""

    @task(retries=2, retry_delay_seconds=60)
    def again() -> Any:
        if runtime.task_run.attempt == 1:
            raise Retry("once more", after_seconds=0.01)
        return runtime.task_run.attempt

    @flow(task_runner=runner)
    def retries() -> Any:
        return again.submit()

    assert retries() == 2
    assert record.outcomes("again") == ["RETRY", "COMPLETED"]


def test_retry_without_retries_left(runner: TaskRunner) -> None:
    """Retry does not go beyond the retries of the task."""

    @task(retries=1)
    def again() -> None:
        raise Retry(0)

    @flow(task_runner=runner)
    def retries() -> None:
        again.submit().result()

    with pytest.raises(Retry):
        retries()


def test_fail_raised_by_the_task(runner: TaskRunner, record: Any) -> None:
    """Raising Fail ends the task run without retries."""

    @task(retries=5)
    def hopeless() -> None:
        raise Fail("no use")

    @flow(task_runner=runner)
    def retries() -> None:
        hopeless.submit().result()

    with pytest.raises(Fail, match="no use"):
        retries()
    assert record.task_runs()[0].attempts == 1


def test_retry_condition(runner: TaskRunner, record: Any) -> None:
    """`retry_condition_fn` sees the error and says whether to try again."""

    def only_values(task: Any, task_run: Any, state: Any) -> bool:
        try:
            state.result()
        except ValueError:
            return True
        except KeyError:
            return False
        return False

    @task(retries=3, retry_condition_fn=only_values)
    def picky() -> None:
        raise KeyError("x") if runtime.task_run.attempt == 2 else ValueError("y")

    @flow(task_runner=runner)
    def retries() -> None:
        picky.submit().wait()

    retries()
    assert record.task_runs()[0].attempts == 2


def test_direct_calls_obey_the_same_rules(runner: TaskRunner, record: Any) -> None:
    """A task that is called is retried, and may raise Retry, Skip and Fail, like one that is submitted."""
    from orchestration import Skip

    @task(retries=2)
    def called(how: str) -> Any:
        if runtime.task_run.attempt == 1:
            raise {"retry": Retry, "fail": Fail, "skip": Skip, "error": ValueError}[how]("why")
        return how

    @flow(task_runner=runner)
    def calls() -> Any:
        with pytest.raises(Fail):
            called("fail")
        return called("retry"), called("skip"), called("error")

    assert calls() == ("retry", None, "error")
    assert [(row.state.title, row.attempts) for row in record.task_runs()] == [
        ("Failed", 1),
        ("Completed", 2),
        ("Skipped", 1),
        ("Completed", 2),
    ]


def test_flow_retries(runner: TaskRunner, record: Any) -> None:
    """A flow that raises is run again as a whole; the record tells of each try."""
    tries: list[int] = []

    @flow(task_runner=runner, retries=2, retry_delay_seconds=0.01)
    def flaky() -> Any:
        tries.append(1)
        value = succeed_at.submit(1).result()
        if len(tries) < 3:
            raise RuntimeError("not yet")
        return value

    assert flaky() == 1
    assert len(tries) == 3
    assert record.run().state.title == "Completed"
    assert record.states() == ["Completed"] * 3 or record.states() == ["Completed"]


def test_flow_retries_run_out(local_runner: TaskRunner, record: Any) -> None:
    """After its last retry the flow has failed with its last error."""
    tries: list[int] = []

    @flow(task_runner=local_runner, retries=1)
    def broken() -> None:
        tries.append(1)
        raise RuntimeError(f"try {len(tries)}")

    with pytest.raises(RuntimeError, match="try 2"):
        broken()
    assert record.run().state.title == "Failed"


def test_flow_retries_use_persisted_results(runner: TaskRunner, tmp_path: Path) -> None:
    """With persisted results a retry of the flow does not run again what has completed."""
    notes, tries = tmp_path / "notes", []

    @task
    def note(n: int) -> int:
        with notes.open("a") as file:
            file.write(f"{n} ")
        return n

    @flow(task_runner=runner, retries=1, persist_results=True)
    def flaky() -> Any:
        values = note.map([1, 2, 3]).result()
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("not yet")
        return values + note.map([4]).result()

    assert flaky() == [1, 2, 3, 4]
    assert sorted(notes.read_text().split()) == ["1", "2", "3", "4"]
