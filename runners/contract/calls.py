"""Contract, part 4: user code that asks the flow's process, and waits for other task runs."""

from __future__ import annotations

from typing import ClassVar

from ..messages import Outcome
from . import tasks
from .bench import Bench, outcomes


class CallTests:
    """Calls and answers, slots lent meanwhile, permits."""

    chain_depth: ClassVar[int]

    def test_a_call_is_answered(self, bench: Bench) -> None:
        """The question arrives with the item that asks, the answer where it was asked."""
        batch = bench.map(tasks.ask, [b"how far?"])
        bench.submit(batch)
        call = bench.call(batch)
        assert (call.kind, call.payload, call.entry) == ("ask", b"how far?", 0)
        bench.runner.answer(call.call_id, b"50 deep")
        bench.runner.answer(call.call_id, b"a repeated answer is harmless")
        table = bench.table(batch)
        assert outcomes(table) == [Outcome.COMPLETED]
        assert call.execution_id == table.execution_id
        assert bench.runner.fetch(batch.batch_id, 0, [0]) == [b"50 deep"]

    def test_answers_to_nobody(self, bench: Bench) -> None:
        """An answer that nobody waits for is ignored."""
        bench.runner.answer("nobody", b"")
        assert bench.results(bench.map(tasks.same, [1])) == [1]

    def test_a_waiting_item_lends_its_slot(self, bench: Bench) -> None:
        """While all slots are held by items that wait for an answer, other batches run."""
        waiting = [bench.map(tasks.ask, [b"?"]) for _ in range(bench.slots())]
        bench.submit(*waiting)
        calls = [bench.call(batch) for batch in waiting]
        assert bench.results(bench.map(tasks.double, [4])) == [8]
        for call in calls:
            bench.runner.answer(call.call_id, b"!")
        assert [outcomes(bench.table(batch)) for batch in waiting] == [[Outcome.COMPLETED]] * len(waiting)

    def test_a_deep_chain(self, bench: Bench) -> None:
        """Task runs that each wait for the next end, however many they are and however few the slots."""
        chain = [bench.map(tasks.ask, [b"%d" % depth]) for depth in range(self.chain_depth)]
        calls = []
        for batch in chain:
            bench.submit(batch)
            calls.append(bench.call(batch))
        for batch, call in zip(reversed(chain), reversed(calls), strict=True):
            bench.runner.answer(call.call_id, b"done " + call.payload)
            assert outcomes(bench.table(batch)) == [Outcome.COMPLETED]
        assert bench.runner.fetch(chain[7].batch_id, 0, [0]) == [b"done 7"]

    def test_cancel_a_waiting_item(self, bench: Bench) -> None:
        """An item that waits for an answer can be cancelled, and its slot is whole afterwards."""
        waiting = [bench.map(tasks.ask, [b"?", b"?"]) for _ in range(bench.slots())]
        bench.submit(*waiting)
        for batch in waiting:
            bench.call(batch)
        bench.runner.cancel([batch.batch_id for batch in waiting])
        for batch in waiting:
            assert outcomes(bench.table(batch)) == [Outcome.CANCELLED, Outcome.UNSTARTED]
        assert bench.results(bench.map(tasks.double, [4])) == [8]

    def test_permits(self, bench: Bench) -> None:
        """An item that may start only once asks before, runs when permitted, and is refused otherwise."""
        batch = bench.map(tasks.double, [1, 2, 3], permit=True)
        bench.submit(batch)
        for entry, reply in enumerate([b"yes", b"no", b"yes"]):
            event = bench.permit(batch, entry)
            bench.runner.answer(event.call_id, reply)
        table = bench.table(batch)
        assert outcomes(table) == [Outcome.COMPLETED, Outcome.REFUSED, Outcome.COMPLETED]
        assert bench.runner.fetch(batch.batch_id, 0, [0, 2]) == [2, 6]
