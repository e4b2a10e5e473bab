"""Futures: results, waiting, exceptions, callbacks, `wait` and `as_completed`."""

from __future__ import annotations

import concurrent.futures
import re
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration import TaskRunFuture, as_completed, flow, quote, task, wait
from orchestration.errors import CancelledRunError, MillraceError, UserError
from runners.base import TaskRunner
from runners.errors import RemoteTraceback


@task
def double(x: int) -> int:
    return 2 * x


@task
def divide(x: int, y: int) -> float:
    return x / y


def _wait_for_file(path: Path) -> str:
    import time

    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.005)
    return path.name


@task
def hold(path: Path) -> str:
    return _wait_for_file(path)


def test_result_of_a_submitted_task(runner: TaskRunner) -> None:
    """`submit` returns at once and `result` waits."""

    @flow(task_runner=runner)
    def one() -> Any:
        future = double.submit(4)
        assert isinstance(future, TaskRunFuture)
        return future.result(), future.done(), future.state.type, future.exception()

    assert one() == (8, True, "Completed", None)


def test_original_exception_with_the_remote_traceback(runner: TaskRunner) -> None:
    """The task's own exception type is raised, and its cause shows where it was raised."""

    @flow(task_runner=runner)
    def fails() -> Any:
        future = divide.submit(1, 0)
        with pytest.raises(ZeroDivisionError) as caught:
            future.result()
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert "return x / y" in str(caught.value.__cause__)
        assert isinstance(future.exception(), ZeroDivisionError)
        assert isinstance(future.result(raise_on_failure=False), ZeroDivisionError)
        return future.state.type

    assert fails() == "Failed"


def test_an_exception_can_be_raised_again_and_again(runner: TaskRunner) -> None:
    """Asking twice gives the same error without a growing traceback."""

    @flow(task_runner=runner)
    def twice() -> Any:
        future = divide.submit(1, 0)
        depths = []
        for _ in range(3):
            with pytest.raises(ZeroDivisionError) as caught:
                future.result()
            depths.append(len(caught.traceback))
            assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert len(set(depths)) == 1, depths

    twice()


def test_timeouts_of_waiting(parallel_runner: TaskRunner, tmp_path: Path, until: Callable[..., Any]) -> None:
    """`result` raises TimeoutError and `wait` says False while the task goes on."""
    go = tmp_path / "go"

    @flow(task_runner=parallel_runner)
    def waits() -> Any:
        future = hold.submit(go)
        assert future.wait(timeout=0.05) is False
        assert not future.done()
        until(lambda: future.state.name == "Running")
        told = r"^hold has not ended within 0\.05 s: it is Running$"
        with pytest.raises(TimeoutError, match=told):
            future.result(timeout=0.05)
        with pytest.raises(TimeoutError, match=told):
            future.exception(timeout=0.05)
        go.touch()
        assert future.wait(timeout=20) is True
        return future.result(timeout=1)

    assert waits() == "go"


def test_timeouts_name_the_items_of_maps(
    parallel_runner: TaskRunner, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """By their index, with their state; a list says how many are in which state, also on workers."""
    go, later = tmp_path / "go", tmp_path / "later"
    go.touch()

    @task
    def asks(futures: Any) -> str:
        try:
            futures.result(timeout=0.05)
        except TimeoutError as error:
            return str(error)
        return ""

    @flow(task_runner=parallel_runner)
    def waits() -> Any:
        futures = hold.map([go, later])
        futures[0].wait()
        until(lambda: futures[1].state.name == "Running")
        with pytest.raises(TimeoutError, match=r"^hold\[1\] has not ended within 0\.05 s: it is Running$"):
            futures[1].result(timeout=0.05)
        told = "1 of 2 task runs of hold have not ended within 0.05 s: 1 Running"
        with pytest.raises(TimeoutError, match=f"^{re.escape(told)}$"):
            futures.result(timeout=0.05)
        assert asks.submit(quote(futures)).result() == told
        with pytest.raises(TimeoutError, match=r"^1 of 2 task runs have not .*: hold\[1\] .* it is Running$"):
            list(as_completed(futures, timeout=0.05))
        later.touch()

    waits()


def test_a_tasks_own_timeout_error_is_not_taken_for_the_waits(runner: TaskRunner) -> None:
    """A TimeoutError that user code raised comes as it is, also from `wait` and `as_completed`."""

    @task
    def raises() -> None:
        raise TimeoutError("mine")

    @flow(task_runner=runner)
    def waits() -> Any:
        future = raises.submit()
        with pytest.raises(TimeoutError, match=r"^mine$"):
            future.result(timeout=20)
        assert future.wait(timeout=20)
        assert list(as_completed([future], timeout=20)) == [future]
        return wait([future], timeout=20).done == {future}

    assert waits()


def test_as_completed_gives_each_once_in_the_order_of_their_ends(
    parallel_runner: TaskRunner, tmp_path: Path
) -> None:
    """Futures come as they end, failures among them, however they were submitted."""
    first, second = tmp_path / "first", tmp_path / "second"

    @flow(task_runner=parallel_runner)
    def ordered() -> Any:
        bad = divide.submit(1, 0)
        bad.wait()
        late, early = hold.submit(second), hold.submit(first)
        seen: list[Any] = []
        first.touch()
        for future in as_completed([late, early, bad, early], timeout=30):
            seen.append(future)
            if future is early or future == early:
                second.touch()
        return [seen.index(f) for f in (bad, early, late)], len(seen)

    assert ordered() == ([0, 1, 2], 3)


def test_as_completed_times_out(parallel_runner: TaskRunner, tmp_path: Path) -> None:
    """`as_completed` says how many have not ended."""
    go = tmp_path / "go"

    @flow(task_runner=parallel_runner)
    def waits() -> None:
        futures = [double.submit(1), hold.submit(go)]
        futures[0].wait()
        got = []
        with pytest.raises(TimeoutError, match="1 of 2"):
            got.extend(as_completed(futures, timeout=0.1))
        go.touch()

    waits()


def test_wait_returns_done_and_not_done(parallel_runner: TaskRunner, tmp_path: Path) -> None:
    """`wait` tells who has ended, and can return at the first end or the first failure."""
    go = tmp_path / "go"

    @flow(task_runner=parallel_runner)
    def waits() -> None:
        quick, slow = double.submit(1), hold.submit(go)
        answer = wait([quick, slow], return_when="FIRST_COMPLETED", timeout=20)
        assert answer.done == {quick}
        assert answer.not_done == {slow}
        quick.wait()
        answer = wait([quick, slow], timeout=0.05)
        assert (answer.done, answer.not_done) == ({quick}, {slow})
        bad = divide.submit(1, 0)
        answer = wait([slow, bad], return_when="FIRST_EXCEPTION", timeout=20)
        assert answer.done == {bad}
        go.touch()
        assert wait([quick, slow]).not_done == set()

    waits()


def test_callbacks_are_called_and_may_raise(runner: TaskRunner) -> None:
    """A done callback gets the future; one that raises breaks nothing, nor does one added late."""
    called: list[Any] = []
    both = threading.Semaphore(0)

    def note(future: TaskRunFuture) -> None:
        called.append(future.state.type)
        both.release()

    def breaks(future: TaskRunFuture) -> None:
        raise RuntimeError("a callback")

    @flow(task_runner=runner)
    def calls() -> Any:
        future = double.submit(2)
        future.add_done_callback(breaks)
        future.add_done_callback(note)
        assert both.acquire(timeout=20)
        future.add_done_callback(breaks)
        future.add_done_callback(note)
        assert both.acquire(timeout=20)
        return future.result()

    assert calls() == 4
    assert called == ["Completed", "Completed"]


def test_a_callback_may_use_the_futures_of_its_run(runner: TaskRunner) -> None:
    """A callback may take results and submit more work without blocking the run."""
    made: list[TaskRunFuture] = []
    ready = threading.Event()

    def more(future: TaskRunFuture) -> None:
        made.append(future.result())
        ready.set()

    @flow(task_runner=runner)
    def calls() -> Any:
        double.submit(2).add_done_callback(more)
        assert ready.wait(20)

    calls()
    assert made == [4]


def test_equal_futures_are_one_task_run(runner: TaskRunner) -> None:
    """Futures are equal, hash alike and name a task run that is unique in the store."""

    @flow(task_runner=runner)
    def compares() -> None:
        futures = double.map([1, 2])
        assert futures[0] == futures[0]
        assert futures[0] != futures[1]
        assert len({futures[0], futures[0], futures[1]}) == 2
        assert futures[0].task_run_id != futures[1].task_run_id
        assert list(futures) == [futures[0], futures[1]]

    compares()


def test_values_fetched_stay_available_after_the_run(runner: TaskRunner) -> None:
    """What was fetched during the run can be had afterwards; what was not gives a clear error and no hang."""
    kept: dict[str, Any] = {}

    @flow(task_runner=runner)
    def leaks() -> None:
        kept["seen"] = double.submit(1)
        kept["unseen"] = double.submit(2)
        kept["failed"] = divide.submit(1, 0)
        kept["list"] = double.map(range(3))
        kept["seen"].result()
        kept["list"].result()

    leaks()
    assert kept["seen"].result(timeout=1) == 2
    assert kept["list"].result(timeout=1) == [0, 2, 4]
    assert kept["unseen"].done()
    assert kept["unseen"].state.type == "Completed"
    with pytest.raises(MillraceError, match="ended"):
        kept["unseen"].result(timeout=1)
    with pytest.raises(ZeroDivisionError):
        kept["failed"].result(timeout=1)


def test_cancelling_what_has_ended_says_no(runner: TaskRunner) -> None:
    """`cancel` returns False for a task run that has ended, and leaves it alone."""

    @flow(task_runner=runner)
    def late() -> Any:
        future = double.submit(1)
        future.wait()
        return future.cancel(), future.cancelled(), future.result()

    assert late() == (False, False, 2)


def test_cancelled_future_raises(parallel_runner: TaskRunner, tmp_path: Path) -> None:
    """The result of a cancelled task run is an error that says so."""

    @flow(task_runner=parallel_runner)
    def cancels() -> None:
        blocked = hold.submit(tmp_path / "never")
        waiting = double.submit(blocked)
        assert waiting.cancel()
        with pytest.raises(CancelledRunError):
            waiting.result(timeout=20)
        with pytest.raises(concurrent.futures.CancelledError, match="double was cancelled"):
            waiting.result(timeout=20)
        assert waiting.cancelled()
        assert blocked.cancel()
        with pytest.raises(CancelledRunError):
            blocked.result(timeout=20)

    cancels()


def test_return_state_gives_the_state(runner: TaskRunner) -> None:
    """`return_state=True` on call, submit, map and flows gives States instead of results."""

    @flow(task_runner=runner)
    def states() -> Any:
        called = double(1, return_state=True)
        submitted = divide.submit(1, 0, return_state=True)
        mapped = divide.map([1, 1], [1, 0], return_state=True)
        assert called.result() == 2
        with pytest.raises(ZeroDivisionError):
            submitted.result()
        return [called.type, submitted.type, *(state.type for state in mapped)]

    state = states(return_state=True)
    assert state.is_completed()
    assert state.result() == ["Completed", "Failed", "Completed", "Failed"]


def test_futures_used_by_concurrent_code(runner: TaskRunner) -> None:
    """Threads that carry the flow's context may submit and wait at the same time."""
    import contextvars
    from concurrent.futures import ThreadPoolExecutor

    @flow(task_runner=runner)
    def threaded() -> Any:
        def work(n: int) -> int:
            return sum(double.map(range(n)).result()) + double.submit(n).result()

        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(contextvars.copy_context().run, work, n) for n in range(12)]
            return [job.result(timeout=60) for job in jobs]

    assert threaded() == [n * (n - 1) + 2 * n for n in range(12)]


def test_flows_run_side_by_side(local_runner: TaskRunner) -> None:
    """One flow may run in several threads of a process at once."""
    from concurrent.futures import ThreadPoolExecutor

    @flow(task_runner=local_runner)
    def sums(n: int) -> int:
        return sum(double.map(range(n)).result())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(sums, range(8))) == [n * (n - 1) for n in range(8)]


class Big:
    """A value whose end can be seen."""


@task
def make_big(x: int) -> Big:
    return Big()


@task
def look_at(big: Big) -> int:
    return 1


def test_results_that_nobody_needs_are_let_go(local_runner: TaskRunner, until: Any) -> None:
    """With the last future of a map, and all that takes its results, the results go: before the run ends."""
    seen: list[weakref.ref[Big]] = []

    @flow(task_runner=local_runner)
    def lets_go() -> None:
        bigs = make_big.map(range(3))
        seen.extend(weakref.ref(big) for big in bigs.result())
        looked = look_at.map(bigs)
        kept = bigs[0].state
        del bigs
        assert looked.result() == [1, 1, 1]
        double.submit(1).result()
        assert isinstance(kept.result(), Big)  # whoever has a state may ask for the result, too
        del kept
        until(lambda: double.submit(1).result() == 2 and not any(ref() for ref in seen))

    lets_go()


def test_results_of_released_maps_do_not_harm_what_follows(runner: TaskRunner) -> None:
    """Chains whose futures are dropped on the way end as ever, on every engine."""

    @flow(task_runner=runner)
    def chain() -> int:
        found = double.map(range(50))
        for _ in range(5):
            found = double.map(found)
            double.submit(1).result()
        return sum(found.result())

    assert chain() == sum(64 * x for x in range(50))


def test_what_is_waited_for_is_checked(local_runner: TaskRunner) -> None:
    """`wait` and `as_completed` take futures, also nested, and say what is none; `wait` knows three ways to return."""

    @flow(task_runner=local_runner)
    def main() -> Any:
        future, more = double.submit(1), double.map([2, 3])
        assert len(wait([future, [more, more[0]]]).done) == 3
        for wrong in (5, [future, 5], ["text"], None):
            with pytest.raises(UserError, match="is no future; what is waited for are futures"):
                wait(wrong)  # type: ignore[arg-type]
            with pytest.raises(UserError, match="is no future"):
                list(as_completed(wrong))  # type: ignore[arg-type]
        with pytest.raises(UserError, match="return_when is 'ANY'; it must be one of 'ALL_COMPLETED'"):
            wait([future], return_when="ANY")
        return future.result()

    assert main() == 2


def test_futures_can_be_shown_anywhere(local_runner: TaskRunner) -> None:
    """A future that has travelled to where its run cannot be reached has a repr all the same."""
    import cloudpickle

    @flow(task_runner=local_runner)
    def main() -> Any:
        return cloudpickle.dumps([double.submit(1), double.map([1])])

    one, many = cloudpickle.loads(main())
    assert repr(one) == f"TaskRunFuture({one.task_run_id})"
    assert repr(many).startswith(f"TaskRunFutureList({many.run_id}/")
