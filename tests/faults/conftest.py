"""Faults are injected into real runs; a table says what came of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from faultkit import table
from faultkit.bench import MODE, SEED, Bench, Row

_rows: list[Row] = []


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Bench:
    """Trials of faults; see `Bench.trials`."""
    known = request.node.get_closest_marker("xfail")
    how = " ".join((request.function.__doc__ or "").split())
    return Bench(request.node.nodeid, _rows, how, known.kwargs["reason"] if known else "")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table; `make faults` also has it kept, and written as a page."""
    if not _rows:
        return
    terminalreporter.section(f"faults: MILLRACE_FAULTS={MODE} MILLRACE_SEED={SEED}")
    for line in table.lines(_rows):
        terminalreporter.write_line(line)
    folder = os.environ.get("MILLRACE_FAULTS_KEPT")
    if folder and MODE == "full":
        rows = table.kept(Path(folder, "faults.json"), _rows)
        Path(folder, "faults.md").write_text(table.page(rows, SEED), encoding="utf-8")
