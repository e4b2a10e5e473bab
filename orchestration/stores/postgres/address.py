"""Where a server is: a URL as libpq takes it, what of it may be shown, and what a connection needs beside it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from ...errors import UserError

_SECRET = ("password", "sslpassword")
# A server that has vanished without a word is noticed within half a minute; the URL may say otherwise.
_DEFAULTS: dict[str, Any] = {
    "application_name": "millrace",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


class Address:
    """A server's database.

    Attributes:
        url: as it was given, passwords included.
        shown: the URL without passwords, for people.
        parameters: for `psycopg.connect`.

    Raises:
        UserError: the URL says nothing that can be used; it is not repeated, since it may hold a password.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            named = conninfo_to_dict(url)
            self.shown = _without_secrets(url)
            for port in str(named.get("port") or 0).split(","):
                int(port or 0)
        except (ProgrammingError, ValueError):
            raise UserError(
                "The store's PostgreSQL URL cannot be read. It should be like postgresql://user@host:5432/database; "
                "letters that URLs reserve, such as @ or / in a password, are written as %40 or %2F."
            ) from None
        self.parameters: dict[str, Any] = {**_DEFAULTS, **named, "client_encoding": "UTF8"}


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    query = [(key, value) for key, value in parse_qsl(parts.query) if key not in _SECRET]
    netloc = f"{user.partition(':')[0]}{at}{host}"
    return urlunsplit(("postgresql", netloc, parts.path, urlencode(query, quote_via=quote, safe="/"), ""))
