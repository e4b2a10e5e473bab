"""Serving: the socket, signals, and an end within two seconds also with pages open."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import uvicorn
from fastapi import FastAPI

from ..errors import UserError
from ..stores.served import ServedStore
from .app import make_app
from .options import Options, check_proxies, check_tokens
from .tls import check_tls

STOP_SECONDS = 1  # for requests in flight


class Server(uvicorn.Server):
    """Tells open streams of the end, or they would keep it waiting."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.watches.stopping.set()
        await super().shutdown(sockets)


def serve(store: ServedStore, options: Options, *, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        ready: called with the URL once connections are taken.

    Raises:
        UserError: the address, a proxy or a certificate cannot be used, or others could reach the server and nobody
            has a token; names the cure.
    """
    check_proxies(options)
    check_tls(options.tls_cert, options.tls_key)
    check_tokens(options, store)
    host = options.host
    listening = _bind(host, options.port)
    taken = listening.getsockname()[1]
    app = make_app(store, replace(options, port=taken))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(options.proxies),
        forwarded_allow_ips=list(options.proxies),
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        timeout_graceful_shutdown=STOP_SECONDS,
        limit_concurrency=1000,
    )
    name = f"[{host}]" if ":" in host else host
    ready(f"{'https' if options.tls_cert else 'http'}://{name}:{taken}")
    Server(config, app).run(sockets=[listening])


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: asyncio turns Nagle's algorithm off only where it is, and else an answer in two parts
    # waits 40 ms for the browser's acknowledgement of the first.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UserError(
            f"port {port} of {host} cannot be used ({error.strerror}). Is a server running there already? Choose "
            "another one: millrace server start --port PORT (0 takes a free one)"
        ) from error
    listening.listen(128)
    return listening
