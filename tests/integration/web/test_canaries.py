"""Secrets that lie around a server, and whether anything that it says contains one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from orchestration.stores import open_store
from orchestration.stores.served import ServedStore
from orchestration.stores.tokens import Role, mint

from .conftest import START, start_server

FLOWS = """
from pydantic import SecretStr
from orchestration import flow, task

@task(persist_results=True)
def seal(key: SecretStr, n: int) -> str:
    if n == 2:
        raise ValueError(f"cannot seal with {key}")
    return "canary-" + "result-of-the-task"

@flow(persist_results=True)
def sealing(key: SecretStr):
    futures = [seal.submit(key, n) for n in range(3)]
    return [future.wait() for future in futures] and "done"
"""
RESULT, PARAMETER, ENVIRONMENT = "canary-result-of-the-task", "canary-parameter", "canary-environment"
PASSWORD = "canary-password"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty store; that of a server has a password in it."""
    if request.param == "sqlite":
        return str(tmp_path / "millrace.db")
    url: str = request.getfixturevalue("postgres_url")
    found = re.sub(r"^(\w+://[^:@/]+)@", rf"\1:{PASSWORD}@", url)
    assert PASSWORD in found
    return found


def test_no_answer_and_no_line_has_a_secret(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the environment, a parameter, a result, the store's password, a token or a session."""
    flows = tmp_path / "flows.py"
    flows.write_text(FLOWS)
    for name, value in (("MILLRACE_STORE", address), ("MY_API_KEY", ENVIRONMENT)):
        monkeypatch.setenv(name, value)
    env = os.environ | {"MILLRACE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", START, "run", f"{flows}:sealing", "-p", f"key={PARAMETER}", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    run = json.loads(done.stdout)["id"]
    kept = [path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert any(RESULT.encode() in data for data in kept), "the result is there to be found"

    store = open_store(address)
    assert isinstance(store, ServedStore)
    row, token = mint("canary", Role.ADMIN, time.time())
    store.add_token(row)
    process = start_server(tmp_path / "home")
    assert process.stdout is not None
    first = process.stdout.readline()
    with httpx.Client(base_url=first.split()[1], headers={"Millrace-Request": "1"}, timeout=60) as client:
        said, session = _all_that_is_said(client, run, token, flows)
    process.terminate()
    said.append(first + process.communicate(timeout=20)[0])
    store.close()

    secrets = [RESULT, PARAMETER, ENVIRONMENT, PASSWORD, token[-43:], row.digest, session]
    for text in said:
        assert [secret for secret in secrets if secret in text] == [], text[:500]
    assert any(run in text for text in said)
    assert any("cannot seal with **********" in text for text in said)


def _all_that_is_said(client: httpx.Client, run: str, token: str, flows: Path) -> tuple[list[str], str]:
    """Ask for everything, rightly and wrongly; return all answers, and the secret of a session."""
    said = list[str]()

    def ask(method: str, path: str, **how: object) -> httpx.Response:
        answer = client.request(method, path, **how)  # type: ignore[arg-type]
        headers = [f"{name}: {value}" for name, value in answer.headers.items() if name != "set-cookie"]
        said.append("\n".join([path, *headers, answer.content.decode(errors="replace")]))
        return answer

    ask("GET", "/api/me", headers={"Authorization": f"Bearer {token[:-1]}"})
    ask("POST", "/api/login", json={"token": token[:-1]})
    ask("POST", "/api/login", json={"token": [token]})
    assert ask("POST", "/api/login", json={"token": token}).status_code == 200
    (session,) = client.cookies.values()
    paths = ask("GET", "/api/openapi.json").json()["paths"]
    for path, methods in paths.items():
        filled = path.format(run=run, node=0, index=2, flow="sealing", name="db")
        if "get" in methods and not path.endswith(("/stream", "/news")):
            ask("GET", filled)
    for stream in ("/api/stream", f"/api/runs/{run}/stream"):
        with client.stream("GET", stream) as heard:
            lines = heard.iter_lines()
            said += [next(line for line in lines if line.startswith("data:"))]
    for page in ("/", "/login", "/runs", f"/runs/{run}"):
        ask("GET", page)
    for what in ("retry", "resume", "cancel"):
        ask("POST", f"/api/runs/{run}/{what}")
    ask("POST", "/api/runs", json={"entrypoint": f"{flows}:none", "parameters": {}})
    ask("POST", "/api/runs", json={"entrypoint": f"{flows}:sealing", "parameters": {"key": 7}})
    ask("GET", "/api/audit")
    ask("POST", "/api/logout")
    return said, session


@pytest.mark.postgres
def test_a_server_that_cannot_reach_its_store_hides_the_password(postgres_url: str, tmp_path: Path) -> None:
    """Neither the command nor its log says how the store is reached."""
    away = re.sub(r"^(\w+://[^:@/]+)@[^/]*", rf"\1:{PASSWORD}@127.0.0.1:1", postgres_url).partition("?")[0]
    process = start_server(tmp_path, "--store", away)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 3, out
    assert "127.0.0.1" in out
    assert PASSWORD not in out
