"""What the store says of a run equals what happened."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from orchestration import Skip, flow, runtime, task
from runners.base import TaskRunner
from runners.messages import BatchStarted, Outcome
from runners.threads import ThreadPoolTaskRunner


@task
def work(n: int) -> tuple[int, float, float]:
    began = time.time()
    time.sleep(0.02)
    return os.getpid(), began, time.time()


@task(retries=2)
def act(how: str) -> str:
    if how == "skip":
        raise Skip("no need")
    if how == "flaky" and (runtime.task_run.attempt or 0) < 2:
        raise KeyError("first")
    if how == "fail":
        raise ValueError("always")
    return how


@task
def after(x: Any) -> Any:
    return x


def test_times_and_workers(runner: TaskRunner, record: Any) -> None:
    """Start, duration and worker of each attempt are those that its code saw."""
    before = time.time()

    @flow(task_runner=runner)
    def main() -> Any:
        return work.map(range(4))

    seen = main()
    run = record.run()
    assert before - 0.1 <= run.created <= run.started <= run.ended <= time.time() + 0.1
    for (pid, began, ended), row in zip(seen, record.task_runs(), strict=True):
        assert str(pid) in row.worker
        assert row.started == pytest.approx(began, abs=0.15)
        assert row.seconds == pytest.approx(ended - began, abs=0.15)
        assert row.seconds >= 0.019


def test_states_attempts_and_errors(runner: TaskRunner, record: Any) -> None:
    """The record has each task run's state, its attempts, the errors' types and tracebacks, and root causes."""

    @flow(task_runner=runner, name="recorded")
    def main() -> Any:
        first = act.map(["ok", "skip", "flaky", "fail"])
        second = after.map(first)
        second.wait()

    main()
    rows = record.task_runs("act")
    assert [(row.state.title, row.attempts) for row in rows] == [
        ("Completed", 1),
        ("Skipped", 1),
        ("Completed", 2),
        ("Failed", 3),
    ]
    assert record.states("after") == ["Completed", "Skipped", "Completed", "UpstreamFailed"]
    failed = record.attempts("act", 3)
    assert [row.attempt for row in failed] == [1, 2, 3]
    assert {row.detail.type_name for row in failed} == {"ValueError"}
    assert all('raise ValueError("always")' in row.detail.traceback for row in failed)
    assert len({row.execution_id for row in failed}) == 3
    assert "act[3]" in record.task_runs("after")[3].reason
    assert [Outcome(row.outcome).name for row in record.attempts("act", 2)] == ["FAILED", "COMPLETED"]
    errors = {group.error.type_name: group.count for group in record.store.failures(record.run().run_id)}
    assert errors["ValueError"] == 1
    assert "KeyError" not in errors


def test_nodes(runner: TaskRunner, record: Any) -> None:
    """Nodes have path, kind, width, upstream, policy and counts."""

    @flow(task_runner=runner)
    def main() -> None:
        first = after.map([1, 2, 3])
        act.submit("ok", wait_for=[first])
        after.map(after.submit([1, 2]))
        after(9)

    main()
    nodes = record.nodes()
    assert [(node.path, node.kind, node.width) for node in nodes] == [
        ("after-0", "map", 3),
        ("act-0", "single", 1),
        ("after-1", "single", 1),
        ("after-2", "map", 2),
        ("after-3", "call", 1),
    ]
    assert nodes[1].upstream == (nodes[0].node_id,)
    assert nodes[3].upstream == (nodes[2].node_id,)
    assert nodes[1].policy["retries"] == 2
    assert sum(nodes[0].counts) == 3


def test_history(runner: TaskRunner, record: Any) -> None:
    """The history of a task run leads from its beginning to its end, in the order of time."""

    @flow(task_runner=runner)
    def main() -> None:
        act.submit("flaky")

    main()
    run = record.run()
    rows = record.store.history(run.run_id, 0, 0)
    times = [row.at for row in rows]
    assert times == sorted(times)
    assert record.task_runs()[0].state.title == "Completed"


class PartingRunner(ThreadPoolTaskRunner):
    """Tells while it is closed that a batch has begun once more."""

    def close(self) -> None:
        self._emit(BatchStarted(0, "again", "elsewhere:1", time.time()))
        super().close()


def test_a_start_that_is_heard_of_at_the_end(record: Any) -> None:
    """What a runner tells of while it is closed is in the record, once."""

    @flow(task_runner=PartingRunner(2))
    def main() -> int:
        return len(work.submit(1).result())

    assert main() == 3
    run = record.run()
    told = [row.reason for row in record.store.history(run.run_id, 0, 0) if "second time" in row.reason]
    assert told == ["started a second time on elsewhere:1 as again"]
    assert record.task_runs()[0].state.title == run.state.title == "Completed"


def test_the_run_itself(runner: TaskRunner, record: Any) -> None:
    """The run's row has its flow, parameters, runner, process, entry point and counts."""

    @flow(task_runner=runner, version="3")
    def main(n: int, path: Path) -> None:
        after.map(range(n))

    main(3, "x/y")
    row = record.run()
    assert (row.flow_name, row.version, row.pid) == ("main", "3", os.getpid())
    assert row.parameters == {"n": 3, "path": "x/y"}
    assert row.runner in ("sequential", "threads", "dask", "ray")
    assert sum(row.counts) == 3


def test_a_result_is_not_ahead_of_the_record(runner: TaskRunner, record: Any) -> None:
    """When the flow sees that a task run has ended, the record says so already."""

    @flow(task_runner=runner)
    def main() -> None:
        for _ in range(10):
            future = after.submit(1)
            future.wait()
            rows = record.store.task_runs(future.run_id, node_id=future.node_id)
            assert [row.state.title for row in rows] == ["Completed"]

    main()


def test_subscribers_hear_everything(local_runner: TaskRunner, record: Any) -> None:
    """A subscriber in this process hears of every change until the run has ended."""
    import threading

    from orchestration import subscribe

    heard: list[Any] = []
    threads: list[threading.Thread] = []

    @flow(task_runner=local_runner)
    def main() -> None:
        ready = threading.Event()
        run_id = str(runtime.flow_run.id)

        def listen() -> None:
            changes = subscribe(run_id)
            ready.set()
            heard.extend(changes)

        threads.append(threading.Thread(target=listen))
        threads[0].start()
        ready.wait(10)
        while not after.submit(1).wait(10) or not heard:
            pass
        act.submit("fail").wait()

    main()
    threads[0].join(20)
    assert not threads[0].is_alive()
    assert heard[-1].kind == "run"
    assert heard[-1].state == "Completed"
    assert any(change.task_name == "act" and change.state == "Failed" for change in heard)
