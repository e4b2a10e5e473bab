"""Flow processes that record by way of a server: who may, of which version, and what is left when they are killed."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from orchestration import flow, stores, task
from orchestration.core.states import RunState, State
from orchestration.errors import StoreNewerError, StoreRefusedError, UserError
from orchestration.stores.remote import RemoteStore
from orchestration.stores.sqlite import SqliteStore
from orchestration.stores.tokens import Role, mint
from orchestration.stores.wire import port
from orchestration.testing.server import ServerProcess
from runners import SequentialTaskRunner

START = "import sys; from orchestration.cli import main; sys.exit(main())"


@pytest.fixture
def server(tmp_path: Path, millrace_home: Path) -> Iterator[ServerProcess]:
    """A server of a test's own."""
    with ServerProcess(str(tmp_path / "millrace.db")) as server:
        yield server


@pytest.fixture
def direct(server: ServerProcess, tmp_path: Path) -> Iterator[SqliteStore]:
    """The server's store."""
    store = SqliteStore(tmp_path / "millrace.db")
    yield store
    store.close()


# --- killed while the server is away -------------------------------------------------------------

FLOW = """
import os
import sys
from pathlib import Path
from orchestration import flow, task
from runners import SequentialTaskRunner

NOTES = Path(sys.argv[1])

def recorded(task, task_run, state):
    os.write(1, b"recorded\\n")

@task(batch=1, on_completion=[recorded])
def work(n):
    with NOTES.open("a") as file:
        file.write(f"{n}\\n")
    if n in (3, 9):
        os.write(1, b"stop\\n")
        sys.stdin.readline()
    return n

@flow(task_runner=SequentialTaskRunner(), persist_results=True)
def main():
    return sum(work.map(range(12)).result())

print(main.resume(sys.argv[2]) if sys.argv[2:] else main())
"""


def millrace(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START, *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


def killed_while_away(server: ServerProcess, environ: dict[str, str], script: Path, notes: Path) -> None:
    """Run the flow; kill the server at its item 3, and the flow's process at its item 9."""
    process = subprocess.Popen(
        [sys.executable, str(script), str(notes)],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert sorted(process.stdout.readline() for _ in range(4)) == ["recorded\n"] * 3 + ["stop\n"]
    server.kill()
    process.stdin.write("go on\n")
    process.stdin.flush()
    assert sorted(process.stdout.readline() for _ in range(7)) == ["recorded\n"] * 6 + ["stop\n"]
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("first", ["resume", "flush", "reaped"])
def test_a_flow_that_is_killed_while_the_server_is_away(
    server: ServerProcess, direct: SqliteStore, tmp_path: Path, millrace_home: Path, first: str
) -> None:
    """All that it had recorded counts, also if it was given up for dead before that was sent: nothing runs again."""
    script, notes = tmp_path / "killed.py", tmp_path / "notes"
    script.write_text(FLOW)
    environ = os.environ | {"MILLRACE_API_URL": server.url}
    killed_while_away(server, environ, script, notes)
    (spool,) = (millrace_home / "spool").glob("*.spool")
    (run,) = direct.runs()
    assert run.counts[State.COMPLETED] < 9
    if first == "reaped":
        assert direct.reap(direct.now()) == [run.run_id]
    server.start()
    if first == "flush":
        done = millrace(environ, "store", "flush", "--json")
        told = json.loads(done.stdout)
        assert (done.returncode, told["store"], told["refused"]) == (0, server.url, 0)
        assert told["sent"] > 0
        assert not spool.exists()
        assert millrace(environ, "store", "flush", "--json").stdout.count('"sent": 0') == 1
    done = subprocess.run(
        [sys.executable, str(script), str(notes), run.run_id],
        env=environ,
        input="go on\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "66"
    assert not spool.exists()
    counted = [notes.read_text().splitlines().count(str(n)) for n in range(12)]
    assert counted == [2 if n == 9 else 1 for n in range(12)]
    (run,) = direct.runs()
    assert (run.state, run.counts[State.COMPLETED]) == (RunState.COMPLETED, 12)
    assert direct.problems(direct.now()) == []


def test_flushing_what_is_no_server(millrace_home: Path) -> None:
    """It says what is buffered at all."""
    done = millrace(dict(os.environ), "store", "flush")
    assert done.returncode == 2
    assert "MILLRACE_API_URL" in done.stderr


def test_a_server_by_way_of_a_server(server: ServerProcess) -> None:
    """It is refused, and so is what only works where the database is."""
    environ = os.environ | {"MILLRACE_API_URL": server.url}
    for command in (["server", "start", "--port", "0"], ["store", "check"], ["store", "migrate"]):
        done = millrace(environ, *command)
        assert done.returncode == 2, command
        assert "server" in done.stderr


def test_the_command_line_by_way_of_a_server(
    server: ServerProcess, direct: SqliteStore, tmp_path: Path
) -> None:
    """A run, and what is asked about it; the doctor finds nothing."""
    (tmp_path / "flows.py").write_text(
        "from orchestration import flow, task\n\n@task\ndef one(n):\n    return n\n\n"
        "@flow\ndef main():\n    return one.map(range(5)).result()\n"
    )
    environ = os.environ | {"MILLRACE_API_URL": server.url}
    ran = millrace(environ, "run", f"{tmp_path / 'flows.py'}:main", "--json")
    assert ran.returncode == 0, ran.stderr
    (run,) = direct.runs()
    shown = millrace(environ, "runs", "show", "latest", "--json")
    assert json.loads(shown.stdout)["id"] == run.run_id
    assert f"{server.url}, readable and writable" in millrace(environ, "doctor").stdout


# --- who may -------------------------------------------------------------------------------------


def token(store: SqliteStore, role: Role) -> str:
    row, secret = mint(role.word, role, time.time())
    store.add_token(row)
    return secret


def test_who_has_no_token_starts_nothing(
    server: ServerProcess, direct: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says so, and how to get one, before any code of the flow has run."""
    ran: list[int] = []

    @task
    def work(n: int) -> int:
        ran.append(n)
        return n

    @flow(task_runner=SequentialTaskRunner(), store=server.url)
    def main() -> int:
        return work.submit(1).result()

    reader, runner = token(direct, Role.READ), token(direct, Role.RUN)
    for wrong in ("", "mlr_" + "0" * 12 + "_" + "x" * 43, reader):
        monkeypatch.setenv("MILLRACE_API_TOKEN", wrong)
        with pytest.raises(StoreRefusedError, match=r"MILLRACE_API_TOKEN|needs the role run") as caught:
            main()
        assert not wrong or wrong not in str(caught.value)
        stores._open.pop(server.url, None)
    assert (ran, direct.runs()) == ([], [])
    monkeypatch.setenv("MILLRACE_API_TOKEN", runner)
    assert (main(), ran) == (1, [1])
    stores._open.pop(server.url).close()


def test_what_a_role_permits(server: ServerProcess, direct: SqliteStore) -> None:
    """Reading, running, and limits that all runs share."""
    tokens = {role: token(direct, role) for role in Role}
    place = server.url.removeprefix("http://")
    by_role = {role: RemoteStore(f"http://:{secret}@{place}") for role, secret in tokens.items()}
    assert by_role[Role.READ].runs() == []
    with pytest.raises(StoreRefusedError, match="role run"):
        by_role[Role.READ].release(["x"])
    by_role[Role.RUN].release(["x"])
    with pytest.raises(UserError, match="role admin"):
        by_role[Role.RUN].set_limit("db", 1)
    by_role[Role.ADMIN].set_limit("db", 1)
    assert [limit.name for limit in by_role[Role.READ].limits(0.0)] == ["db"]
    for role, store in by_role.items():
        assert store.url == server.url  # for people, without the token
        assert tokens[role] in store.address  # for workers, with it
        store.close()


# --- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "cure"),
    [(port.VERSION - 1, "Upgrade this installation"), (port.VERSION + 1, "Upgrade the server")],
)
def test_a_server_of_another_version(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, other: int, cure: str
) -> None:
    """Both sides say which one to upgrade; nothing is guessed."""
    monkeypatch.setattr(port, "VERSION", other)
    monkeypatch.setattr("orchestration.stores.remote.faults.VERSION", other)
    with pytest.raises(StoreNewerError, match=cure):
        RemoteStore(server.url)
    headers = {"Millrace-Request": "1", port.VERSION_HEADER: str(other)}
    for path in ("read", "note", "write"):
        answer = httpx.post(f"{server.url}/api/store/{path}", headers=headers, content=b"")
        assert (answer.status_code, answer.json()["error"]["type"]) == (409, "StoreNewerError")
    assert httpx.get(f"{server.url}/api/store/news", headers=headers).status_code == 409


def test_what_is_no_server_of_ours(millrace_home: Path) -> None:
    """Another web server, or one of ours from before there were runs elsewhere."""

    class Silent(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Silent) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(StoreNewerError, match="no Millrace server"):
            RemoteStore(f"http://127.0.0.1:{other.server_port}")
        other.shutdown()


def test_requests_that_are_none(server: ServerProcess) -> None:
    """They are refused as such, and too large ones unread."""
    headers = {"Millrace-Request": "1", port.VERSION_HEADER: str(port.VERSION)}
    for path in ("read", "note", "write"):
        answer = httpx.post(f"{server.url}/api/store/{path}", headers=headers, content=b"\xc1")
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "InvalidRequest")
    large = headers | {"Content-Length": str(port.MAX_REQUEST_BYTES + 1)}
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/api/store/write", headers=large)
    assert connection.getresponse().status == 413
    connection.close()
