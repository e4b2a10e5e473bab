"""Tokens: what they look like, what a store keeps of them, and whether one fits.

`mlr_ID_SECRET`: the id is public and finds the row; the secret is 256 random bits, of which only the SHA-256 is kept. A
slow hash would protect words that people choose, which can be guessed; it would do nothing for these.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from enum import IntEnum

from ..errors import UserError

PREFIX = "mlr_"
USED_EVERY_SECONDS = 60.0  # the time of the last use is written at most so often
MAX_NAME = 100
_TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")


class Role(IntEnum):
    """What a token allows; each allows what those before it do. The values are stored: never renumber."""

    READ = 1  # to look at everything
    RUN = 2  # to start, resume, retry, pause and cancel runs, and so to run code as the server's user
    ADMIN = 3  # to change limits, which all runs share

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as recorded.

    Attributes:
        digest: SHA-256 of its secret, in hexadecimal.
        expires: from then on it is refused; None: never.
        last_used: to the minute.
    """

    token_id: str
    name: str
    role: Role
    digest: str = field(repr=False)
    created: float
    expires: float | None = None
    last_used: float | None = None

    def is_valid(self, now: float) -> bool:
        return self.expires is None or now < self.expires

    def fits(self, secret: str) -> bool:
        """Tell whether a secret is this token's, in a time that says nothing of how near it comes."""
        return hmac.compare_digest(self.digest, _digest(secret))


def mint(name: str, role: Role, now: float, expires: float | None = None) -> tuple[TokenRow, str]:
    """Return a new token's row, and the token itself: nobody can make it again from the row.

    Raises:
        UserError: the name is none.
    """
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise UserError(f"Token {name!r}: a name has 1 to {MAX_NAME} printable characters.")
    secret = secrets.token_urlsafe(32)
    row = TokenRow(secrets.token_hex(6), name, role, _digest(secret), now, expires)
    return row, f"{PREFIX}{row.token_id}_{secret}"


def split(token: str) -> tuple[str, str] | None:
    """Return the id and the secret of what looks like a token."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else (found[1], found[2])


def name_taken(name: str) -> UserError:
    return UserError(
        f"There already is a token {name!r}. Choose another name, or revoke that one: millrace token revoke {name!r}"
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
