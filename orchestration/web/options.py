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
        proxies: addresses of proxies that are believed about their clients' addresses, and whether these use https.
        tls_cert, tls_key: files of a certificate with its chain, and of its key, for https.
    """

    host: str = "127.0.0.1"
    port: int = 0
    require_token: bool = False
    names: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None

    @property
    def is_local(self) -> bool:
        """Only this machine reaches it, as far as it was told."""
        return self.host in LOOPBACK and not self.names and not self.proxies

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
        raise UserError(
            f"{_why(options)}, and {store.url} has no valid token to tell people apart. Make one, and start again: "
            "millrace token create NAME --role admin"
        )


def check_proxies(options: Options) -> None:
    """Refuse a proxy that is no address.

    Raises:
        UserError
    """
    for proxy in options.proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise UserError(
                f"--trust-proxy {proxy}: {error}. Give the proxy's address, or its network such as 10.0.0.0/8."
            ) from None


def _why(options: Options) -> str:
    if options.host not in LOOPBACK:
        return f"--host {options.host}: others can reach this server"
    if not options.is_local:
        return f"{'--name' if options.names else '--trust-proxy'}: others reach this server through a proxy"
    return "--require-token"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
