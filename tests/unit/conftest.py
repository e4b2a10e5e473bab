"""What several unit tests share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestration.cli.app import run_command


@pytest.fixture
def call(
    millrace_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run a `millrace` command line here, in `tmp_path`: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name in ("MILLRACE_STORE", "MILLRACE_DISPLAY", "MILLRACE_DEBUG"):
        monkeypatch.setenv(name, "")  # commands set them for their process
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules, on_sigterm = set(sys.modules), signal.getsignal(signal.SIGTERM)

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command(args)
        out, err = capsys.readouterr()
        return code, out, err

    yield run
    signal.signal(signal.SIGTERM, on_sigterm)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
