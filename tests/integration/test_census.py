"""The demo, small: the same census on all four runners."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.census.__main__ import RUNNERS, main
from examples.census.compare import RunRecord, disagreements, run_on
from examples.census.discover import default_roots
from examples.census.flow import MAX_BYTES, census
from examples.census.specimens import specimens

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.dask, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunRecord]]:
    """About sixty files, counted once on each runner."""
    with pytest.MonkeyPatch.context() as patch, specimens(MAX_BYTES) as folder:
        patch.setenv("MILLRACE_HOME", str(tmp_path_factory.mktemp("home")))
        arguments = ([*default_roots(), folder], 28, MAX_BYTES)
        yield [run_on(census, name, name, arguments) for name in RUNNERS]


def test_all_runners_give_the_same_report_and_states(records: list[RunRecord]) -> None:
    """What the demo promises."""
    assert disagreements(records) == []
    assert [record.state for record in records] == ["Completed"] * 4
    assert len({record.digest for record in records}) == 1
    assert len({record.retried for record in records}) == 1


def test_each_kind_of_file_ends_as_it_should(records: list[RunRecord]) -> None:
    """Broken ones fail alone, with their own error types; too large ones are skipped."""
    report = records[0].report
    assert report is not None
    totals = report["totals"]
    assert totals["files"] == totals["measured"] + totals["failed"] + totals["skipped"]
    assert totals["files"] >= 60
    kinds = {group["kind"] for group in report["errors"]}
    assert {"SyntaxError", "UnicodeDecodeError", "FileNotFoundError"} <= kinds
    assert "specimens/too_large.py" in {entry["file"] for entry in report["skipped"]}
    states = records[0].states
    assert states["measure"]["UpstreamFailed"] == states["read"]["Failed"] >= 2
    assert states["measure"]["Skipped"] == states["read"]["Skipped"] >= 1
    assert set(states["summarise"]) == set(states["report"]) == {"Completed"}


def test_the_command_writes_the_report(
    tmp_path: Path, millrace_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page and a JSON file, and words on where they are."""
    out = tmp_path / "out"
    assert main(["--runners", "sequential,threads", "--limit-files", "5", "--out", str(out)]) == 0
    data = json.loads((out / "census.json").read_text(encoding="utf-8"))
    assert data["agree"] is True
    assert [run["runner"] for run in data["runs"]] == ["sequential", "threads"]
    assert (out / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    printed = capsys.readouterr().out
    assert str(out / "index.html") in printed
    assert f"millrace runs show {data['runs'][0]['run_name']}" in printed


def test_ctrl_c_ends_it_cleanly(tmp_path: Path, millrace_home: Path) -> None:
    """It stops with 130, says so, writes no report and leaves no temporary files."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [
        sys.executable,
        "-m",
        "examples.census",
        "--runners",
        "sequential",
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Census on"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Interrupted" in errors
    assert not (tmp_path / "out").exists()
    assert list(temporary.iterdir()) == []
