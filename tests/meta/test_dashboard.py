"""The dashboard's own checks, and what an installation gets of it."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FOLDER = Path("orchestration/dashboard")


def deno(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"DENO_DIR": str(root / ".cache/deno"), "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"}
    program = Path(sys.executable).with_name("deno")
    return subprocess.run(
        [program, *arguments],
        cwd=root / FOLDER,
        env=env,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel that is built from the checkout, as a release is."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built)


def test_typescript_tests_pass(root: Path) -> None:
    """What `deno test` runs belongs to the suite."""
    done = deno(root, "task", "--quiet", "test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"ok \| [1-9]\d* passed", done.stdout), done.stdout


def test_wheel_has_the_bundle_whole(wheel: zipfile.ZipFile) -> None:
    """Git ignores the bundle, so a slip in the packaging would drop it without a word."""
    static = f"{FOLDER}/static/"
    page = wheel.read(static + "index.html").decode()
    named = set(re.findall(r'(?:src|href)="/(assets/[^"]+)"', page))
    assert {name.rsplit(".", 1)[1] for name in named} == {"js", "css", "svg"}
    there = {name.removeprefix(static) for name in wheel.namelist() if name.startswith(static)}
    assert there == named | {"index.html"}


def test_wheel_has_no_sources_of_the_dashboard(wheel: zipfile.ZipFile) -> None:
    """Who installs Millrace needs neither TypeScript nor the build's files; reports take their colours from one."""
    names = [name for name in wheel.namelist() if name.startswith(f"{FOLDER}/")]
    assert [name for name in names if "/static/" not in name] == [f"{FOLDER}/src/tokens.css"]


def test_bundle_is_small_and_obeys_the_policy(wheel: zipfile.ZipFile) -> None:
    """At most 200 kB gzipped; no inline script, no style attribute, nothing from elsewhere."""
    names = [name for name in wheel.namelist() if name.startswith(f"{FOLDER}/static/")]
    assert sum(len(gzip.compress(wheel.read(name))) for name in names) <= 200_000
    page = wheel.read(f"{FOLDER}/static/index.html").decode()
    assert re.findall(r"<style|\sstyle=|\son\w+=|https?:|<script(?![^>]*\ssrc=)", page) == []


def test_build_without_deno_warns_only_where_editable(root: Path, tmp_path: Path) -> None:
    """`pip install -e` has to work offline; a wheel without its pages must not come to be."""
    code = (
        "import runpy, sys\n"
        "from hatchling.bridge.app import Application\n"
        f"hook = runpy.run_path({str(root / FOLDER / 'hatch_build.py')!r})\n"
        "made = hook['DashboardHook'](sys.argv[1], {}, None, None, sys.argv[1], 'wheel', Application())\n"
        "made.initialize('editable', {})\n"
        "assert made.dependencies()\n"
        "made.initialize('standard', {})\n"
    )
    lone = tmp_path / "bin"
    lone.mkdir()
    (lone / "python").symlink_to(sys.executable)
    env = {"PATH": str(lone), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [lone / "python", "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    told = "there is no Deno here. Build it with `make ui`"
    assert f"The dashboard is not built: {told}" in done.stderr
    assert done.returncode == 1
    assert f"The dashboard cannot be built: {told}" in done.stderr
    assert "Traceback" not in done.stderr


def test_build_without_the_npm_registry_says_what_to_do(root: Path, tmp_path: Path) -> None:
    """What Deno says of it, without its own stack, then the cure; no traceback of the build backend."""
    env = os.environ | {"DENO_DIR": str(tmp_path / "deno"), "NPM_CONFIG_REGISTRY": "http://127.0.0.1:9/"}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(
        command, cwd=root, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "The dashboard cannot be built: `deno task bundle` said: " in done.stderr
    assert "Its packages come from the npm registry" in done.stderr
    assert "Traceback" not in done.stderr
    assert "backtrace" not in done.stderr
