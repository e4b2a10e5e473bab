"""Lists of runs of which little is wanted: an answer looks at some of them, and says where to go on."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from orchestration.stores.base import RunRow
from orchestration.stores.memory import MemoryStore
from orchestration.web import reading
from orchestration.web.app import make_app
from orchestration.web.options import Options

RUNS = 23


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A server over runs of which each tenth is wanted, and which looks at seven for an answer."""
    monkeypatch.setattr(reading, "MOST_SCANNED", 7)
    monkeypatch.setattr(reading, "PAGE", 3)
    store = MemoryStore()
    for n in range(RUNS):
        store.create_run(RunRow(f"{n:016}", "wanted" if n % 10 == 2 else "other", "flow", created=1000.0 + n))
    return TestClient(make_app(store, Options()), base_url="http://localhost:4280")


def pages(client: TestClient, **query: Any) -> list[list[int]]:
    """The numbers of the runs on each page."""
    found, cursor = [], None
    while True:
        answer = client.get("/api/runs", params=query | ({"cursor": cursor} if cursor else {})).json()
        found.append([int(run["id"]) for run in answer["items"]])
        cursor = answer["next"]
        if cursor is None:
            return found


def test_a_search_goes_on_where_an_answer_ended(client: TestClient) -> None:
    """Also where it has found nothing yet; all that match come once."""
    assert pages(client, search="wanted") == [[22], [12], [2], []]
    assert pages(client, search="nobody") == [[], [], [], []]
    assert pages(client, search="wanted", limit=1, since=1010.0) == [[22], [], [12], []]
    assert [run for page in pages(client, limit=5) for run in page] == list(reversed(range(RUNS)))


def test_a_summary_says_of_how_many_it_is(client: TestClient) -> None:
    """Of the newest that were looked at, or of all."""
    told = client.get("/api/runs/summary").json()
    assert told == {"states": {"Pending": 7}, "of_newest": 7}
    assert client.get("/api/runs/summary", params={"since": 1018.0}).json()["of_newest"] is None


def test_an_answer_says_how_many_it_looked_at(client: TestClient) -> None:
    """A page tells how far a search is."""
    assert client.get("/api/runs", params={"search": "nobody"}).json()["searched"] == 7
    assert client.get("/api/runs", params={"limit": 2}).json()["searched"] == 2


def test_of_a_limit_that_many_want_the_first_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And how many there are; names of runs are looked up for those only."""
    monkeypatch.setattr(reading, "MOST_LEASES", 3)
    store = MemoryStore()
    store.set_limit("db", 5)
    for n in range(20):
        store.create_run(RunRow(f"{n:016}", f"run-{n}", "flow", created=1000.0 + n, heartbeat=store.now()))
        asked = {"holder": f"{n:016}/batch/0", "run_id": f"{n:016}", "epoch": 1, "slots": 1}
        store.acquire(["db"], **asked, label=f"load[{n}]", now=store.now())
    asked_for = list[str]()
    monkeypatch.setattr(store, "run", lambda run, ask=store.run: asked_for.append(run) or ask(run))
    client = TestClient(make_app(store, Options()), base_url="http://localhost:4280")
    (limit,) = client.get("/api/limits").json()
    assert (limit["holding"], limit["held"], limit["waiting"]) == (5, 5, 15)
    assert [one["run_name"] for one in limit["holders"]] == ["run-0", "run-1", "run-2"]
    assert [one["label"] for one in limit["waiters"]] == ["load[5]", "load[6]", "load[7]"]
    assert len(asked_for) == 6
