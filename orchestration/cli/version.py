"""`millrace version`."""

from __future__ import annotations

import platform

import click

from .. import __version__
from .common import json_option
from .output import print_json


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Show the version. JSON keys: millrace, python."""
    if as_json:
        print_json({"millrace": __version__, "python": platform.python_version()})
    else:
        click.echo(f"millrace {__version__} on Python {platform.python_version()}")
