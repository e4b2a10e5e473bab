"""The audit trail, and how often somebody may do or try something."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from orchestration.errors import StoreError
from orchestration.stores import open_store
from orchestration.stores.audit import AuditRow
from orchestration.stores.memory import MemoryStore
from orchestration.stores.sqlite import SqliteStore
from orchestration.stores.tokens import Role, mint
from orchestration.testing.store_entries import new_run
from orchestration.web import gate, rates
from orchestration.web.app import make_app
from orchestration.web.options import Options
from orchestration.web.rates import Rate, network_of

ASKING = {"Millrace-Request": "1"}
BASE = "http://localhost:4280"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def client_of(store: MemoryStore, address: str = "192.0.2.7", **options: object) -> TestClient:
    app = make_app(store, Options(**options))  # type: ignore[arg-type]
    return TestClient(app, BASE, headers=ASKING, client=(address, 5000), raise_server_exceptions=False)


def with_token(store: MemoryStore, role: Role) -> dict[str, str]:
    row, token = mint(role.word, role, time.time())
    store.add_token(row)
    return {"Authorization": f"Bearer {token}"}


def trail_of(store: MemoryStore) -> list[tuple[str, ...]]:
    """Who, what, on what and how it went, oldest first."""
    return [(row.who, row.action, row.target, row.outcome) for row in store.audit()][::-1]


def test_each_action_is_recorded(store: MemoryStore) -> None:
    """Who did what to what from where, also what failed and was refused; what only tells is not."""
    run, run_may, read_may = new_run(store), with_token(store, Role.RUN), with_token(store, Role.READ)
    client = client_of(store)
    client.get("/api/runs", headers=run_may)
    client.post(f"/api/runs/{run[:8]}/cancel", headers=run_may)
    client.post("/api/runs/none-such/cancel", headers=run_may)
    client.put("/api/limits/db", json={"slots": 1}, headers=run_may)
    client.post(f"/api/runs/{run}/cancel", headers=read_may)
    client.post(f"/api/runs/{run}/pause")
    client.post(f"/api/runs/{run}/pause", headers={"Origin": "http://evil.example"})
    client.post(
        "/api/runs", json={"entrypoint": "nowhere.py:main", "parameters": {"a": "b"}}, headers=run_may
    )
    assert trail_of(store) == [
        ("run", "run.cancel", run, "202 Accepted"),
        ("run", "run.cancel", "none-such", "404 Not Found"),
        ("run", "limit.set", "db", "403 Forbidden"),
        ("read", "run.cancel", run, "403 Forbidden"),
        ("", "run.pause", run, "401 Unauthorized"),
        ("", "run.pause", run, "403 Forbidden"),
        ("run", "run.start", "nowhere.py:main", "422 Unprocessable Entity"),
    ]
    rows = store.audit()
    assert {row.client for row in rows} == {"192.0.2.7"}
    assert rows[0].token_id == store.tokens()[0].token_id


def test_logins_are_recorded(store: MemoryStore) -> None:
    """By the token's name where it is known; the token itself is nowhere."""
    given = with_token(store, Role.ADMIN)["Authorization"].removeprefix("Bearer ")
    client = client_of(store)
    client.post("/api/login", json={"token": given[:-1] + "."})
    client.post("/api/login", json={"token": given})
    client.put("/api/limits/db", json={"slots": 2})
    client.post("/api/logout")
    assert trail_of(store) == [
        ("", "login", "", "401 Unauthorized"),
        ("admin", "login", "", "200 OK"),
        ("admin", "limit.set", "db", "200 OK"),
        ("admin", "logout", "", "200 OK"),
    ]
    assert given[-43:] not in repr(store.audit())


def test_the_trail_is_read_by_admins(store: MemoryStore) -> None:
    """In pages, newest first."""
    for n in range(5):
        store.add_audit(AuditRow(float(n), "me", "id", "here", "login", str(n), "200 OK"))
    client = client_of(store, require_token=True)
    admin, run = with_token(store, Role.ADMIN), with_token(store, Role.RUN)
    assert client.get("/api/audit", headers=run).status_code == 403
    seen, cursor = [], None
    while True:
        page = client.get(
            "/api/audit", params={"limit": 2} | ({"cursor": cursor} if cursor else {}), headers=admin
        ).json()
        seen += [row["target"] for row in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ["4", "3", "2", "1", "0"]


def test_what_cannot_be_recorded_stops_nothing(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The action is done by then; the log has what the trail lacks."""

    def full(row: AuditRow) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(store, "add_audit", full)
    assert client_of(store).put("/api/limits/db", json={"slots": 1}).status_code == 200
    assert "limit.set of 'db'" in caplog.text


def test_a_defect_is_answered_and_recorded(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As an error like all others, with the headers; what broke is in the log only."""

    def broken(*_: object) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr(store, "set_limit", broken)
    answer = client_of(store).put("/api/limits/db", json={"slots": 1})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "InternalError")
    assert "content-security-policy" in answer.headers
    assert "inside" not in answer.text
    assert "inside" in caplog.text
    assert trail_of(store) == [("", "limit.set", "db", "500 Internal Server Error")]


# --- rates ---------------------------------------------------------------------------------------


def test_a_rate() -> None:
    """So many at once, then so many a second; who waits is told how long, keys do not disturb each other."""
    now = [100.0]
    rate = Rate(2, 0.5, lambda: now[0])
    assert [rate.take("a") for _ in range(3)] == [0.0, 0.0, 2.0]
    assert rate.take("b") == 0.0
    now[0] += 1.0
    assert rate.wait("a") == 1.0
    now[0] += 1.0
    assert rate.wait("a") == 0.0
    assert [rate.take("a"), rate.take("a")] == [0.0, 2.0]
    now[0] += 1000.0
    assert [rate.take("a") for _ in range(3)] == [0.0, 0.0, 2.0]


def test_rates_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of addresses takes a bounded room; those that wait are forgotten last."""
    monkeypatch.setattr(rates, "MOST_KEYS", 10)
    now = [0.0]
    rate = Rate(1, 1.0, lambda: now[0])
    for n in range(10):
        rate.take(f"old {n}")
    now[0] = 5.0
    for n in range(10):
        assert rate.take(f"new {n}") == 0.0
    assert rate.wait("new 0") == 1.0
    for n in range(100):
        rate.take(f"more {n}")
    assert len(rate._buckets) <= 10


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::/64"), ("testclient", "testclient"), ("", "")],
)
def test_one_client(address: str, network: str) -> None:
    """Whoever has an IPv6 network has all addresses in it."""
    assert network_of(address) == network


def test_failed_logins_have_a_rate(store: MemoryStore) -> None:
    """From then on they are not even looked at, also the right one; other addresses are none the worse."""
    token = with_token(store, Role.READ)["Authorization"].removeprefix("Bearer ")
    app = make_app(store, Options())
    here = TestClient(app, BASE, headers=ASKING, client=("192.0.2.1", 1))
    there = TestClient(app, BASE, headers=ASKING, client=("192.0.2.2", 1))
    for _ in range(gate.FAILURES_AT_ONCE):
        assert here.post("/api/login", json={"token": "mlr_no"}).status_code == 401
    refused = here.post("/api/login", json={"token": token})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    assert there.post("/api/login", json={"token": token}).status_code == 200
    assert here.get("/api/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_wrong_tokens_have_a_rate(store: MemoryStore) -> None:
    """A program with an old token does not keep others of its machine out."""
    good = with_token(store, Role.READ)
    client = client_of(store)
    wrong = {"Authorization": "Bearer mlr_no"}
    found = [client.get("/api/runs", headers=wrong).status_code for _ in range(gate.FAILURES_AT_ONCE + 2)]
    assert found == [401] * gate.FAILURES_AT_ONCE + [429] * 2
    assert client.get("/api/runs", headers=good).status_code == 200


def test_actions_have_a_rate(store: MemoryStore) -> None:
    """By token; looking has none. The trail tells of it without growing with each try."""
    first, second = with_token(store, Role.ADMIN), with_token(store, Role.RUN)
    client = client_of(store)

    def remove(token: dict[str, str]) -> int:
        return client.delete("/api/limits/none", headers=token).status_code

    found = [remove(first) for _ in range(gate.ACTIONS_AT_ONCE + 100)]
    assert set(found[: gate.ACTIONS_AT_ONCE]) == {404}
    assert found.count(429) > 30
    assert remove(second) == 403
    assert client.get("/api/runs", headers=first).status_code == 200
    told = [row.outcome for row in store.audit(limit=1000)]
    assert 0 < told.count("429 Too Many Requests") <= 25


def test_strangers_do_not_fill_the_trail(store: MemoryStore) -> None:
    """What they are refused is recorded up to a rate."""
    with_token(store, Role.ADMIN)
    client = client_of(store)
    for _ in range(60):
        client.put("/api/limits/db", json={"slots": 1})
    assert 10 <= len(store.audit(limit=1000)) <= 30


# --- the command line ----------------------------------------------------------------------------


def test_the_trail_on_the_command_line(call: Call) -> None:
    """Tokens that were made there are in it; it is pruned with the runs."""
    assert "Nothing was done" in call("server", "audit")[2]
    call("token", "create", "ci", "--role", "run")
    call("token", "revoke", "ci")
    store = open_store()
    assert isinstance(store, SqliteStore)
    store.add_audit(AuditRow(time.time() - 1e6, "", "", "192.0.2.1", "login", "", "401 Unauthorized"))
    code, out, _ = call("server", "audit")
    assert code == 0
    lines = out.splitlines()
    assert "401 Unauthorized" in lines[1]
    assert "token.revoke" in lines[2]
    assert "command line" in lines[3]
    told = json.loads(call("server", "audit", "--json", "--limit", "1")[1])
    assert (told[0]["action"], told[0]["client"], told[0]["who"]) == ("login", "192.0.2.1", None)
    assert "would delete 1 row of the audit" in call("store", "prune", "--older-than", "1d", "--dry-run")[1]
    assert json.loads(call("store", "prune", "--older-than", "1d", "--json")[1])["audit"] == 1
    assert len(store.audit()) == 2
    assert json.loads(call("store", "prune", "--keep", "0", "--json")[1])["audit"] == 0
