"""What nobody means and somebody sends: numbers that no database holds, NUL, names that no file can have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from orchestration.core.journal import RunMoved
from orchestration.core.states import RunState
from orchestration.stores.sqlite import SqliteStore
from orchestration.testing.store_entries import NOW, ended, new_run
from orchestration.web.app import make_app
from orchestration.web.options import Options

HUGE = str(1 << 63)
ASKING = {"Millrace-Request": "1"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    store = SqliteStore(tmp_path / "millrace.db")
    store.append(new_run(store, "0"), 1, [ended(0, range(10)), RunMoved(RunState.COMPLETED, NOW + 1)])
    app = make_app(store, Options())
    yield TestClient(app, base_url="http://localhost:4280", raise_server_exceptions=False)
    store.close()


@pytest.mark.parametrize(
    "path",
    [
        f"/api/runs/0/nodes/{HUGE}/items/0",
        f"/api/runs/0/nodes/0/items/{HUGE}",
        f"/api/runs/0/nodes/0/items/{HUGE}/result",
        "/api/runs/0/nodes/0/items/-9223372036854775809",
        f"/api/runs/0/nodes/{HUGE}/states",
        f"/api/runs/0/task-runs?node={HUGE}",
        f"/api/runs/0/task-runs?cursor=0-{HUGE}",
        f"/api/runs/0/timeline?after={HUGE}-0",
        f"/api/runs/0/logs?after={HUGE}",
        f"/api/runs/0/logs?node=0&index={HUGE}",
        "/api/runs?cursor=inf-0",
    ],
)
def test_numbers_that_no_database_holds_are_refused(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/runs/%00"),
        ("GET", "/api/runs?flow=a%00b"),
        ("GET", "/api/flows/%00/form"),
        ("POST", "/api/runs/a%00/cancel"),
        ("PUT", "/api/limits/a%00b"),
        ("GET", "/runs/%00"),
    ],
)
def test_an_address_has_no_nul(client: TestClient, method: str, path: str) -> None:
    """PostgreSQL's texts hold none, nor do names of files."""
    answer = client.request(method, path, headers=ASKING)
    assert answer.status_code == 422
    assert "NUL" in answer.json()["error"]["message"]


def test_an_entry_point_has_no_nul(client: TestClient) -> None:
    """No process can be given one."""
    answer = client.post("/api/runs", headers=ASKING, json={"entrypoint": "flows\0.py:etl", "parameters": {}})
    assert answer.status_code == 422
    assert "entrypoint" in answer.json()["error"]["message"]


def test_a_name_that_no_file_can_have_is_a_page_as_others(client: TestClient) -> None:
    assert client.get("/" + "a" * 300).status_code == 200


def test_a_task_run_that_is_not_there_is_not_found(client: TestClient) -> None:
    """404, by which its page says so."""
    for place in ("0/items/10", "7/items/0"):
        answer = client.get(f"/api/runs/0/nodes/{place}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NoSuchTaskRun")


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("GET", "/api/runs?sate=Failed", "state"),
        ("GET", "/api/runs/0/task-runs?node=0&=true", "search"),
        ("GET", "/api/runs/0/nodes/0/states?limit=10", "none"),
        ("POST", "/api/runs/0/cancel?why=", "none"),
    ],
)
def test_a_parameter_that_is_misspelt_is_no_list_of_everything(
    client: TestClient, method: str, path: str, known: str
) -> None:
    answer = client.request(method, path, headers=ASKING)
    assert answer.status_code == 422, answer.text
    assert "There is no parameter" in answer.text
    assert known in answer.text.partition("known: ")[2]
