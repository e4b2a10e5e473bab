"""`millrace store flush`: what was buffered while the server was away."""

from __future__ import annotations

import click

from ..errors import UserError
from ..terminal import words
from .common import json_option, store_option
from .exits import Exit
from .output import print_json


@click.command()
@json_option
@store_option
def flush(as_json: bool, store: str | None) -> int:
    """Send what ended processes could not send to the server while it was away.

    Any command that uses the server does the same; this says what it has done. JSON keys: store, sent, refused.
    The exit code is 3 if the server has refused something.
    """
    from ..stores import open_store

    place = open_store(store)
    if not place.url.startswith(("http://", "https://")):
        raise UserError(
            f"{place.url} is no server: only what goes by way of one is buffered. Name it with --store or "
            "MILLRACE_API_URL."
        )
    from ..stores.remote import RemoteStore

    assert isinstance(place, RemoteStore)
    place.flush()
    sent, refused = place.left_sent, place.left_refused
    if as_json:
        print_json({"store": place.url, "sent": sent, "refused": refused})
    else:
        told = f", {refused} refused" if refused else ""
        click.echo(f"{place.url}: {words.plural(sent, 'transaction')} sent{told}")
    return Exit.BACKEND if refused else Exit.OK
