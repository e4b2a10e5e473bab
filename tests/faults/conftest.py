"""Faults are injected into real runs; a table says what came of it."""

from __future__ import annotations

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
    return Bench(request.node.nodeid, _rows)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table; the full suite also writes the page."""
    if not _rows:
        return
    terminalreporter.section(f"faults: MILLRACE_FAULTS={MODE} MILLRACE_SEED={SEED}")
    for line in table.lines(_rows):
        terminalreporter.write_line(line)
