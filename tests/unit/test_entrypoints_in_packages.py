"""Flows that live in a package are found again by their file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestration.api.entrypoints import entrypoint_of, load_flow
from orchestration.errors import FlowNotFoundError

FLOW = "from orchestration import flow\nfrom .helper import ANSWER\n\n\n@flow\ndef answer():\n    return ANSWER\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a package, whose modules import each other relatively."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    inner = tmp_path / "outer_pkg" / "inner_pkg"
    inner.mkdir(parents=True)
    (tmp_path / "outer_pkg" / "__init__.py").touch()
    (inner / "__init__.py").touch()
    (inner / "helper.py").write_text("ANSWER = 42\n")
    (inner / "flows.py").write_text(FLOW)
    return inner


def test_a_file_with_relative_imports_is_loaded_as_part_of_its_package(package: Path) -> None:
    """`millrace runs resume` knows a flow by its file only."""
    found = load_flow(f"{package / 'flows.py'}:answer")
    assert found.fn() == 42
    assert found.fn.__module__ == "outer_pkg.inner_pkg.flows"
    assert load_flow(entrypoint_of(found)) is found


def test_a_shadowed_package_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another module of the same name is not taken for it."""
    monkeypatch.setitem(sys.modules, "outer_pkg.inner_pkg.flows", sys)
    with pytest.raises(FlowNotFoundError, match="has that name"):
        load_flow(f"{package / 'flows.py'}:answer")
