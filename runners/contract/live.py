"""Contract, part 3: what is told while a batch runs."""

from __future__ import annotations

import logging

from ..arguments import Column, Static
from ..messages import Outcome
from . import tasks
from .bench import Bench, outcomes, said


class LiveTests:
    """Hints and log lines."""

    def test_a_long_item_is_told(self, bench: Bench) -> None:
        """While an item runs, one hears that its batch has started, what has ended, and what runs."""
        gate = bench.gate()
        batch = bench.map(tasks.pass_gate, [None, gate.address, None])
        bench.submit(batch)
        gate.await_arrivals()
        started = bench.started(batch)
        event = bench.progress(batch, "the second item", lambda e: e.entry == 1)
        assert event.outcomes == bytes([Outcome.COMPLETED])
        gate.open()
        table = bench.table(batch)
        assert outcomes(table) == [Outcome.COMPLETED] * 3
        assert started.execution_id == event.execution_id == table.execution_id
        assert started.worker == event.worker == table.worker
        assert event.since >= started.at

    def test_lines_are_in_the_table(self, bench: Bench) -> None:
        """Prints and log records of an item arrive in order, with its position, level and logger."""
        batch = bench.map(tasks.say, ["a", "b\udcff"], log_prints=True)
        table = bench.run(batch)
        expected = [(0, "a"), (0, "warned of a"), (1, "b\udcff"), (1, "warned of b\udcff")]
        assert said(table.logs) == expected
        assert [line.seq for line in table.logs] == [0, 1, 2, 3]
        assert [line.level for line in table.logs] == [logging.INFO, logging.WARNING] * 2
        assert {line.logger for line in table.logs} == {"millrace.task_runs"}
        assert all(line.at > 0 for line in table.logs)

    def test_prints_are_left_alone(self, bench: Bench) -> None:
        """Without `log_prints` a print is none of ours."""
        table = bench.run(bench.map(tasks.say, ["a"]))
        assert said(table.logs) == [(0, "warned of a")]

    def test_lines_are_told_live(self, bench: Bench) -> None:
        """Lines of an item that still runs are told, and again in the table."""
        gate = bench.gate()
        stage = bench.stage(
            tasks.say_and_wait, [Column(["a"]), Static(gate.address)], items=1, log_prints=True
        )
        batch = bench.batch(stage)
        bench.submit(batch)
        gate.await_arrivals()
        bench.progress(batch, "the second line", lambda e: any(line.seq == 1 for line in e.logs))
        assert said(bench.live_lines(batch)) == [(0, "a"), (0, "warned of a")]
        gate.open()
        assert said(bench.table(batch).logs) == [(0, "a"), (0, "warned of a")]

    def test_lines_of_a_chain(self, bench: Bench) -> None:
        """A line says which stage wrote it."""
        first = bench.stage(tasks.say, [Column(["a", "b"])], items=2)
        table = bench.run(bench.batch(first, bench.follow(tasks.say, 2, node_id=1)))
        assert [(line.position, line.stage) for line in table.logs] == [(0, 0), (0, 1), (1, 0), (1, 1)]

    def test_a_failed_item_is_told_while_the_next_runs(self, bench: Bench) -> None:
        """One need not wait for a batch's end to hear that an item of it has failed."""
        gate = bench.gate()
        first = bench.stage(tasks.fail_odd, [Column([1, 2])], items=2)
        second = bench.stage(tasks.pass_gate, [Static(gate.address)], items=2, node_id=2)
        batch = bench.batch(first, second)
        bench.submit(batch)
        gate.await_arrivals()
        event = bench.progress(batch, "the failure", lambda e: 0 in e.details)
        assert event.outcomes[0] == Outcome.FAILED
        assert event.details[0].message == "1 is odd"
        gate.open()
        failed = [Outcome.FAILED, Outcome.UNSTARTED]
        assert outcomes(bench.table(batch)) == [*failed, Outcome.COMPLETED, Outcome.COMPLETED]
