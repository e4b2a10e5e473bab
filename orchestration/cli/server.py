"""`millrace server start`: the API and the dashboard."""

from __future__ import annotations

import click

from runners.errors import MissingExtraError

from .common import open_served, store_option

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
@store_option
def start(host: str, port: int, require_token: bool, names: tuple[str, ...], store: str | None) -> None:
    """Serve the dashboard and the HTTP API until Ctrl-C.

    Runs do not need it: it reads the store that they write. Stopping it harms none. On an address that others can
    reach, or with tokens in the store, each request needs one: `millrace token create`.
    """
    place = open_served(store, new=True)
    try:
        from ..web.options import Options
        from ..web.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette"):
            raise
        raise MissingExtraError(error.name, "server") from error

    def ready(url: str) -> None:
        click.echo(f"dashboard  {url}")
        click.echo(f"API        {url}/api/openapi.json")
        click.echo(f"store      {place.url}")
        click.echo("Ctrl-C stops it; runs go on.")

    serve(place, Options(host, port, require_token, names), ready=ready)
