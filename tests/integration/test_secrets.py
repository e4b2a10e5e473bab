"""Secrets among parameters reach the code of tasks and nothing else: no record, no log line, no error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FLOW = """
import os
from pydantic import BaseModel, SecretStr
from orchestration import flow, get_run_logger, task

class Login(BaseModel):
    user: str
    password: SecretStr

@task(persist_results=True)
def use(login: Login, token: SecretStr) -> int:
    get_run_logger().info("logging in as %s with %s", login, token)
    return len(login.password.get_secret_value()) + len(token.get_secret_value())

@flow
def main(login: Login, token: SecretStr, day: str = "monday") -> int:
    found = use.submit(login, token).result()
    print("seen", found, runtime_parameters())
    if os.environ.get("BREAK"):
        raise RuntimeError(f"cannot go on with {token} on {day}")
    return found

def runtime_parameters():
    from orchestration import runtime
    return runtime.flow_run.parameters
"""
COMMAND = str(Path(sys.executable).with_name("millrace"))
CANARY, OTHER = "canary-4711-token", "canary-0815-password"
LOGIN = f'login={{"user": "me", "password": "{OTHER}"}}'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(FLOW)
    return tmp_path


def millrace(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "MILLRACE_HOME": str(home / "home"), **more}
    command = [COMMAND, *words]
    return subprocess.run(
        command, cwd=home, env=env, capture_output=True, text=True, timeout=100, check=False
    )


def leaks(home: Path, *done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return where a canary can be read: files of the store, what was printed."""
    files = [p for p in (home / "home").rglob("*") if p.is_file()]
    found = [p.name for p in files if CANARY.encode() in p.read_bytes() or OTHER.encode() in p.read_bytes()]
    said = [word for d in done for word in (CANARY, OTHER) if word in d.stdout + d.stderr]
    return found + said


@pytest.mark.parametrize("runner", ["threads", pytest.param("dask", marks=pytest.mark.dask)])
def test_a_failed_run_leaks_nothing_and_is_resumed_with_its_secrets(home: Path, runner: str) -> None:
    """The run fails, its record shows stars, a resume asks for the secrets and completes with them."""
    words = ("run", "flows.py:main", "-p", LOGIN, "-p", f"token={CANARY}", "--runner", runner)
    failed = millrace(home, *words, BREAK="1")
    assert failed.returncode == 1, failed.stderr
    shown = [millrace(home, "runs", *more) for more in (("ls",), ("show", "main"), ("logs", "main"))]
    name = millrace(home, "runs", "ls", "--json").stdout.split('"name": "')[1].split('"')[0]
    shown += [millrace(home, "runs", *more, name) for more in (("show",), ("logs",))]
    asked = millrace(home, "runs", "resume", name)
    assert "login" in asked.stderr
    assert "never recorded" in asked.stderr
    wrong = millrace(home, "runs", "resume", name, "-p", "day=tuesday", "-p", LOGIN, "-p", f"token={CANARY}")
    assert "'day'" in wrong.stderr
    resumed = millrace(home, "runs", "resume", name, "-p", LOGIN, "-p", f"token={CANARY}")
    assert resumed.returncode == 0, resumed.stderr
    assert leaks(home, failed, *shown, asked, wrong, resumed) == []


def test_a_secret_that_does_not_fit_is_not_shown(home: Path) -> None:
    """The error names the parameter and not its value."""
    bad = millrace(home, "run", "flows.py:main", "-p", LOGIN, "-p", "token=4711081500")
    assert "token" in bad.stderr
    assert "4711081500" not in bad.stderr + bad.stdout


def test_files_are_for_their_owner_only(home: Path) -> None:
    """Whatever the umask: nobody else reads records and results."""
    env = {**os.environ, "MILLRACE_HOME": str(home / "home")}
    call = f"umask 0; exec {COMMAND} run flows.py:main -p '{LOGIN}' -p token=x"
    subprocess.run(["bash", "-c", call], cwd=home, env=env, capture_output=True, timeout=100, check=True)
    found = [(p.relative_to(home), p.stat().st_mode & 0o077) for p in (home / "home").rglob("*")]
    assert len(found) > 3
    assert [entry for entry in found if entry[1]] == []
