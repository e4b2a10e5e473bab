"""Contract, part 2: how items end that do not simply return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from .. import codec
from ..arguments import Column
from ..errors import Skip
from ..messages import Batch, BatchProgress, Event, Outcome, Table
from . import tasks
from .bench import Bench, ends, outcomes

COMPLETED, FAILED, TIMED_OUT = Outcome.COMPLETED, Outcome.FAILED, Outcome.TIMED_OUT
CANCELLED, UNSTARTED = Outcome.CANCELLED, Outcome.UNSTARTED


class EndTests:
    """Failures, signals, timeouts, cancellation, deadlines."""

    def test_a_failing_item_touches_no_other(self, bench: Bench) -> None:
        """Its neighbours complete; its type, message, traceback and exception arrive."""
        batch = bench.map(tasks.fail_odd, [0, 1, 2])
        table = bench.run(batch)
        assert outcomes(table) == [COMPLETED, FAILED, COMPLETED]
        detail = table.details[1]
        assert (detail.type_name, detail.message) == ("ValueError", "1 is odd")
        assert "fail_odd" in detail.traceback
        assert "ValueError: 1 is odd" in detail.traceback
        error = codec.loads(detail.exception or b"")
        assert (type(error), error.args) == (ValueError, ("1 is odd",))
        assert detail.retriable
        assert bench.runner.fetch(batch.batch_id, 0, [0, 2]) == [0, 2]

    @pytest.mark.parametrize("fn", [tasks.raise_kind, tasks.raise_kind_async])
    def test_whatever_is_raised_is_a_failure_of_its_item(self, bench: Bench, fn: Callable[..., Any]) -> None:
        """`sys.exit`, Ctrl-C and their like end neither the worker nor the batch."""
        kinds = ["exit", "interrupt", "base", "generator exit", "cancelled", "stop", "nothing"]
        table = bench.run(bench.map(fn, kinds))
        assert outcomes(table) == [FAILED] * 6 + [COMPLETED]
        names = [table.details[entry].type_name for entry in range(5)]
        assert names[:4] == ["SystemExit", "KeyboardInterrupt", "BaseException", "GeneratorExit"]
        assert names[4].endswith("CancelledError")

    def test_exceptions_that_cannot_travel(self, bench: Bench) -> None:
        """Of an exception that does not pickle, load or print, type and traceback arrive all the same."""
        table = bench.run(bench.map(tasks.raise_kind, ["unpicklable", "unloadable", "unprintable", "ok"]))
        assert outcomes(table) == [FAILED] * 3 + [COMPLETED]
        for entry, name in enumerate(["UnpicklableError", "UnloadableError", "UnprintableError"]):
            detail = table.details[entry]
            assert detail.type_name.endswith(f"tasks.{name}")
            assert "raise_kind" in detail.traceback
            if detail.exception is not None:
                assert isinstance(codec.loads(detail.exception), BaseException)

    def test_text_that_is_no_text(self, bench: Bench) -> None:
        """A message with half a surrogate pair does not cost the table."""
        table = bench.run(bench.map(tasks.raise_kind, ["surrogate", "ok"]))
        assert outcomes(table) == [FAILED, COMPLETED]
        assert table.details[0].message == "\udcff"

    def test_signals(self, bench: Bench) -> None:
        """Skip, Retry and Fail arrive as what they are."""
        table = bench.run(bench.map(tasks.raise_kind, ["skip", "retry", "fail", "ok"]))
        assert outcomes(table) == [Outcome.SKIPPED, Outcome.RETRY, FAILED, COMPLETED]
        assert table.details[0].message == "not today"
        assert table.details[1].after_seconds == 5
        assert not table.details[2].retriable

    def test_retry_condition(self, bench: Bench) -> None:
        """The task's condition is asked where the exception is; one that raises says no."""
        told = bench.run(bench.map(tasks.fail_odd, [1], retry_condition=lambda *_: False))
        broken = bench.run(bench.map(tasks.fail_odd, [1], retry_condition=lambda: True))
        wanted = bench.run(bench.map(tasks.fail_odd, [1], retry_condition=lambda task, run, state: True))
        assert [t.details[0].retriable for t in (told, broken, wanted)] == [False, False, True]

    def test_code_that_does_not_load(self, bench: Bench) -> None:
        """Where the function or the arguments cannot be loaded, the items fail; the batch is not lost."""
        if bench.in_process:
            pytest.skip("nothing is loaded in the flow's process")
        stage = bench.stage(tasks.same, items=2)
        broken = bench.payload(tasks.Unloadable())
        for batch in (
            bench.batch(replace(stage, arguments=broken)),
            bench.batch(replace(stage, body=broken)),
        ):
            table = bench.run(batch)
            assert outcomes(table) == [FAILED] * 2
            assert "of_the_user" in table.details[0].message

    @pytest.mark.parametrize("fn", [tasks.spin, tasks.spin_async])
    def test_timeouts(self, bench: Bench, fn: Callable[..., Any]) -> None:
        """Python loops and async code are stopped when their time is up; the others of the batch run."""
        gate = bench.gate()
        batch = bench.map(fn, [None, gate.address, None], timeout=1)
        table = bench.run(batch)
        assert outcomes(table) == [COMPLETED, TIMED_OUT, COMPLETED]
        assert table.details[1].type_name == "TaskTimeoutError"
        assert "1 s" in table.details[1].message
        assert not table.details[1].abandoned

    def test_code_that_blocks(self, bench: Bench) -> None:
        """A call that blocks beyond its timeout is told as abandoned while it blocks, and stays that.

        What follows it is not started there, because nobody knows how long it blocks.
        An engine that can stop it after all, by a signal for instance, says that it has timed out.
        """
        gate = bench.gate()
        batch = bench.map(tasks.pass_gate, [gate.address, None], timeout=0.1)
        bench.submit(batch)
        gate.await_arrivals()
        event = bench.wait("abandoned item", lambda e: abandoned(e, batch) or ends(e, batch))
        gate.open()
        table = bench.table(batch)
        if not isinstance(event, BatchProgress):
            assert outcomes(table) == [TIMED_OUT, COMPLETED]
        else:
            assert outcomes(table) == [TIMED_OUT, UNSTARTED]
            assert event.outcomes == bytes([TIMED_OUT])
            assert table.details[0].abandoned

    def test_deadline(self, bench: Bench) -> None:
        """Past its deadline a batch gives back what it has not started; the first item always runs."""
        stage = bench.stage(tasks.same, [Column(range(10))], items=10)
        batch = bench.batch(stage, deadline=0.0)
        assert outcomes(bench.run(batch)) == [COMPLETED] + [UNSTARTED] * 9
        assert bench.runner.fetch(batch.batch_id, 0, [0]) == [0]

    def test_deadline_behind_a_slow_item(self, bench: Bench) -> None:
        """What has not started when the deadline comes goes back at once, however long the item before it runs."""
        gate = bench.gate()
        stage = bench.stage(tasks.pass_gate, [Column([None, gate.address, None])], items=3)
        batch = bench.batch(stage, deadline=0.2)
        bench.submit(batch)
        gate.await_arrivals()
        event = bench.progress(batch, "the rest handed back", lambda e: e.closed)
        assert (event.entry, event.outcomes) == (1, bytes([COMPLETED]))
        gate.open()
        assert outcomes(bench.table(batch)) == [COMPLETED, COMPLETED, UNSTARTED]

    @pytest.mark.parametrize("fn", [tasks.spin, tasks.spin_async])
    def test_cancel_running(self, bench: Bench, fn: Callable[..., Any]) -> None:
        """The item that runs is interrupted, those after it do not start, those before it stay."""
        gate = bench.gate()
        batch = bench.map(fn, [None, gate.address, None])
        bench.submit(batch)
        gate.await_arrivals()
        bench.runner.cancel([batch.batch_id])
        table = bench.table(batch)
        assert outcomes(table) == [COMPLETED, CANCELLED, UNSTARTED]
        assert table.details[1].type_name == "TaskCancelledError"

    def test_cancel_queued(self, bench: Bench) -> None:
        """A batch that waits for a slot comes back unstarted, while the slots are still taken."""
        gate = bench.gate()
        holders = [bench.map(tasks.pass_gate, [gate.address]) for _ in range(bench.slots())]
        bench.submit(*holders)
        gate.await_arrivals(len(holders))
        queued = bench.map(tasks.same, [1, 2])
        bench.submit(queued)
        bench.runner.cancel([queued.batch_id])
        assert outcomes(bench.table(queued)) == [UNSTARTED] * 2
        gate.open()
        assert [outcomes(bench.table(batch)) for batch in holders] == [[COMPLETED]] * len(holders)

    def test_cancel_unknown(self, bench: Bench) -> None:
        """Ids that are unknown, or have ended, are ignored."""
        batch = bench.map(tasks.same, [1])
        bench.run(batch)
        bench.runner.cancel([batch.batch_id, 987_654])
        assert bench.results(bench.map(tasks.same, [2])) == [2]
        assert bench.runner.fetch(batch.batch_id, 0, [0]) == [1]

    def test_cancel_at_any_moment(self, bench: Bench) -> None:
        """A cancellation that meets its batch on the way in, starting or running is never lost."""
        gate = bench.gate()
        for _ in range(10):
            batch = bench.map(tasks.spin, [None] * 5 + [gate.address])
            bench.submit(batch)
            bench.runner.cancel([batch.batch_id])
            table = bench.table(batch)
            check_cut(table)
        assert bench.results(bench.map(tasks.same, [1])) == [1]

    def test_skip_in_a_chain(self, bench: Bench) -> None:
        """A stage that raises Skip leaves the next one unstarted."""
        first = bench.stage(tasks.raise_kind, [Column(["skip", "ok"])], items=2)
        table = bench.run(bench.batch(first, bench.follow(tasks.same, 2, node_id=1)))
        assert outcomes(table) == [Outcome.SKIPPED, UNSTARTED, COMPLETED, COMPLETED]
        assert table.details[0].type_name == Skip.__name__


def abandoned(event: Event, batch: Batch) -> bool:
    """Whether an event says of a batch's first item that it could not be stopped."""
    return (
        isinstance(event, BatchProgress)
        and event.batch_id == batch.batch_id
        and 0 in event.details
        and event.details[0].abandoned
    )


def check_cut(table: Table) -> None:
    """A cancelled batch has completed items, then at most one cancelled, then unstarted ones."""
    found = outcomes(table)
    done = found.count(COMPLETED)
    cancelled = found.count(CANCELLED)
    assert cancelled <= 1
    assert found == [COMPLETED] * done + [CANCELLED] * cancelled + [UNSTARTED] * (
        len(found) - done - cancelled
    )
    assert done < len(found)
