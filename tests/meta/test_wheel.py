"""What a user installs is whole: built, installed into a fresh environment, imported from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest


def run(*command: str | Path, cwd: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the declared backend without any index."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=root)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it, and its dependencies on the path behind it.

    A folder named in a .pth file does not have its own .pth files read, so the editable install of the
    checkout stays invisible.
    """
    home = tmp_path_factory.mktemp("env")
    venv.create(home, with_pip=True, symlinks=True)
    run(home / "bin/python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=home)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return home


def test_wheel_holds_types_and_migrations(root: Path, wheel: Path) -> None:
    """Type checkers need py.typed, the stores need their SQL files."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"runners/py.typed", "orchestration/py.typed"} <= names
    migrations = {str(path.relative_to(root)) for path in (root / "orchestration").rglob("*.sql")}
    assert migrations, "no SQL migrations in the checkout"
    assert migrations <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_of_the_dashboard_the_wheel_holds_what_is_read(wheel: Path) -> None:
    """The bundle is made of its sources; only the colours are read as they are, by `millrace runs report`."""
    names = zipfile.ZipFile(wheel).namelist()
    sources = [name for name in names if name.startswith("orchestration/dashboard/src/")]
    assert sources == ["orchestration/dashboard/src/tokens.css"]


def test_wheel_holds_only_the_two_packages(wheel: Path) -> None:
    """Tests, benchmarks and examples stay in the repository."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"runners", "orchestration"}


def test_installed_packages_import_from_another_folder(installed: Path, tmp_path: Path) -> None:
    """The imported files are the installed ones, not the checkout's."""
    code = (
        "import orchestration, runners\n"
        "from orchestration import flow, task\n"
        "from runners import DaskTaskRunner, SequentialTaskRunner\n"
        "print(orchestration.__file__, runners.__file__)"
    )
    for path in run(installed / "bin/python", "-c", code, cwd=tmp_path).split():
        assert Path(path).is_relative_to(installed)


def test_installed_command_answers(installed: Path, tmp_path: Path) -> None:
    """The console script is there and knows its version."""
    assert "0.1.0" in run(installed / "bin/millrace", "version", cwd=tmp_path)
