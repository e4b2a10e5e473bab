"""Contract, part 5: starting, closing, copies, options."""

from __future__ import annotations

import threading
from typing import ClassVar

import pytest

from ..base import QueueSink, TaskRunner
from ..errors import ResultLostError, RunnerOptionError
from ..messages import BatchFinished, Outcome
from . import tasks
from .bench import Bench, ends, outcomes


class LifeTests:
    """What holds before, between and after batches."""

    owns_workers: ClassVar[bool]

    def make_runner(self) -> TaskRunner:
        raise NotImplementedError

    def test_each_batch_ends_once(self, bench: Bench) -> None:
        """Every batch has exactly one end, however many were under way."""
        batches = [bench.map(tasks.fail_odd, [n]) for n in range(12)]
        bench.submit(*batches)
        bench.runner.cancel([batch.batch_id for batch in batches[6:]])
        for batch in batches:
            bench.terminal(batch)
        bench.results(bench.map(tasks.same, ["what was told twice has been told by now"]))
        for batch in batches:
            assert len({repr(event) for event in bench.events if ends(event, batch)}) == 1

    def test_released_results_are_gone(self, bench: Bench) -> None:
        """After `release` a fetch says that the result is lost; releasing twice is harmless."""
        batch, other = bench.map(tasks.same, [1]), bench.map(tasks.same, [2])
        bench.submit(batch, other)
        bench.table(batch)
        bench.table(other)
        bench.runner.release([batch.batch_id])
        bench.runner.release([batch.batch_id, 987_654])
        with pytest.raises(ResultLostError):
            bench.runner.fetch(batch.batch_id, 0, [0])
        assert bench.runner.fetch(other.batch_id, 0, [0]) == [2]

    def test_an_unknown_batch_cannot_be_fetched(self, bench: Bench) -> None:
        """Results of a batch that never was are lost, too."""
        with pytest.raises(ResultLostError):
            bench.runner.fetch(987_654, 0, [0])

    def test_an_item_without_result_cannot_be_fetched(self, bench: Bench) -> None:
        """What failed has no result that could be taken for one."""
        batch = bench.map(tasks.fail_odd, [0, 1])
        bench.run(batch)
        with pytest.raises(ResultLostError):
            bench.runner.fetch(batch.batch_id, 0, [0, 1])

    def test_unknown_options_are_refused(self, bench: Bench) -> None:
        """`runner_options` that the engine cannot honour are an error that names them."""
        bench.runner.check_options({})
        bench.runner.check_options(dict.fromkeys(bench.runner.capabilities.options))
        with pytest.raises(RunnerOptionError, match="no_such_option"):
            bench.runner.check_options({"no_such_option": 1})

    def test_duplicates_are_unstarted(self, bench: Bench) -> None:
        """A copy has the same settings and nothing of what its original has started."""
        twin = bench.runner.duplicate()
        assert type(twin) is type(bench.runner)
        assert twin is not bench.runner
        assert twin.sink is None
        assert bench.runner.sink is bench.sink
        assert twin.capabilities == bench.runner.capabilities
        twin.close()
        assert bench.results(bench.map(tasks.same, [1])) == [1]

    def test_a_runner_describes_itself(self, bench: Bench) -> None:
        """One line for people, and a name for the command line."""
        assert bench.runner.name
        assert bench.runner.describe()
        assert "\n" not in bench.runner.describe()

    def test_use_without_a_flow(self) -> None:
        """A runner is a context manager with a sink of its own; closing it twice is harmless."""
        with self.make_runner() as runner:
            assert isinstance(runner.sink, QueueSink)
            bench = Bench(runner, patience_seconds=60.0)
            bench.sink = runner.sink
            assert bench.results(bench.map(tasks.double, [21])) == [42]
        runner.close()

    def test_close_before_start(self, own_bench: Bench) -> None:
        """A runner that was never started can be closed."""
        own_bench.runner.close()

    def test_close_while_something_runs(self, own_bench: Bench) -> None:
        """`close` waits for no user code, leaves nothing that holds the process, and tells no end."""
        before = set(threading.enumerate())
        bench = own_bench.start()
        gate = bench.gate()
        batch, queued = bench.map(tasks.pass_gate, [gate.address]), bench.map(tasks.same, [1])
        bench.submit(batch, queued)
        gate.await_arrivals()
        bench.runner.close()
        bench.runner.close()
        if self.owns_workers and not bench.in_process:
            gate.await_departure()
        gate.open()
        for thread in set(threading.enumerate()) - before:
            if not thread.daemon:
                thread.join(bench.patience_seconds)
                assert not thread.is_alive(), f"{thread} still runs"
        ended = [e.table for e in bench.events if isinstance(e, BatchFinished) and ends(e, batch)]
        assert all(outcomes(table) != [Outcome.COMPLETED] for table in ended)
