"""Limits: tags, `concurrency()` and `rate_limit()`."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestration import concurrency, flow, rate_limit, task
from orchestration.errors import FencedError, UserError
from orchestration.stores.base import DEAD_AFTER_SECONDS
from runners.base import TaskRunner


def enter_and_leave(folder: Path, hold: float = 0.01) -> int:
    """Return how many are inside together with the caller, itself included."""
    import os
    import uuid

    mark = folder / uuid.uuid4().hex
    mark.touch()
    inside = len(os.listdir(folder))
    time.sleep(hold)
    mark.unlink()
    return inside


def hold(store: Any, holder: str, name: str, slots: int = 1) -> None:
    """Take slots of a limit as another run would."""
    asked = {"holder": holder, "run_id": "other", "epoch": 1, "label": holder}
    grant = store.acquire([name], **asked, slots=slots, now=store.now())
    assert grant.granted


def test_limit_on_a_tag(parallel_runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """Task runs with a limited tag never overlap more than the limit allows."""
    record.store.set_limit("database", 1)
    folder = tmp_path / "inside"
    folder.mkdir()

    @task(tags={"database"})
    def query(n: int) -> int:
        return enter_and_leave(folder)

    @flow(task_runner=parallel_runner)
    def main() -> Any:
        return query.map(range(6)), [query.submit(n) for n in range(4)]

    many, singles = main()
    assert set(many) | set(singles) == {1}
    assert record.store.leases("database", record.store.now()) == []


def test_what_runs_stops_where_the_run_was_given_up(
    runner: TaskRunner, record: Any, until: Any, tmp_path: Path
) -> None:
    """Its slots may be others' by then. So it stops at once, though the flow waits for nothing, and no more begins."""
    begun, stopped = tmp_path / "begun", tmp_path / "stopped"
    for folder in (begun, stopped):
        folder.mkdir()

    @task(batch=1)
    def step(n: int) -> None:
        (begun / str(n)).touch()
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                time.sleep(0.01)
        finally:
            (stopped / str(n)).touch()

    @flow(task_runner=runner)
    def main() -> None:
        step.map(range(12))
        until(lambda: list(begun.iterdir()))
        store = record.store
        assert store.reap(store.now() + DEAD_AFTER_SECONDS + 1) == [record.run().run_id]
        until(lambda: len(list(stopped.iterdir())) == len(list(begun.iterdir())))

    with pytest.raises(FencedError):
        main()
    assert sorted(path.name for path in begun.iterdir()) == sorted(path.name for path in stopped.iterdir())
    assert len(list(begun.iterdir())) <= 4, "one for each slot"
    assert record.run().state.title == "Crashed"


def test_limit_is_shared_by_runs(local_runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """Runs on one store share a limit."""
    record.store.set_limit("shared", 1)
    folder = tmp_path / "inside"
    folder.mkdir()

    @task(tags={"shared"})
    def use() -> int:
        return enter_and_leave(folder)

    @flow(task_runner=local_runner)
    def main() -> Any:
        return [use.submit() for _ in range(3)]

    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.extend(main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [1] * 9


def test_at_most_so_many_of_a_task(parallel_runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """`max_concurrency` counts all maps and submits of a task in a run."""
    folder = tmp_path / "inside"
    folder.mkdir()

    @task(max_concurrency=2)
    def use(n: int) -> int:
        return enter_and_leave(folder)

    @flow(task_runner=parallel_runner)
    def main() -> Any:
        return use.map(range(6)), [use.submit(n) for n in range(4)]

    many, singles = main()
    assert max(*many, *singles) <= 2


def test_a_lease_is_lent_to_one_child_at_a_time(
    parallel_runner: TaskRunner, record: Any, tmp_path: Path
) -> None:
    """A task run under a limit of 1 maps over others under it: none waits for ever, none run at once."""
    record.store.set_limit("database", 1)
    folder = tmp_path / "inside"
    folder.mkdir()

    @task(tags={"database"}, batch=1)
    def query(n: int) -> int:
        return enter_and_leave(folder)

    @task(tags={"database"})
    def load() -> list[int]:
        return query.map(range(4)).result()

    @flow(task_runner=parallel_runner)
    def main() -> Any:
        return load.submit()

    assert main() == [1] * 4


def test_a_run_that_may_wait_for_itself_is_told(
    local_runner: TaskRunner, record: Any, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    """A block that waits for a task run with the same limit as a tag: the run's log says what is wrong, once."""
    monkeypatch.setattr("orchestration.driver.leasing.SUSPICIOUS_SECONDS", 0.1)
    record.store.set_limit("api", 1)

    @task(tags={"api"})
    def query() -> int:
        return 1

    @flow(task_runner=local_runner)
    def main() -> int:
        with concurrency("api"):
            future = query.submit()
            until(lambda: any("neither will go on" in line for line in record.lines()))
        return future.result()

    assert main() == 1
    (line,) = [line for line in record.lines() if "neither will go on" in line]
    assert "the flow function of this same run" in line


def test_waiting_for_a_limit_is_a_state(parallel_runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """What waits for a limit is AwaitingLimit, holds no slot, and can be cancelled."""
    record.store.set_limit("single", 1)
    go, started = tmp_path / "go", tmp_path / "started"

    @task(tags={"single"})
    def hold() -> None:
        started.touch()
        while not go.exists():
            time.sleep(0.005)

    @task
    def free() -> int:
        return 1

    @flow(task_runner=parallel_runner)
    def main() -> Any:
        first = hold.submit()
        while not started.exists():
            time.sleep(0.005)
        second = hold.submit()
        assert free.submit().result(timeout=30) == 1
        end = time.monotonic() + 20
        while second.state.type != "AwaitingLimit":
            assert time.monotonic() < end, second.state
            time.sleep(0.005)
        second.cancel()
        assert second.wait(20)
        go.touch()
        first.result()
        return second.state.type

    assert main() == "Cancelled"


def test_concurrency_block(parallel_runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """`with concurrency(...)` holds slots inside tasks on every runner, and gives them back after errors."""
    record.store.set_limit("api", 1)
    folder = tmp_path / "inside"
    folder.mkdir()

    @task(retries=1)
    def use(n: int) -> int:
        with concurrency("api"):
            inside = enter_and_leave(folder)
            if n == 0:
                raise ValueError("inside the block")
            return inside

    @flow(task_runner=parallel_runner)
    def main() -> Any:
        futures = use.with_options(batch=1).map(range(5))
        futures.wait()
        return [future.result(raise_on_failure=False) for future in futures]

    results = main()
    assert isinstance(results[0], ValueError)
    assert results[1:] == [1] * 4
    assert record.store.leases("api", record.store.now()) == []


def test_concurrency_times_out(local_runner: TaskRunner, record: Any) -> None:
    """Who does not get a limit in time is told who holds it."""
    record.store.set_limit("api", 1)
    hold(record.store, "somebody", "api")

    @flow(task_runner=local_runner)
    def main() -> None:
        with (
            pytest.raises(TimeoutError, match=r"api.*held by somebody"),
            concurrency("api", timeout_seconds=0.1),
        ):
            pass
        record.store.release(["somebody"])
        with concurrency("api", timeout_seconds=5), concurrency("unknown"):
            pass

    main()
    assert record.store.leases("api", record.store.now()) == []


def test_what_is_held_is_not_taken_again(parallel_runner: TaskRunner, record: Any) -> None:
    """Blocks in blocks, in tasks under a tag, in tasks that such a task calls: none waits for what it has."""
    record.store.set_limit("api", 1)

    @task(tags={"api"})
    def inner() -> int:
        with concurrency("api"):
            return 1

    @task(tags={"api"})
    def outer() -> int:
        with concurrency("api"), concurrency("api"):
            return inner() + inner.submit().result()

    @task(tags={"api"})
    def greedy() -> None:
        with concurrency("api", 2):
            pass

    @flow(task_runner=parallel_runner)
    def main() -> Any:
        with concurrency("api"), concurrency("api"):
            pass
        with pytest.raises(UserError, match="might wait for itself"):
            greedy.submit().result()
        with pytest.raises(UserError, match="outer block"), concurrency("api"), concurrency("api", 2):
            pass
        return outer.submit().result()

    assert main() == 2
    assert record.store.leases("api", record.store.now()) == []


def test_occupy_several_slots(local_runner: TaskRunner, record: Any) -> None:
    """A block may occupy several slots of a limit."""
    record.store.set_limit("wide", 3)
    hold(record.store, "somebody", "wide", slots=2)

    @flow(task_runner=local_runner)
    def main() -> None:
        with pytest.raises(TimeoutError), concurrency("wide", 2, timeout_seconds=0.05):
            pass
        with concurrency("wide", 1, timeout_seconds=5):
            pass

    main()


def test_rate_limit(parallel_runner: TaskRunner, record: Any) -> None:
    """A rate limit spaces out what asks for its tokens, on every runner."""
    record.store.set_limit("slow", 1, per_second=10)

    @task
    def call(n: int) -> float:
        rate_limit("slow")
        return time.time()

    @flow(task_runner=parallel_runner)
    def main() -> Any:
        return call.map(range(5))

    times = sorted(main())
    assert times[-1] - times[0] >= 0.3


def test_outside_of_runs() -> None:
    """Limits belong to runs."""
    with pytest.raises(UserError), concurrency("x"):
        pass


@pytest.mark.parametrize("then", ["waits", "holds"])
def test_a_worker_that_dies_in_a_block_holds_nothing(
    process_runner: TaskRunner, record: Any, then: str
) -> None:
    """What code on a worker held or waited for comes free with the loss of its batch, not with the flow run's end."""
    store = record.store
    store.set_limit("api", 1)
    if then == "waits":
        hold(store, "somebody", "api")

    @task(retries_on_loss=0)
    def die() -> None:
        import os
        import threading

        if then == "waits":
            threading.Timer(0.5, os._exit, (3,)).start()
        with concurrency("api"):
            os._exit(3)

    @flow(task_runner=process_runner)
    def main() -> Any:
        future = die.submit()
        future.wait()
        store.release(["somebody"])
        with concurrency("api", timeout_seconds=20):
            return future.state.type

    assert main() == "Crashed"
