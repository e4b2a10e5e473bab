"""`millrace token`: who may use a server on this store."""

from __future__ import annotations

import getpass
import time

import click

from ..errors import UserError
from ..stores.audit import COMMAND_LINE, AuditRow
from ..stores.served import ServedStore
from ..stores.tokens import Role, TokenRow, mint
from ..terminal import words
from .common import json_option, open_served, store_option
from .moments import Span
from .output import print_json, print_table

ROLES = [role.word for role in Role]


@click.group()
def token() -> None:
    """Make and revoke tokens for the server. The servers on the store know them at once."""


@token.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    required=True,
    help="read: look at everything; run: also start, resume, retry and cancel; admin: also set limits.",
)
@click.option("--expires", type=Span(), metavar="TIME", help="It is refused from then on: 90d, 12h.")
@json_option
@store_option
def create(name: str, role: str, expires: float | None, as_json: bool, store: str | None) -> None:
    """Make a token and print it. It cannot be shown again.

    JSON keys: token, id, name, role, created, expires, last_used.
    """
    now = time.time()
    row, text = mint(name, Role[role.upper()], now, None if expires is None else now + expires)
    place = open_served(store, new=True)
    place.add_token(row)
    _note(place, "token.create", row)
    if as_json:
        print_json({"token": text, **_json(row)})
        return
    click.echo(text)
    until = "" if expires is None else f", for {words.duration(expires)}"
    click.echo(f"Keep it now: it is not shown again. {name}: role {role}{until}.", err=True)


@token.command("list")
@json_option
@store_option
def list_tokens(as_json: bool, store: str | None) -> None:
    """List the tokens, without their secrets. JSON: a list with keys id, name, role, created, expires, last_used."""
    rows, now = open_served(store).tokens(), time.time()
    if as_json:
        print_json([_json(row) for row in rows])
        return
    if not rows:
        click.echo("There are no tokens. Make one: millrace token create NAME --role run", err=True)
        return
    told = [
        [row.token_id, row.name, row.role.word, words.ago(row.created, now), _used(row, now), _end(row, now)]
        for row in rows
    ]
    print_table(["ID", "NAME", "ROLE", "CREATED", "LAST USED", "EXPIRES"], told, shrink=(1,))


@token.command()
@click.argument("token", metavar="NAME")
@store_option
def revoke(token: str, store: str | None) -> None:
    """Have a token refused from now on. NAME may also be its id."""
    place = open_served(store)
    rows = place.tokens()
    row = next((one for one in rows if token in (one.name, one.token_id)), None)
    if row is None or not place.remove_token(row.token_id):
        there = f"There are: {', '.join(one.name for one in rows)}." if rows else "There are none."
        raise UserError(f"There is no token {token!r}. {there}")
    _note(place, "token.revoke", row)
    click.echo(f"token {row.name} ({row.token_id}) revoked")


def _note(place: ServedStore, action: str, row: TokenRow) -> None:
    """Have the audit trail say who may have been let in since when."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in containers
        user = ""
    target = f"{row.name} ({row.token_id}, {row.role.word})"
    place.add_audit(AuditRow(time.time(), user, "", COMMAND_LINE, action, target, "done"))


def _used(row: TokenRow, now: float) -> str:
    return "never" if row.last_used is None else words.ago(row.last_used, now)


def _end(row: TokenRow, now: float) -> str:
    if row.expires is None:
        return "never"
    return f"in {words.brief(row.expires - now)}" if row.is_valid(now) else "expired"


def _json(row: TokenRow) -> dict[str, object]:
    return {
        "id": row.token_id,
        "name": row.name,
        "role": row.role.word,
        "created": row.created,
        "expires": row.expires,
        "last_used": row.last_used,
    }
