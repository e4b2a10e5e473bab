"""`millrace store migrate`, `check` and `prune`."""

from __future__ import annotations

import sys

import click

from ..errors import UserError
from ..stores.sql.pruning import Tree
from ..stores.sql.store import SqlStore
from ..terminal import words
from .common import IN_MEMORY, json_option, refuse_missing, store_option
from .exits import Exit
from .moments import Moment
from .output import print_json


def open_kept(url: str | None) -> SqlStore:
    """Open a store as it is, and make none that is named and not there."""
    from ..stores import open_store

    refuse_missing(url)
    store = open_store(url)
    if isinstance(store, SqlStore):
        return store
    if store.url == "memory":
        raise UserError(IN_MEMORY)
    raise UserError(f"This is done where the database of {store.url} is, not by way of its server.")


@click.command()
@json_option
@store_option
def migrate(as_json: bool, store: str | None) -> None:
    """Bring the store to the schema of this version of Millrace.

    Whatever opens a store does the same; this says what it has done. There is no way back: keep a copy.
    JSON keys: store, from, to.
    """
    from ..stores import schema_versions

    refuse_missing(store)
    found, wanted = schema_versions(store)
    place = open_kept(store)
    if as_json:
        print_json({"store": place.url, "from": found, "to": wanted})
    elif found == wanted:
        click.echo(f"{place.url}: schema {found}, which is this version's")
    elif not found:
        click.echo(f"{place.url}: made, with schema {wanted}")
    else:
        click.echo(f"{place.url}: migrated from schema {found} to {wanted}")


@click.command()
@json_option
@store_option
def check(as_json: bool, store: str | None) -> int:
    """Look for what does not agree in the record. It changes nothing.

    The database's own check, rows without a run, leases whose run is not live, live runs whose process is gone,
    counts that disagree with the journal. JSON: a list with keys kind, run_id, text. The exit code is 3 if
    anything was found.
    """
    place = open_kept(store)
    found = place.problems(place.now())
    if as_json:
        print_json([{"kind": one.kind, "run_id": one.run_id, "text": one.text} for one in found])
    else:
        for one in found:
            click.echo(f"{one.kind:<10} {one.text}")
        if any(one.kind == "stale" for one in found):
            click.echo("Runs of dead processes are marked as Crashed by `millrace runs ls`.", err=True)
        if not found:
            click.echo(f"{place.url}: nothing is wrong")
    return Exit.BACKEND if found else Exit.OK


@click.command()
@click.option(
    "--older-than",
    "ended_before",
    type=Moment(),
    metavar="AGE",
    help="What ended longer ago: 30d, 12h, 2026-01-31.",
)
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="What is not among the newest N runs.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and delete nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@store_option
def prune(
    ended_before: float | None, keep: int | None, dry_run: bool, yes: bool, as_json: bool, store: str | None
) -> None:
    """Delete runs that have ended, with their journal, log lines and stored results.

    With both options a run goes if either says so. Subflow runs stay or go with the run that they are part of,
    and are not counted. A live run stays, and so does one whose results a staying run has taken over.
    What is older than AGE goes from the servers' audit trail, too.
    JSON keys: dry_run, deleted (ids), files, bytes_freed, audit (rows).
    """
    if ended_before is None and keep is None:
        raise click.UsageError("Say what may go: --older-than AGE, --keep N, or both.")
    place = open_kept(store)
    trees = place.prunable(ended_before=ended_before, keep=keep)
    if not dry_run and trees and not yes and sys.stdin.isatty():
        click.confirm(f"Delete {words.plural(len(trees), 'run')} from {place.url}?", abort=True, err=True)
    gone, files = (trees, 0) if dry_run else _delete(place, trees)
    audit = _forget_audit(place, ended_before, dry_run=dry_run)
    freed = place.reclaim() if gone and not dry_run else None
    if as_json:
        ids = [run_id for tree in gone for run_id in tree.run_ids]
        print_json({"dry_run": dry_run, "deleted": ids, "files": files, "bytes_freed": freed, "audit": audit})
        return
    if audit:
        click.echo(
            f"{'would delete' if dry_run else 'deleted'} {words.plural(audit, 'row')} of the audit trail"
        )
    for tree in gone:
        subflows = f" and {words.plural(len(tree.runs) - 1, 'subflow run')}" if len(tree.runs) > 1 else ""
        click.echo(
            f"{'would delete' if dry_run else 'deleted'} {tree.runs[0].name} ({tree.run_ids[0]}){subflows}"
        )
    if not dry_run:
        click.echo(_told(len(gone), files, freed), err=True)


def _delete(place: SqlStore, trees: list[Tree]) -> tuple[list[Tree], int]:
    """Delete runs one after another: results first, so that a break leaves no files that nobody knows of."""
    from runners.storage import open_storage

    gone, files = [], 0
    for tree in trees:
        for url, prefix in place.result_places(tree):
            files += open_storage(url).remove(prefix)
        if place.delete(tree):
            gone.append(tree)
    return gone, files


def _forget_audit(place: SqlStore, before: float | None, *, dry_run: bool) -> int:
    if before is None:
        return 0
    return place.audit_older(before) if dry_run else place.prune_audit(before)


def _told(runs: int, files: int, freed: int | None) -> str:
    text = f"{words.plural(runs, 'run')} and {words.plural(files, 'result file')} deleted"
    if not runs:
        return text
    if freed is None:
        return f"{text}; later runs use their room in the store"
    return f"{text}; the store's file is {freed / 1e6:.1f} MB smaller"
