"""How a server is reached, and by whom."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass

from ..errors import UserError
from ..stores.served import ServedStore

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Options:
    """What `millrace server start` was told.

    Attributes:
        port: 0 takes a free one.
        require_token: also on an address that only this machine reaches.
        names: host names by which it may be asked for, besides its addresses.
    """

    host: str = "127.0.0.1"
    port: int = 0
    require_token: bool = False
    names: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Only this machine reaches it, as far as it was told."""
        return self.host in LOOPBACK and not self.names

    @property
    def needs_token(self) -> bool:
        return self.require_token or not self.is_local

    def answers_to(self, host: str) -> bool:
        """Tell whether a request for this host, without its port, is meant for this server.

        A name of another site that points here (DNS rebinding) would make its pages ours. Addresses are nobody's name.
        """
        host = host.removeprefix("[").removesuffix("]").lower()
        if host in LOOPBACK or host in map(str.lower, self.names):
            return True
        return self.host not in LOOPBACK and _is_address(host)


def check_tokens(options: Options, store: ServedStore) -> None:
    """Refuse to serve others while nobody could be told apart.

    Raises:
        UserError: says how to make a token.
    """
    if options.needs_token and not any(token.is_valid(time.time()) for token in store.tokens()):
        why = (
            f"--host {options.host}: others can reach"
            if not options.is_local
            else "--require-token: tokens guard"
        )
        raise UserError(
            f"{why} this server, and {store.url} has no valid token to tell them apart. Make one, and start again: "
            "millrace token create NAME --role admin"
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
