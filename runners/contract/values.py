"""Contract, part 1: what goes in and what comes out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from .. import codec
from ..arguments import Aligned, Column, Element, Ref, Shared, Source, Static
from ..errors import ResultLostError, SerializationError
from ..messages import BatchLost, Input, Outcome
from ..storage import ResultStorage
from . import tasks
from .bench import NODE, Bench, outcomes

COMPLETED = Outcome.COMPLETED


class ValueTests:
    """Results, tables, arguments, inputs, kinds of functions."""

    shares_files: ClassVar[bool]

    def test_slots_are_told(self, bench: Bench) -> None:
        """A started runner says how many batches it has room for."""
        assert bench.slots() >= 1

    def test_a_batch_gives_results_and_a_table(self, bench: Bench) -> None:
        """Results stand at their positions; the table says who ran what, from when, for how long."""
        batch = bench.map(tasks.double, list(range(50)))
        assert bench.results(batch) == [2 * value for value in range(50)]
        table = bench.table(batch)
        assert len(table.outcomes) == len(table.offsets) == len(table.durations) == 50
        assert min(table.offsets) >= 0
        assert min(table.durations) >= 0
        assert table.execution_id
        assert table.worker
        assert table.started > 0
        assert not table.details

    def test_many_batches_are_fetched_together(self, bench: Bench) -> None:
        """Results come in the order of what was asked; an error stands only where results are gone."""
        batches = [bench.map(tasks.double, [n, n + 1]) for n in range(5)]
        bench.submit(*batches)
        for batch in batches:
            bench.table(batch)
        wanted = [(batch.batch_id, 0, [1]) for batch in batches]
        assert bench.runner.fetch_many(wanted) == [[2 * (n + 1)] for n in range(5)]
        bench.runner.release([batches[2].batch_id])
        *found, last = bench.runner.fetch_many([*wanted, (batches[0].batch_id, 0, [0, 1])])
        assert isinstance(found.pop(2), ResultLostError)
        assert found == [[2 * (n + 1)] for n in (0, 1, 3, 4)]
        assert last == [0, 2]

    def test_items_run_one_after_another(self, bench: Bench) -> None:
        """One batch takes one slot: its items run in order, in one thread, and never overlap."""
        batch = bench.map(tasks.whose_turn, list(range(20)))
        values = bench.results(batch)
        table = bench.table(batch)
        assert [value for value, _ in values] == list(range(20))
        assert len({thread for _, thread in values}) == 1
        ends = [offset + took for offset, took in zip(table.offsets, table.durations, strict=True)]
        assert all(end <= start + 1e-6 for end, start in zip(ends, table.offsets[1:], strict=False))

    def test_a_big_batch(self, bench: Bench) -> None:
        """10,000 items are one submission and one table."""
        batch = bench.map(tasks.fail_odd, list(range(10_000)))
        table = bench.run(batch)
        assert outcomes(table) == [COMPLETED, Outcome.FAILED] * 5_000
        assert sorted(table.details) == list(range(1, 10_000, 2))
        assert bench.runner.fetch(batch.batch_id, 0, [0, 9_998]) == [0, 9_998]

    def test_many_batches(self, bench: Bench) -> None:
        """More batches than slots all end, each in an execution of its own."""
        batches = [bench.map(tasks.double, [n, n + 1]) for n in range(20)]
        bench.submit(*batches)
        tables = [bench.table(batch) for batch in batches]
        assert len({table.execution_id for table in tables}) == 20
        assert bench.runner.fetch(batches[7].batch_id, 0, [0, 1]) == [14, 16]

    def test_fetch_picks_positions(self, bench: Bench) -> None:
        """`fetch` returns what is asked for, in that order, also twice the same."""
        batch = bench.map(tasks.same, ["a", "b", "c", "d"])
        bench.run(batch)
        assert bench.runner.fetch(batch.batch_id, 0, [3, 1, 1]) == ["d", "b", "b"]
        assert bench.runner.fetch(batch.batch_id, 0, []) == []

    @pytest.mark.parametrize("padding", [0, 100_000])
    def test_results_that_cannot_be_loaded_here(self, bench: Bench, padding: int) -> None:
        """Large or small: who fetches them is told why, and that they are not lost; other batches are not touched."""
        batch, other = bench.map(tasks.unloadable, [bytes(padding)]), bench.map(tasks.double, [1])
        bench.submit(batch, other)
        assert outcomes(bench.table(batch)) == outcomes(bench.table(other)) == [COMPLETED]
        for _ in range(2):
            if bench.in_process:
                bench.runner.fetch(batch.batch_id, 0, [0])
            else:
                with pytest.raises(SerializationError, match="No module named 'of_the_user'"):
                    bench.runner.fetch(batch.batch_id, 0, [0])
        assert bench.runner.fetch(other.batch_id, 0, [0]) == [2]

    def test_sizes_are_told(self, bench: Bench) -> None:
        """The table says how many bytes of arguments and results left a process, by which batches are sized."""
        table = bench.run(bench.map(tasks.same, [b"x" * 100_000, b"y" * 100_000]))
        if bench.runner.capabilities.in_process:
            assert table.moved_bytes == 0
        else:
            assert 400_000 <= table.moved_bytes < 450_000

    def test_lengths_are_told(self, bench: Bench) -> None:
        """The table tells the length of results that a later task may be mapped over."""
        table = bench.run(bench.map(tasks.same, [[1, 2, 3], (), "text", 4]))
        assert dict(table.lengths) == {0: 3, 1: 0}

    def test_static_and_column_arguments(self, bench: Bench) -> None:
        """Positional and keyword arguments arrive, constant ones and one for each item."""
        args: list[Source] = [Static("s"), Column([1, 2])]
        kwargs: dict[str, Source] = {"key": Column(["a", "b"]), "mode": Static({"deep": [1]})}
        batch = bench.batch(bench.stage(tasks.describe, args, kwargs, items=2))
        assert bench.results(batch) == [
            (["s", 1], {"key": "a", "mode": {"deep": [1]}}),
            (["s", 2], {"key": "b", "mode": {"deep": [1]}}),
        ]

    @pytest.mark.parametrize("size", [100, 100_000])
    def test_shared_arguments(self, bench: Bench, size: int) -> None:
        """What batches share arrives in each as an object of its own, which its items may write to."""
        if bench.in_process:
            pytest.skip("all items get the object itself")
        shared = bench.payload([Static(tasks.Pages(bytearray(size)))], cached=True)
        args: list[Source] = [Shared(0), Column([0, 1])]
        batches = [
            bench.batch(replace(bench.stage(tasks.count_up, args, items=2), shared=shared)) for _ in range(6)
        ]
        bench.submit(*batches)
        for batch in batches:
            assert outcomes(bench.table(batch)) == [COMPLETED] * 2
            assert bench.runner.fetch(batch.batch_id, 0, [0, 1]) == [(1, size), (2, size)]

    @pytest.mark.parametrize("size", [10, 500_000])
    def test_readers_have_their_own(self, bench: Bench, size: int) -> None:
        """What its maker could write to, all readers can, in the same batch, in others and here; no other sees it."""
        data = [b"wold".ljust(size), b"rold".ljust(size), b"wold".ljust(size)]
        said = ["old writable", "old read-only", "old writable"]
        made = bench.batch(
            bench.stage(tasks.pages, [Column(data)], items=3),
            bench.follow(tasks.overwrite, 3, node_id=NODE),
        )
        assert bench.results(made, 1) == said
        if bench.in_process:
            said = [text.replace("old w", "new w") for text in said]  # it is the object itself
        for _ in range(2):
            args: list[Source] = [Static(Ref(NODE), template=True)]
            reader = bench.batch(
                bench.stage(tasks.overwrite_all, args, items=1, node_id=9), inputs=[bench.input_of(made)]
            )
            assert bench.results(reader) == [said]
        assert tasks.overwrite_all(bench.runner.fetch(made.batch_id, 0, [0, 1, 2])) == said
        assert tasks.overwrite_all(bench.runner.fetch(made.batch_id, 0, [1])) == said[1:2]

    def test_inputs_that_share_a_source(self, bench: Bench) -> None:
        """An item that reads a result by two ways gets one object, of its own."""
        made = bench.map(tasks.pages, [b"wold", b"wold"])
        bench.run(made)
        inputs = [
            Input(NODE, [0], [0], batch_id=made.batch_id),
            Input(NODE + 1, [0], [0], batch_id=made.batch_id),
        ]
        args: list[Source] = [Static([Ref(NODE, 0), Ref(NODE + 1, 0)], template=True)]
        reader = bench.batch(bench.stage(tasks.overwrite_all, args, items=1, node_id=9), inputs=inputs)
        assert bench.results(reader) == [["old writable", "new writable"]]

    def test_inputs_that_cannot_be_loaded(self, bench: Bench) -> None:
        """That is a failure of the input, with its reason, for all items of the batch."""
        if bench.in_process:
            pytest.skip("nothing is loaded")
        made = bench.map(tasks.unloadable, [1])
        bench.run(made)
        reader = bench.batch(bench.follow(tasks.same, 1, node_id=NODE), inputs=[bench.input_of(made)])
        table = bench.run(reader)
        assert outcomes(table) == [Outcome.INPUT_LOST]
        assert "No module named 'of_the_user'" in table.details[0].message

    def test_results_of_a_batch_as_input(self, bench: Bench) -> None:
        """A later batch reads results where they are: its own item, one element of a list, all of them."""
        first = bench.map(tasks.same, [[0, 1], [2, 3], [4, 5]])
        bench.run(first)
        args: list[Source] = [
            Aligned(NODE, [2, 0]),
            Element(Ref(NODE, 1), [1, 0]),
            Static(Ref(NODE), template=True),
        ]
        second = bench.batch(
            bench.stage(tasks.describe, args, items=2, node_id=9), inputs=[bench.input_of(first)]
        )
        everything = [[0, 1], [2, 3], [4, 5]]
        assert bench.results(second) == [([[4, 5], 3, everything], {}), ([[0, 1], 2, everything], {})]

    def test_templates(self, bench: Bench) -> None:
        """Results arrive in their places inside lists, tuples, dicts, dataclasses and their like."""
        first = bench.map(tasks.same, ["zero", "one"])
        bench.run(first)
        zero, both = Ref(NODE, 0), Ref(NODE, indices=[1, 0])
        nested = {"list": [1, [zero]], "tuple": (zero, None), "order": tasks.Order("o", {"deep": both})}
        args: list[Source] = [
            Static(defaultdict(list, nested), template=True),
            Column([[zero], [both]], template=True),
        ]
        second = bench.batch(
            bench.stage(tasks.describe, args, items=2, node_id=9), inputs=[bench.input_of(first)]
        )
        ((one, first_column), _), ((_, other_column), _) = bench.results(second)
        assert one["list"] == [1, ["zero"]]
        assert one["tuple"] == ("zero", None)
        assert one["order"] == tasks.Order("o", {"deep": ["one", "zero"]})
        assert type(one) is defaultdict
        assert first_column == ["zero"]
        assert other_column == [["one", "zero"]]

    def test_fan_in(self, bench: Bench) -> None:
        """A batch reads several batches, of one node and of others, and only the positions it names."""
        left, right = bench.map(tasks.same, [1, 2]), bench.map(tasks.same, [3, 4])
        bench.submit(left, right)
        bench.table(left)
        bench.table(right)
        inputs = [
            Input(NODE, [0, 1], [0, 1], batch_id=left.batch_id),
            Input(NODE, [2], [1], batch_id=right.batch_id),
            Input(NODE + 1, [0], [0], batch_id=right.batch_id),
        ]
        args: list[Source] = [Static([Ref(NODE), Ref(NODE + 1)], template=True)]
        batch = bench.batch(bench.stage(tasks.same, args, items=1, node_id=9), inputs=inputs)
        assert bench.results(batch) == [[[1, 2, 4], [3]]]

    def test_literal_input(self, bench: Bench) -> None:
        """Values made in the flow's process can stand in for a batch's results."""
        literal = Input(NODE, [5, 6], [1, 0], literal=bench.payload(["x", "y"]))
        stage = bench.stage(tasks.same, [Aligned(NODE, [5, 6])], items=2, node_id=9)
        assert bench.results(bench.batch(stage, inputs=[literal])) == ["y", "x"]

    def test_stored_input_and_results(self, bench: Bench, tmp_path: Path) -> None:
        """Results are written where the task says, and read from there by another batch."""
        if not self.shares_files:
            pytest.skip("the workers do not see this machine's files")
        url = ResultStorage(str(tmp_path)).url
        first = bench.map(tasks.double, [1, 2], persist=True, storage_url=url)
        (stored,) = bench.run(first).stored
        source = Input(NODE, [0, 1], [0, 1], stored=stored)
        second = bench.batch(bench.follow(tasks.double, 2, node_id=NODE), inputs=[source])
        assert bench.results(second) == [4, 8]

    def test_released_input(self, bench: Bench) -> None:
        """A batch that reads what was released says so, or is lost; it never runs on nothing."""
        first = bench.map(tasks.same, [1, 2])
        bench.run(first)
        bench.runner.release([first.batch_id])
        second = bench.batch(bench.follow(tasks.double, 2, node_id=NODE), inputs=[bench.input_of(first)])
        bench.submit(second)
        end = bench.terminal(second)
        assert isinstance(end, BatchLost) or outcomes(end.table) == [Outcome.INPUT_LOST] * 2  # type: ignore[union-attr]

    def test_fused_stages(self, bench: Bench) -> None:
        """Two stages run item by item; the second takes the first's value, and waits for nothing it lacks."""
        first = bench.stage(tasks.fail_odd, [Column([0, 1, 2])], items=3)
        batch = bench.batch(first, bench.follow(tasks.double, 3, node_id=NODE))
        table = bench.run(batch)
        failed = [Outcome.FAILED, Outcome.UNSTARTED]
        assert outcomes(table) == [COMPLETED, COMPLETED, *failed, COMPLETED, COMPLETED]
        assert list(table.details) == [2]
        assert bench.runner.fetch(batch.batch_id, 0, [0, 2]) == [0, 2]
        assert bench.runner.fetch(batch.batch_id, 1, [0, 2]) == [0, 4]

    def test_pooled_stages(self, bench: Bench) -> None:
        """A stage that does not follow runs whatever became of the one before, with arguments of its own."""
        stages = [
            bench.stage(tasks.fail_odd, [Static(1)], items=1),
            replace(bench.stage(tasks.double, [Static(4)], items=1, node_id=NODE + 1), follows=False),
            bench.follow(tasks.double, 1, node_id=NODE + 1),
            replace(bench.stage(tasks.make_lock, [Static(1)], items=1, node_id=NODE + 3), follows=False),
            replace(bench.stage(tasks.same, [Static("a")], items=1, node_id=NODE + 4), follows=False),
        ]
        batch = bench.batch(*stages)
        table = bench.run(batch)
        lock = COMPLETED if bench.in_process else Outcome.FAILED
        assert outcomes(table) == [Outcome.FAILED, COMPLETED, COMPLETED, lock, COMPLETED]
        assert [bench.runner.fetch(batch.batch_id, stage, [0]) for stage in (1, 2, 4)] == [[8], [16], ["a"]]

    @pytest.mark.parametrize(
        ("fn", "expected"),
        [
            (tasks.double_async, [4, 6]),
            (tasks.count_to, [[0, 1], [0, 1, 2]]),
            (tasks.count_to_async, [[0, 1], [0, 1, 2]]),
            (tasks.awaited_later, [4, 6]),
            (partial(tasks.double_async), [4, 6]),
            (partial(tasks.describe, 0), [([0, 2], {}), ([0, 3], {})]),
            (tasks.Multiplier(5).times, [10, 15]),
            (tasks.Multiplier(5), [10, 15]),
            (tasks.AsyncMultiplier(5), [10, 15]),
            (len, None),
        ],
    )
    def test_kinds_of_functions(self, bench: Bench, fn: Any, expected: Any) -> None:
        """Whatever can be called is run to its end; generators are collected into lists."""
        values: list[Any] = [2, 3] if expected is not None else ["ab", "abc"]
        assert bench.results(bench.map(fn, values)) == (expected or [2, 3])

    def test_functions_by_value(self, bench: Bench) -> None:
        """A function that no worker can import travels whole."""
        offset = 100
        assert bench.results(bench.map(lambda value: value + offset, [1, 2])) == [101, 102]

    def test_an_item_knows_itself(self, bench: Bench) -> None:
        """Ids, index, attempt, parameters and the run are at hand on the worker."""
        stage = bench.stage(tasks.who_am_i, [Column(["a", "b"])], items=2)
        values = bench.results(bench.batch(stage, indices=[7, 9]))
        run = bench.run_id
        assert values[0] == ("a", f"{run}/{NODE}/7", 7, 1, "contract", {"value": "a"})
        assert values[1] == ("b", f"{run}/{NODE}/9", 9, 1, "contract", {"value": "b"})

    def test_rendered_names(self, bench: Bench) -> None:
        """Names of task runs are made on the worker, from the arguments as they arrive."""
        table = bench.run(bench.map(tasks.same, ["a", "b"], run_name="for-{value}"))
        assert dict(table.names) == {0: "for-a", 1: "for-b"}

    def test_unpicklable_results(self, bench: Bench) -> None:
        """A result that cannot leave the worker fails its item, and no other; in one process all stay."""
        batch = bench.map(tasks.make_lock, [0, 1, 2])
        table = bench.run(batch)
        if bench.in_process:
            assert outcomes(table) == [COMPLETED] * 3
            return
        assert outcomes(table) == [COMPLETED, Outcome.FAILED, COMPLETED]
        assert "cannot be pickled" in table.details[1].message
        assert isinstance(codec.loads(table.details[1].exception or b""), Exception)
        assert bench.runner.fetch(batch.batch_id, 0, [0, 2]) == [0, 2]
