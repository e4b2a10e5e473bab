"""Where the server is, what of that may be shown, and by which token it knows who asks."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ... import settings
from ...errors import UserError


class Address:
    """A server's URL, and what belongs to it.

    Attributes:
        shown: the URL without a token, for people.
        token: that the URL has in place of a password, else that of the settings; "" if there is none.
        authority_file: of the certificates to believe in; None: those of the system.

    Raises:
        UserError: the URL says nothing that can be used; it is not repeated, since it may hold a token.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            host, port, path = parts.hostname, parts.port, parts.path.rstrip("/")
        except ValueError:
            host, port, path = None, None, ""
        if not host or parts.query or parts.fragment:
            raise UserError("The server's URL cannot be read. It should be like https://host.example:4280")
        name = f"[{host}]" if ":" in host else host
        self.scheme = parts.scheme
        self._place = f"{name}:{port}" if port else name
        self._path = path
        self.shown = urlunsplit((self.scheme, self._place, path, "", ""))
        self.token = unquote(parts.password or "") or settings.api_token()
        if not self.token.isascii() or not self.token.isprintable():
            raise UserError(
                "The server's token has characters that no token has. Set MILLRACE_API_TOKEN again."
            )
        self.authority_file = settings.api_ca()

    @property
    def url(self) -> str:
        """What leads another process to the same server as the same user."""
        place = f":{quote(self.token, safe='')}@{self._place}" if self.token else self._place
        return urlunsplit((self.scheme, place, self._path, "", ""))
