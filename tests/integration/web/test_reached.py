"""Servers that others reach: by https, by way of a proxy, on another address; and what is said before they start."""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestration.errors import StoreUnreachableError, UserError
from orchestration.stores.remote import RemoteStore
from orchestration.stores.sqlite import SqliteStore
from orchestration.stores.tokens import Role, mint
from orchestration.testing.store_entries import new_run
from orchestration.web.options import Options, check_proxies
from orchestration.web.tls import check_tls

from .conftest import start_server

ASKING = {"Millrace-Request": "1"}


@dataclass
class Pair:
    cert: str
    key: str


def write_pair(folder: Path, name: str = "server", password: bytes | None = None) -> Pair:
    """Write a certificate for localhost that has signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pair = Pair(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    Path(pair.cert).write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    Path(pair.key).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)
    )
    return pair


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return write_pair(tmp_path)


def test_a_certificate_and_its_key(pair: Pair) -> None:
    """Nothing is wrong with them, nor with none."""
    check_tls(pair.cert, pair.key)
    check_tls(None, None)


def test_what_is_wrong_is_said(pair: Pair, tmp_path: Path) -> None:
    """Which file, why, and what to give instead."""
    other = write_pair(tmp_path, "other")
    locked = write_pair(tmp_path, "locked", b"secret")
    torn = tmp_path / "torn.pem"
    torn.write_text(Path(pair.cert).read_text()[:200] + "\n-----END CERTIFICATE-----\n")
    for cert, key, words in (
        (pair.cert, None, "--tls-cert needs --tls-key"),
        (None, pair.key, "--tls-key needs --tls-cert"),
        (str(tmp_path / "no.pem"), pair.key, r"--tls-cert .*no\.pem cannot be read \(No such file"),
        (pair.cert, str(tmp_path), r"--tls-key .* cannot be read \(Is a directory"),
        (pair.key, pair.key, "holds no CERTIFICATE"),
        (pair.cert, pair.cert, "holds no PRIVATE KEY"),
        (pair.cert, other.key, "is not the key of the certificate"),
        (locked.cert, locked.key, "is encrypted.*openssl pkey"),
        (str(torn), pair.key, "cannot be used"),
    ):
        with pytest.raises(UserError, match=words):
            check_tls(cert, key)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_that_others_own(pair: Pair) -> None:
    """The server's user may not read it."""
    os.chmod(pair.key, 0)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied"):
        check_tls(pair.cert, pair.key)


@pytest.mark.parametrize("proxy", ["nginx", "10.0.0.1/8", ""])
def test_proxies_are_addresses(proxy: str) -> None:
    """A name would have to be looked up for each request."""
    with pytest.raises(UserError, match=r"--trust-proxy .*10\.0\.0\.0/8"):
        check_proxies(Options(proxies=(proxy,)))
    check_proxies(Options(proxies=("10.0.0.0/8", "::1")))


# --- over the network ----------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """The store of the servers that `served` starts."""
    found = SqliteStore(tmp_path / "millrace.db")
    yield found
    found.close()


@pytest.fixture
def token(store: SqliteStore) -> str:
    row, text = mint("me", Role.RUN, 0.0)
    store.add_token(row)
    return text


@contextmanager
def served(store: SqliteStore, *arguments: str) -> Iterator[str]:
    """Serve a store inside the block; gives the server's port."""
    process = start_server(Path(store.path).parent, "--store", store.path, *arguments)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("dashboard"), line + process.stdout.read()
    try:
        yield line.rpartition(":")[2].strip()
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_https(store: SqliteStore, token: str, pair: Pair) -> None:
    """The session's cookie is for https only; who speaks http gets no answer."""
    arguments = ("--tls-cert", pair.cert, "--tls-key", pair.key)
    with served(store, *arguments) as port:
        trust = ssl.create_default_context(cafile=pair.cert)
        with httpx.Client(verify=trust, base_url=f"https://localhost:{port}", headers=ASKING) as client:
            assert client.get("/api/me").status_code == 401
            cookie = client.post("/api/login", json={"token": token}).headers["set-cookie"]
            assert "Secure" in cookie
            assert client.get("/api/me").json() == {"role": "run", "user": "me"}
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{port}/api/health")


def test_a_store_over_https(
    store: SqliteStore, token: str, pair: Pair, millrace_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its certificate is believed from the named authority, else refused with the cure, before the token is sent."""
    monkeypatch.setenv("MILLRACE_API_TOKEN", token)
    with served(store, "--tls-cert", pair.cert, "--tls-key", pair.key) as port:
        with pytest.raises(StoreUnreachableError, match="MILLRACE_API_CA"):
            RemoteStore(f"https://localhost:{port}")
        assert [row.last_used for row in store.tokens()] == [None]
        monkeypatch.setenv("MILLRACE_API_CA", pair.cert)
        remote = RemoteStore(f"https://localhost:{port}")
        run_id = new_run(remote)
        assert store.run(run_id) == remote.run(run_id)
        remote.close()


@pytest.mark.parametrize("believed", [True, False])
def test_a_proxy_is_believed_only_where_it_is_named(store: SqliteStore, token: str, believed: bool) -> None:
    """About who asks, which the audit trail tells, and about https, which makes the cookie."""
    arguments = ["--name", "flows.example", *(["--trust-proxy", "127.0.0.1"] if believed else [])]
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Host": "flows.example"}
    origin = {"Origin": "https://flows.example", "Sec-Fetch-Site": "same-origin"}
    with served(store, *arguments) as port:
        answer = httpx.post(
            f"http://127.0.0.1:{port}/api/login",
            json={"token": token},
            headers=ASKING | forwarded | origin,
        )
    assert answer.status_code == 200, answer.text
    assert ("Secure" in answer.headers["set-cookie"]) is believed
    assert ("strict-transport-security" in answer.headers) is believed
    assert [row.client for row in store.audit()] == ["203.0.113.9" if believed else "127.0.0.1"]


def test_on_all_addresses(store: SqliteStore, token: str) -> None:
    """With a token in the store, and only with it."""
    with served(store, "--host", "0.0.0.0") as port:
        url = f"http://127.0.0.1:{port}/api/me"
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, headers={"Authorization": f"Bearer {token}"}).json()["user"] == "me"
        assert httpx.get(url, headers={"Host": "evil.example"}).status_code == 403


def test_the_command_says_what_is_wrong_before_it_starts(store: SqliteStore, tmp_path: Path) -> None:
    """With exit code 2 and the cure."""
    pair, other = write_pair(tmp_path, "a"), write_pair(tmp_path, "b")
    for arguments, words in (
        (["--tls-cert", pair.cert, "--tls-key", other.key], "is not the key of the certificate"),
        (["--trust-proxy", "nginx"], "--trust-proxy nginx"),
    ):
        process = start_server(tmp_path, "--store", store.path, *arguments)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 2, out
        assert words in out
