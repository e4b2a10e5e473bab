"""`millrace token`: create, list, revoke."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from orchestration.stores import open_store
from orchestration.stores.sqlite import SqliteStore
from orchestration.stores.tokens import Role, split

Call = Callable[..., tuple[int, str, str]]


def store_of_settings() -> SqliteStore:
    store = open_store()
    assert isinstance(store, SqliteStore)
    return store


def test_a_token_is_printed_once(call: Call) -> None:
    """The store knows it by a digest; no list shows it again."""
    code, out, err = call("token", "create", "ci", "--role", "run", "--expires", "90d")
    assert code == 0
    assert "not shown again" in err
    assert "ci: role run, for 90 d" in err
    parts = split(out.strip())
    assert parts is not None
    (row,) = store_of_settings().tokens()
    assert (row.token_id, row.name, row.role) == (parts[0], "ci", Role.RUN)
    assert row.fits(parts[1])
    assert row.expires == pytest.approx(time.time() + 90 * 86400, abs=60)
    for command in (["token", "list"], ["token", "list", "--json"]):
        code, out, _ = call(*command)
        assert code == 0
        assert row.token_id in out
        assert parts[1] not in out
        assert row.digest not in out


def test_list_and_revoke(call: Call) -> None:
    """By name or id; what is not there is said with what is."""
    assert "token create" in call("token", "list")[2]
    for name in ("one", "two"):
        assert call("token", "create", name, "--role", "read")[0] == 0
    two = json.loads(call("token", "list", "--json")[1])[1]
    assert (two["name"], two["role"], two["expires"], two["last_used"]) == ("two", "read", None, None)
    assert call("token", "revoke", "one")[0] == 0
    assert call("token", "revoke", two["id"])[0] == 0
    assert json.loads(call("token", "list", "--json")[1]) == []
    call("token", "create", "three", "--role", "admin")
    code, _, err = call("token", "revoke", "one")
    assert (code, "There are: three." in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ci"], "--role"),
        (["ci", "--role", "root"], "'read', 'run', 'admin'"),
        (["ci", "--role", "run", "--expires", "soon"], "no length of time"),
        (["ci", "--role", "run", "--expires", "0d"], "no length of time"),
        ([" ", "--role", "run"], "printable characters"),
        (["a\nb", "--role", "run"], "printable characters"),
        (["taken", "--role", "run"], "There already is a token 'taken'"),
    ],
)
def test_what_makes_no_token(call: Call, arguments: list[str], words: str) -> None:
    """It is said why, and the store has no other token than before."""
    call("token", "create", "taken", "--role", "run")
    code, out, err = call("token", "create", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert [row.name for row in store_of_settings().tokens()] == ["taken"]
