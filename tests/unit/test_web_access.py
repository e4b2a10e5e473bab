"""Who may use the server: tokens, roles, sessions, and what pages of other sites cannot do."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse

from orchestration.errors import UserError
from orchestration.stores.memory import MemoryStore
from orchestration.stores.tokens import Role, TokenRow, mint
from orchestration.web import callers as callers_module
from orchestration.web import streams
from orchestration.web.app import make_app
from orchestration.web.callers import Callers
from orchestration.web.gate import Gate
from orchestration.web.options import Options, check_tokens
from orchestration.web.roles import RULES, rules_of
from orchestration.web.trail import Trail

ASKING = {"Millrace-Request": "1"}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def tokens(store: MemoryStore) -> dict[Role, str]:
    """A token of each role, which the store knows."""
    made = {}
    for role in Role:
        row, made[role] = mint(role.word, role, time.time())
        store.add_token(row)
    return made


@pytest.fixture(autouse=True)
def known_for_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is revoked is refused by the next request."""
    monkeypatch.setattr(callers_module, "KNOWN_SECONDS", -1.0)


def client_of(store: MemoryStore, base_url: str = "http://localhost:4280", **options: Any) -> TestClient:
    return TestClient(make_app(store, Options(**options)), base_url)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# --- roles ---------------------------------------------------------------------------------------


def routes() -> list[tuple[str, str]]:
    """All routes of the API's description."""
    paths = make_app(MemoryStore(), Options()).openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_the_table_has_every_route_and_no_other() -> None:
    """A route without a rule would never be answered, a rule without a route says nothing."""
    told = {(method, path) for path, rules in RULES.items() for method in rules}
    assert set(routes()) == told - {("GET", "/api/openapi.json")}


@pytest.mark.parametrize(("method", "path"), [*routes(), ("GET", "/api/openapi.json")])
def test_every_route_needs_its_role(
    store: MemoryStore, tokens: dict[Role, str], method: str, path: str
) -> None:
    """Without a token 401, with too small a role 403, from the role on it is let through."""
    options = Options(require_token=True)
    callers = Callers(store, needed=True, cookie="c")
    gate = Gate(PlainTextResponse("in"), callers, Trail(store), options)
    client = TestClient(gate, "http://localhost:4280", headers=ASKING)
    filled = re.sub(r"{\w+}", "x", path)
    needed = RULES[path][method].role
    answer = client.request(method, filled)
    assert answer.status_code == (200 if needed is None else 401)
    if needed is not None:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert f"--role {needed.word}" in answer.json()["error"]["message"]
    assert client.request(method, filled, headers=bearer("mlr_0_no")).status_code == answer.status_code
    for role, token in tokens.items():
        answer = client.request(method, filled, headers=bearer(token))
        assert answer.status_code == (200 if needed is None or role >= needed else 403)
        if answer.status_code == 403:
            assert answer.json()["error"]["type"] == "RoleTooSmall"


def test_what_is_not_in_the_table_is_not_answered(store: MemoryStore) -> None:
    """Neither another path nor another method, whoever asks."""
    client = client_of(store)
    assert client.get("/api/odd").status_code == 404
    refused = client.post("/api/limits", headers=ASKING)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
    assert rules_of("/api/runs/summary") == (RULES["/api/runs/summary"], "")
    assert rules_of("/api/runs/x/nodes/1/items/2")[1] == "x 1 2"


# --- tokens --------------------------------------------------------------------------------------


def test_this_machine_needs_no_token_until_there_is_one(store: MemoryStore) -> None:
    """From then on it does, also when the last one is gone: nothing opens by itself."""
    client = client_of(store)
    assert client.get("/api/me").json() == {"role": "admin", "user": None}
    row, token = mint("me", Role.RUN, time.time())
    store.add_token(row)
    assert client.get("/api/me").status_code == 401
    assert client.get("/api/me", headers=bearer(token)).json() == {"role": "run", "user": "me"}
    assert store.tokens()[0].last_used is not None
    store.remove_token(row.token_id)
    refused = client.get("/api/me", headers=bearer(token))
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "TokenRefused")
    assert client.get("/api/me").json()["error"]["type"] == "TokenMissing"


@pytest.mark.parametrize(
    "given", ["Bearer x", "Bearer", "Basic {token}", "Bearer {other}", "Bearer {longer}"]
)
def test_what_is_no_token_is_refused(store: MemoryStore, given: str) -> None:
    """Also where none is needed: who sends one believes to be somebody."""
    row, token = mint("me", Role.RUN, time.time())
    other = f"mlr_{row.token_id}_{mint('x', Role.RUN, 0.0)[1][-43:]}"
    client = client_of(store)
    text = given.format(token=token, other=other, longer=token + "x")
    assert client.get("/api/me", headers={"Authorization": text}).status_code == 401
    store.add_token(row)
    assert client.get("/api/me", headers={"Authorization": text}).status_code == 401


def test_a_token_expires(store: MemoryStore) -> None:
    """From its end on it is refused, and does not count as one that somebody has."""
    row, token = mint("late", Role.ADMIN, 0.0, expires=time.time() - 1)
    store.add_token(row)
    assert client_of(store).get("/api/me", headers=bearer(token)).status_code == 401
    with pytest.raises(UserError, match=r"no valid token.*millrace token create"):
        check_tokens(Options(host="0.0.0.0"), store)


@pytest.mark.parametrize(
    "options",
    [
        {"host": "0.0.0.0"},
        {"host": "192.0.2.1"},
        {"require_token": True},
        {"names": ("flows.example",)},
        {"proxies": ("192.0.2.1",)},
    ],
)
def test_others_are_served_only_where_somebody_has_a_token(
    store: MemoryStore, options: dict[str, Any]
) -> None:
    """The refusal names the command; with a token it starts, and nobody is let in without."""
    with pytest.raises(UserError, match="millrace token create NAME --role admin"):
        check_tokens(Options(**options), store)
    check_tokens(Options(), store)
    store.add_token(mint("me", Role.READ, time.time())[0])
    check_tokens(Options(**options), store)
    assert client_of(MemoryStore(), **options).get("/api/me").status_code == 401


def test_health_tells_strangers_nothing_of_the_store(store: MemoryStore, tokens: dict[Role, str]) -> None:
    """Whether it is well, and no more; who may read is told where the store is."""
    client = client_of(store)
    assert client.get("/api/health").json() == {"status": "ok"}
    told = client.get("/api/health", headers=bearer(tokens[Role.READ])).json()
    assert told["store"] == "memory"


# --- sessions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_browser_logs_in_and_out(store: MemoryStore, tokens: dict[Role, str], scheme: str) -> None:
    """It gets a cookie that no script reads and no other site sends, and that is not the token."""
    client = client_of(store, f"{scheme}://localhost:4280", port=4280)
    wrong = client.post("/api/login", json={"token": "mlr_no"}, headers=ASKING)
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    answer = client.post("/api/login", json={"token": f" {tokens[Role.RUN]}\n"}, headers=ASKING)
    assert answer.json() == {"role": "run", "user": "run"}
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("millrace-4280=")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert ("Secure" in cookie) is (scheme == "https")
    assert tokens[Role.RUN][-43:] not in cookie
    assert client.get("/api/me").json() == {"role": "run", "user": "run"}
    kept = f"millrace-4280={client.cookies['millrace-4280']}"
    assert client.post("/api/logout", headers=ASKING).status_code == 200
    assert dict(client.cookies) == {}
    assert client.get("/api/me", headers={"Cookie": kept}).status_code == 401


def test_a_session_ends_with_its_token(
    store: MemoryStore, tokens: dict[Role, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When that is revoked, and after half a day."""
    client = client_of(store)
    for end in (
        lambda: store.remove_token(store.tokens()[0].token_id),
        lambda: monkeypatch.setattr(time, "time", lambda: callers_module.SESSION_SECONDS + 1e10),
    ):
        token = tokens[store.tokens()[0].role]
        client.post("/api/login", json={"token": token}, headers=ASKING)
        assert client.get("/api/me").status_code == 200
        end()
        assert client.get("/api/me").status_code == 401


def test_a_stream_ends_with_the_token(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was let in once does not look on for ever."""
    row, token = mint("me", Role.READ, time.time())
    store.add_token(row)
    asked: list[str] = []

    def revoked_meanwhile(token_id: str) -> TokenRow | None:
        asked.append(token_id)
        return row if len(asked) < 5 else None

    monkeypatch.setattr(store, "token", revoked_meanwhile)
    monkeypatch.setattr(streams, "ALIVE_SECONDS", 0.001)
    with client_of(store) as client:
        heard = client.get("/api/stream", headers=bearer(token)).text
    assert heard.startswith(": here")
    assert heard.endswith("event: bye\ndata: {}\n\n")
    assert len(asked) == 5


# --- other sites ---------------------------------------------------------------------------------

FORGERIES: list[tuple[dict[str, str], str]] = [
    ({"Origin": "http://evil.example"}, "WrongOrigin"),
    ({"Origin": "null"}, "WrongOrigin"),
    ({"Origin": "http://localhost:9999"}, "WrongOrigin"),
    ({"Sec-Fetch-Site": "cross-site"}, "WrongOrigin"),
    ({"Sec-Fetch-Site": "same-site"}, "WrongOrigin"),
    ({"Millrace-Request": ""}, ""),
    ({"Host": "evil.example"}, "WrongHost"),
    ({"Host": "192.0.2.1"}, "WrongHost"),
    ({"Host": ""}, "WrongHost"),
]


@pytest.mark.parametrize(("headers", "kind"), FORGERIES)
def test_forgeries(store: MemoryStore, headers: dict[str, str], kind: str) -> None:
    """Each is told what is wrong with it, and has changed nothing."""
    store.set_limit("db", 1)
    answer = client_of(store).delete("/api/limits/db", headers=ASKING | headers)
    assert answer.status_code == (403 if kind else 200)
    assert not kind or answer.json()["error"]["type"] == kind
    assert len(store.limits(0.0)) == bool(kind)


def test_a_page_of_this_site_may(store: MemoryStore) -> None:
    """With its origin and the header; a form, which cannot send the header, may not."""
    client = client_of(store)
    own = {"Origin": "http://localhost:4280", "Sec-Fetch-Site": "same-origin"}
    body = {"slots": 1}
    assert client.put("/api/limits/db", json=body, headers=own | ASKING).status_code == 200
    assert client.put("/api/limits/db", json=body, headers=own).json()["error"]["type"] == "MissingHeader"


@pytest.mark.parametrize(
    ("options", "host", "answered"),
    [
        ({}, "localhost", True),
        ({}, "[::1]:4280", True),
        ({}, "127.0.0.1:80", True),
        ({}, "192.0.2.1", False),
        ({"names": ("Flows.example",)}, "flows.example:443", True),
        ({"names": ("flows.example",)}, "evil.example", False),
        ({"host": "0.0.0.0"}, "192.0.2.1:4280", True),
        ({"host": "0.0.0.0"}, "[2001:db8::1]:4280", True),
        ({"host": "0.0.0.0"}, "evil.example", False),
    ],
)
def test_names_that_it_answers_to(options: dict[str, Any], host: str, answered: bool) -> None:
    """Its addresses and the names that it was given; no name of another site that points here."""
    answer = client_of(MemoryStore(), **options).get("/api/health", headers={"Host": host})
    assert answer.status_code == (200 if answered else 403)
    assert answered or "--name" in answer.json()["error"]["message"]


@pytest.mark.parametrize("length", ["-1", "1e3", str((1 << 20) + 1)])
def test_bodies_have_a_length_and_a_bound(store: MemoryStore, length: str) -> None:
    """Before anything of them is read."""
    headers = ASKING | {"Content-Length": length}
    assert client_of(store).post("/api/runs", headers=headers, content=b"").status_code == 413


@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/odd", "/assets/none.js", "/api/health"])
def test_every_answer_has_the_headers(store: MemoryStore, path: str) -> None:
    """Also errors, and what is refused."""
    client = client_of(store)
    for host in ("localhost", "evil.example"):
        headers = client.get(path, headers={"Host": host}).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
