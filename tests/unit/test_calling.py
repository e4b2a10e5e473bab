"""Calling user code of every kind, and telling its exceptions."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runners import calling
from runners.arguments import Aligned, Arguments, Column
from runners.body import TaskBody
from runners.calling import detail_of, is_async, message_of
from runners.context import RunContext, current_item
from runners.contract import tasks
from runners.contract.tasks import AsyncMultiplier, Multiplier
from runners.errors import Retry
from runners.execution import CancelInterrupt, Interrupt, TimeoutInterrupt
from runners.messages import Batch, Input, Outcome, Payload, Stage, Table
from runners.storage import MISSING, ResultStorage
from runners.worker import run_batch

PATIENCE = 30.0


class Nowhere:
    """A channel whose calls find nobody."""

    def emit(self, event: Any) -> None:
        pass

    def call(self, *_: Any) -> bytes:
        raise ConnectionError("nobody there")


def stage_of(
    fn: Callable[..., Any], arguments: Arguments, items: int, node_id: int = 0, **body: Any
) -> Stage:
    return Stage(node_id, "t", Payload(TaskBody(fn, "t", **body)), Payload(arguments), [1] * items)


def run(
    fn: Callable[..., Any], values: Sequence[Any], *, in_process: bool = True, **body: Any
) -> tuple[list[Any], Table]:
    """Run a function over values on the far side, in this thread."""
    stage = stage_of(fn, Arguments((Column(values),)), len(values), **body)
    return run_stages(stage, in_process=in_process)


def run_stages(*stages: Stage, in_process: bool = True, inputs: Any = ()) -> tuple[list[Any], Table]:
    batch = Batch("r", 1, range(len(stages[0].attempts)), stages, Payload(RunContext("r", "n", "f")), inputs)
    results, table = run_batch(batch, [None] * len(inputs), Nowhere(), in_process=in_process)
    return results[-1], table


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (tasks.double, False),
        (tasks.double_async, True),
        (tasks.count_to, False),
        (tasks.count_to_async, True),
        (partial(partial(tasks.double_async)), True),
        (partial(tasks.double), False),
        (Multiplier(2), False),
        (Multiplier(2).times, False),
        (AsyncMultiplier(2), True),
        (AsyncMultiplier(2).__call__, True),
        (len, False),
        (int, False),
        ("x".join, False),
    ],
)
def test_what_has_to_be_awaited(fn: Any, expected: bool) -> None:
    """Functions, partials, methods and callable objects are told apart without calling them."""
    assert is_async(fn) is expected


def test_async_items_leave_nothing_behind() -> None:
    """What an item started and did not await is cancelled with it, and not seen by the next."""
    ended = []

    async def background() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            ended.append("cancelled")

    async def start(value: int) -> int:
        others = len(asyncio.all_tasks())
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        assert not task.done()
        return others

    values, table = run(start, [1, 2])
    assert values == [1, 1], table.details
    assert ended == ["cancelled"] * 2


def test_async_interrupts_warn_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt that comes before the coroutine runs leaves none that was never awaited."""

    async def never(value: Any) -> None:
        raise AssertionError("it has been interrupted before")

    made = asyncio.BaseEventLoop.create_task

    def interrupting(loop: Any, work: Any, **more: Any) -> Any:
        item = current_item.get()
        if item is not None and not item.execution.interrupted:
            thread = threading.Thread(target=item.execution.interrupt, args=(CancelInterrupt,))
            thread.start()
            thread.join(PATIENCE)
        return made(loop, work, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_task", interrupting)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, table = run(never, [1])
        gc.collect()
    assert table.outcomes == bytes([Outcome.CANCELLED])


def test_items_do_not_share_context_variables() -> None:
    """What one item sets is not seen by the next one of its batch."""

    def precision(value: int) -> int:
        before = decimal.getcontext().prec
        decimal.setcontext(decimal.Context(prec=value))
        return before

    standard = decimal.getcontext().prec
    values, _ = run(precision, [standard + 1, standard + 2])
    assert values == [standard, standard]
    assert decimal.getcontext().prec == standard
    assert current_item.get() is None


def test_code_that_swallows_its_interrupt() -> None:
    """Whoever catches the interrupt of a timeout and returns has timed out all the same."""

    def stubborn(value: Any) -> str:
        item = current_item.get()
        assert item is not None
        try:
            thread = threading.Thread(target=item.execution.interrupt, args=(TimeoutInterrupt,))
            thread.start()
            thread.join(PATIENCE)
            for _ in range(10**9):
                pass
        except BaseException:
            return "caught"
        return "missed"

    stage = Stage(0, "t", Payload(TaskBody(stubborn, "t")), Payload(Arguments((Column([1]),))), [1], 60.0)
    values, table = run_stages(stage)
    assert table.outcomes == bytes([Outcome.TIMED_OUT])
    assert values == [MISSING]


def test_an_interrupt_of_their_own_making() -> None:
    """User code that raises our interrupt fails; nobody has interrupted it."""

    def raises(value: Any) -> None:
        raise Interrupt

    _, table = run(raises, [1])
    assert table.outcomes == bytes([Outcome.FAILED])
    assert table.details[0].type_name.endswith("Interrupt")


def test_late_is_late() -> None:
    """An item that returns after its time, before anybody noticed, has timed out."""
    stage = Stage(0, "t", Payload(TaskBody(tasks.same, "t")), Payload(Arguments((Column([1]),))), [1], 0.0)
    values, table = run_stages(stage)
    assert table.outcomes == bytes([Outcome.TIMED_OUT])
    assert values == [MISSING]


def test_a_missing_input_is_no_value() -> None:
    """An upstream position without result loses the item that reads it, and no other."""
    literal = Input(5, [0, 1], [0, 1], literal=Payload([MISSING, "there"]))
    stage = stage_of(tasks.same, Arguments((Aligned(5, [0, 1]),)), 2)
    values, table = run_stages(stage, inputs=(literal,))
    assert table.outcomes == bytes([Outcome.INPUT_LOST, Outcome.COMPLETED])
    assert values == [MISSING, "there"]


def test_files_that_are_lost_are_named(tmp_path: Path) -> None:
    """A batch that cannot read its stored inputs runs nothing, and its table names all files that are lost."""
    storage = ResultStorage(str(tmp_path))
    files = [storage.write(key, [1]) for key in ("whole", "gone", "torn")]
    os.unlink(files[1].url)
    os.truncate(files[2].url, 30)
    inputs = [Input(5, [k], [0], stored=file) for k, file in enumerate(files)]
    stage = stage_of(tasks.same, Arguments((Aligned(5, [0, 1, 2]),)), 3)
    values, table = run_stages(stage, inputs=inputs)
    assert table.outcomes == bytes([Outcome.INPUT_LOST]) * 3
    assert list(table.missing_files) == [files[1].url, files[2].url]
    assert values == [MISSING] * 3
    assert table.details[0].message == f"the result file {files[1].url} does not exist, and 1 more"


def test_without_an_answer_nothing_starts() -> None:
    """Where nobody can permit a start, the item has not started."""
    stage = stage_of(tasks.same, Arguments((Column([1]),)), 1)
    asking = Stage(0, "t", stage.body, stage.arguments, [1], permit=True)
    _, table = run_stages(asking)
    assert table.outcomes == bytes([Outcome.UNSTARTED])


def test_what_follows_from_a_void_result_is_void() -> None:
    """A result that cannot be pickled takes with it what a fused stage made from it."""
    first = stage_of(tasks.make_lock, Arguments((Column([0, 1]),)), 2)
    second = stage_of(type, Arguments((Aligned(0, [0, 1]),)), 2, node_id=1)
    values, table = run_stages(first, second, in_process=False)
    assert table.outcomes == bytes([Outcome.COMPLETED, Outcome.COMPLETED, Outcome.FAILED, Outcome.UNSTARTED])
    assert values == [int, MISSING]
    assert "cannot be pickled" in table.details[2].message


def test_the_deadline_counts_between_stages() -> None:
    """A long first stage gives the second back, so that it holds nobody's result."""
    first = stage_of(time.sleep, Arguments((Column([0.01, 0.0]),)), 2)
    second = stage_of(type, Arguments((Aligned(0, [0, 1]),)), 2, node_id=1)
    context = Payload(RunContext("r", "n", "f"))
    batch = Batch("r", 1, range(2), (first, second), context, deadline_seconds=0.0)
    results, table = run_batch(batch, [], Nowhere(), in_process=True)
    assert table.outcomes == bytes([Outcome.COMPLETED, *[Outcome.UNSTARTED] * 3])
    assert results == [[None, MISSING], [MISSING, MISSING]]


@pytest.mark.parametrize("in_process", [True, False])
def test_a_stage_gets_a_copy_where_it_would_get_one_from_another_worker(in_process: bool) -> None:
    """In another process, what a stage does to its argument is not seen in the result of the stage before."""

    def add_to(values: list[int]) -> int:
        values.append(2)
        return sum(values)

    first = stage_of(list, Arguments((Column([[1]]),)), 1)
    second = stage_of(add_to, Arguments((Aligned(0, [0]),)), 1, node_id=1)
    batch = Batch("r", 1, range(1), (first, second), Payload(RunContext("r", "n", "f")))
    results, _ = run_batch(batch, [], Nowhere(), in_process=in_process)
    assert list(results) == [[[1, 2] if in_process else [1]], [3]]


def test_a_stage_that_cannot_be_loaded_fails_alone() -> None:
    """The stage before has its result; the items of the broken one say why they failed."""
    first = stage_of(tasks.same, Arguments((Column([1, 2]),)), 2)
    broken = Stage(1, "t", Payload(data=b"no pickle"), Payload(Arguments((Aligned(0, [0, 1]),))), [1, 1])
    batch = Batch("r", 1, range(2), (first, broken), Payload(RunContext("r", "n", "f")))
    results, table = run_batch(batch, [], Nowhere(), in_process=False)
    assert table.outcomes == bytes([Outcome.COMPLETED, Outcome.FAILED] * 2)
    assert "Unpickling" in table.details[1].type_name
    assert list(results) == [[1, 2], [MISSING, MISSING]]


def test_results_that_cannot_be_stored(tmp_path: Any) -> None:
    """A result that its serializer cannot write fails; the others are stored."""
    from runners.storage import read_stored

    values = [1, {1, 2}, "x"]
    _, table = run(tasks.same, values, persist=True, storage_url=str(tmp_path), serializer="json")
    assert table.outcomes == bytes([Outcome.COMPLETED, Outcome.FAILED, Outcome.COMPLETED])
    (stored,) = table.stored
    assert stored is not None
    assert read_stored(stored, [0, 1, 2]) == [1, MISSING, "x"]


def test_a_storage_that_is_not_there(tmp_path: Any) -> None:
    """Where nothing can be written, all items fail and say why; the batch is not lost."""
    (tmp_path / "file").touch()
    url = str(tmp_path / "file" / "folder")
    _, table = run(tasks.same, [1, 2], persist=True, storage_url=url)
    assert table.outcomes == bytes([Outcome.FAILED] * 2)


def test_a_broken_name_fails_its_item() -> None:
    """A template with a parameter that does not exist is a failure, told with its cause."""
    _, table = run(tasks.same, [1], run_name="{nothing}")
    assert table.outcomes == bytes([Outcome.FAILED])
    assert table.details[0].type_name == "KeyError"


@pytest.mark.parametrize(
    ("after", "expected"), [(dt.timedelta(minutes=1), 60.0), (2, 2.0), ("soon", None), (None, None)]
)
def test_delays_of_retry(after: Any, expected: float | None) -> None:
    """A delay is told as plain seconds, whatever the user gave."""

    def again(value: Any) -> None:
        raise Retry("busy", after_seconds=after)

    _, table = run(again, [1])
    assert table.outcomes == bytes([Outcome.RETRY])
    assert table.details[0].after_seconds == expected


def test_tracebacks_show_user_code_only() -> None:
    """Neither this package nor asyncio is in the way of who reads it."""

    async def outer(value: Any) -> None:
        await asyncio.sleep(0)
        raise ValueError("deep")

    _, table = run(outer, [1])
    assert "base_events" not in table.details[0].traceback
    assert "run_batch" not in table.details[0].traceback
    assert "in outer" in table.details[0].traceback


def test_huge_messages_are_cut() -> None:
    """A message that holds a whole document keeps its beginning and its end."""
    detail = detail_of(ValueError("a" + "x" * 10**6 + "z"), in_process=False)
    assert len(detail.message) < calling.MAX_MESSAGE_CHARS + 100
    assert len(detail.traceback) < calling.MAX_TRACEBACK_CHARS + 100
    assert detail.message.startswith("ax")
    assert detail.message.endswith("xz")
    assert message_of(tasks.UnprintableError()) == "UnprintableError (its message cannot be shown)"


def test_live_exceptions_in_process_only() -> None:
    """In the flow's process the exception itself is handed over, without its frames."""
    error = ValueError("x")
    assert detail_of(error, in_process=True).live is error
    assert error.__traceback__ is None
    assert detail_of(error, in_process=False).live is None


def test_the_last_async_item_closes_the_loop() -> None:
    """No loop stays open after its batch; an unfinished generator is closed."""
    loops = []

    async def which(value: Any) -> None:
        loops.append(asyncio.get_running_loop())

    run(which, [1, 2])
    assert loops[0] is loops[1]
    assert loops[0].is_closed()
