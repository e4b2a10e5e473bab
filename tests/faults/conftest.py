"""Faults are injected into real runs; a table says what came of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from faultkit import table
from faultkit.bench import BEGAN, MODE, SEED, Bench, Row

_rows: list[Row] = []
KEPT = os.environ.get("MILLRACE_FAULTS_KEPT", "")


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Bench:
    """Trials of faults; see `Bench.trials`."""
    known = request.node.get_closest_marker("xfail")
    how = " ".join((request.function.__doc__ or "").split())
    file, line, _ = request.node.location
    reason = known.kwargs["reason"] if known else ""
    items = request.session.items
    to_come = sum("bench" in getattr(item, "fixturenames", ()) for item in items[items.index(request.node) :])
    return Bench(request.node.nodeid, (file, line or 0), _rows, how, reason, to_come)


class RunningTable:
    """Shows each row when its last trial has ended, and keeps it: what comes later may take half an hour."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal
        self._shown = 0
        self._seeds = 0  # of simulated flows

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the seeds that tests of simulated flows have played."""
        if report.when == "call" and report.passed:
            self._seeds += sum(int(n) for name, n in report.user_properties if name == "seeds")

    def pytest_sessionfinish(self) -> None:
        if self._seeds:
            self._keep(())

    def pytest_runtest_logfinish(self) -> None:
        if len(_rows) == self._shown:
            return
        new, first = _rows[self._shown :], not self._shown
        self._shown = len(_rows)
        self._terminal.ensure_newline()
        for row in (None, *new) if first else new:
            passed = divmod(int(time.monotonic() - BEGAN), 60)
            clock = "  time" if row is None else f"{passed[0]:3}:{passed[1]:02}"
            self._terminal.write_line(f"{clock} {table.running(row)}")
        self._keep(new)

    def _keep(self, rows: Sequence[Row]) -> None:
        if KEPT:
            told = table.kept(Path(KEPT, "faults.json"), rows, self._seeds)
            Path(KEPT, "faults.md").write_text(table.page(told), encoding="utf-8")


@pytest.hookimpl(trylast=True)  # after pytest has made its terminal
def pytest_configure(config: pytest.Config) -> None:
    if MODE == "full":
        config.pluginmanager.register(RunningTable(config.pluginmanager.get_plugin("terminalreporter")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, with columns as wide as it needs."""
    if not _rows:
        return
    terminalreporter.section(f"faults: MILLRACE_FAULTS={MODE} MILLRACE_SEED={SEED}")
    for line in table.lines(_rows):
        terminalreporter.write_line(line)
