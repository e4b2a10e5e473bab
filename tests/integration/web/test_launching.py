"""Flows that a server starts in processes of their own."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from orchestration.stores import open_store
from orchestration.web.launching import Launcher

FLOW = """
import json, os, pathlib, sys
from orchestration import flow

here = pathlib.Path(__file__).parent
there = os.listdir(here / "tmp")

@flow
def main(name):
    seen = [name, there, sys.stdin.read()]
    (here / "half.json").write_text(json.dumps(seen))
    os.replace(here / "half.json", here / "seen.json")
"""


def test_parameters_are_in_no_file_that_could_be_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a flow starts, a server may be killed; the flow finds nothing more on its standard input."""
    (tmp_path / "flows.py").write_text(FLOW, encoding="utf-8")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    store = open_store(f"sqlite:///{tmp_path / 'runs.db'}")
    launcher = Launcher(store)
    launcher.run_flow(f"{tmp_path / 'flows.py'}:main", {"name": "ä" * 100_000})
    for child in launcher._children:
        child.wait(30)
    assert json.loads((tmp_path / "seen.json").read_text()) == ["ä" * 100_000, [], ""]
    store.close()
