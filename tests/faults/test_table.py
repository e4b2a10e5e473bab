"""Rows of earlier parts of the suite and new ones make one page."""

from __future__ import annotations

import os
import time
from pathlib import Path

from faultkit import table
from faultkit.bench import Row
from faultkit.processes import is_same


def row(fault: str, line: int, *, injected: int, seed: int = 1, file: str = "test_a.py") -> Row:
    return Row(
        fault,
        how=f"{fault} is done.",
        place=(file, line),
        made="2026-01-02",
        seed=seed,
        injected=injected,
        runs=1,
        recoveries=[0.012],
    )


def test_rows_of_several_runs_are_one_page(tmp_path: Path) -> None:
    """A row that is made again replaces the old one; all stand in the order of their tests; the sum is of them all."""
    path = tmp_path / "faults.json"
    table.kept(path, [row("second", 20, injected=1), row("last", 1, injected=5, file="test_b.py")])
    told = table.kept(path, [row("first", 10, injected=1), row("second", 20, injected=3, seed=2)], seeds=1200)
    assert [(one.fault, one.injected) for one in told.rows] == [("first", 1), ("second", 3), ("last", 5)]
    assert told == table.kept(path)
    page = table.page(told)
    assert "1,200 seeds" in page
    sums = next(line for line in page.splitlines() if line.startswith("| all |"))
    assert sums.split(" | ")[1:3] == ["9", "3"]
    assert "`MILLRACE_SEED=1`" in page
    assert "On 2026-01-02, with `MILLRACE_SEED=2`: second." in page
    assert "## Known not to hold yet" not in page


def test_what_is_wrong_is_told_below_the_table(tmp_path: Path) -> None:
    """A row with something lost, unrecorded, wrong, over the limit or left behind is never passed over."""
    for kind in ("lost", "bad", "wrong", "over_limit", "left"):
        made = row("fault", 1, injected=1)
        setattr(made, kind, 1)
        assert "**fault**: see the counts" in table.page(table.Kept([made]))


def test_rows_without_runs_are_not_kept(tmp_path: Path) -> None:
    """A test that was skipped before its first trial neither makes a row nor replaces one."""
    path = tmp_path / "faults.json"
    table.kept(path, [row("fault", 1, injected=4)])
    empty = Row("fault", place=("test_a.py", 1))
    assert [one.injected for one in table.kept(path, [empty, Row("other")]).rows] == [4]


def test_a_process_with_a_number_that_was_used_before() -> None:
    """A number is trusted for moments at which its process already ran."""
    assert is_same(os.getpid(), time.monotonic())
    assert not is_same(os.getpid(), 0.0)


def test_simulations_that_were_not_played_are_not_told_of() -> None:
    """The page says what was done, and no more."""
    assert "seeds of simulated" not in table.page(table.Kept([row("fault", 1, injected=1)]))
