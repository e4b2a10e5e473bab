"""`millrace server`: the API and the dashboard, and who did what by way of them."""

from __future__ import annotations

import time

import click

from runners.errors import MissingExtraError

from ..stores.as_json import audit_json
from ..terminal import words
from .common import json_option, open_served, store_option
from .output import print_json, print_table

PORT = 4280


@click.group()
def server() -> None:
    """Serve the dashboard and the HTTP API."""


@server.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes a free one."
)
@click.option(
    "--require-token", is_flag=True, help="Want a token also on an address that only this machine reaches."
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST",
    help="A host name it is asked for by; may be given again.",
)
@click.option(
    "--trust-proxy",
    "proxies",
    multiple=True,
    metavar="ADDRESS",
    help="Believe this proxy's X-Forwarded-For and X-Forwarded-Proto; may be given again.",
)
@click.option("--tls-cert", metavar="FILE", help="A certificate with its chain, PEM: serve https.")
@click.option("--tls-key", metavar="FILE", help="The key of the certificate, PEM, not encrypted.")
@store_option
def start(
    host: str,
    port: int,
    require_token: bool,
    names: tuple[str, ...],
    proxies: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    store: str | None,
) -> None:
    """Serve the dashboard and the HTTP API until Ctrl-C.

    Runs do not need it: it reads the store that they write. Stopping it harms none. On an address that others can
    reach, or with tokens in the store, each request needs one: `millrace token create`.
    """
    place = open_served(store, new=True)
    try:
        from ..web.options import Options
        from ..web.pages import are_built
        from ..web.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette"):
            raise
        raise MissingExtraError(error.name, "server") from error

    options = Options(host, port, require_token, names, proxies, tls_cert, tls_key)

    def ready(url: str) -> None:
        click.echo(f"dashboard  {url}")
        click.echo(f"API        {url}/api/openapi.json")
        click.echo(f"store      {place.url}")
        if not options.is_local and not tls_cert and not proxies:
            click.echo(
                "Without TLS tokens can be read on their way here: give --tls-cert and --tls-key.", err=True
            )
        if not are_built():
            click.echo("The pages are not built; the API works. In a checkout of Millrace: make ui", err=True)
        click.echo("Ctrl-C stops it; runs go on.")

    serve(place, options, ready=ready)


@server.command()
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many, newest first."
)
@json_option
@store_option
def audit(limit: int, as_json: bool, store: str | None) -> None:
    """List what was done by way of the servers on this store, and what was refused, newest first.

    JSON: a list with keys seq, at, who, token, client, action, target, outcome.
    """
    rows, now = open_served(store).audit(limit=limit), time.time()
    if as_json:
        print_json([audit_json(row) for row in rows])
        return
    if not rows:
        click.echo("Nothing was done by way of a server yet.", err=True)
        return
    told = [
        [words.ago(row.at, now), row.who or "-", row.client, row.action, row.target or "-", row.outcome]
        for row in rows
    ]
    print_table(["WHEN", "WHO", "FROM", "ACTION", "ON", "OUTCOME"], told, shrink=(4, 1))
