"""`millrace store export`: runs as JSON lines, for other programs and for keeping."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import IO, Any

import click

from ..stores.as_json import log_json, node_json, run_json, task_run_json
from ..stores.base import RunRow, Store
from .common import find_run, store_option
from .moments import Moment
from .store_upkeep import open_kept

_PAGE = 5000


@click.command()
@click.option(
    "--run", "names", multiple=True, metavar="RUN", help="Only this run (name, id, or `latest`); repeatable."
)
@click.option("--since", type=Moment(), metavar="AGE", help="Only runs created since: 7d, 12h, 2026-01-31.")
@click.option("--flow", "flow_name", metavar="NAME", help="Only runs of this flow.")
@click.option("--only-runs", is_flag=True, help="No nodes, task runs and log lines.")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False), metavar="FILE", help="A file instead of stdout."
)
@store_option
def export(
    names: tuple[str, ...],
    since: float | None,
    flow_name: str | None,
    only_runs: bool,
    output: str | None,
    store: str | None,
) -> None:
    """Write runs as JSON lines, oldest first.

    Each line has a key `type`: `run`, followed by its `node`, `task_run` and `log` lines, whose key `run` is its
    id. The other keys are those of `runs ls --json`, `runs show --json` and `runs logs --json`.
    """
    place = open_kept(store)
    runs = [find_run(place, name) for name in names] if names else list(_all(place))
    chosen = [
        run
        for run in sorted(runs, key=lambda run: run.created)
        if (since is None or run.created >= since) and flow_name in (None, run.flow_name)
    ]
    if output is None:
        with click.open_file("-", "w", encoding="utf-8") as stream:
            _write(place, chosen, stream, only_runs)
        return
    whole = f"{output}.part"  # a break leaves no file that looks complete
    with open(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        _write(place, chosen, file, only_runs)
    os.replace(whole, output)
    click.echo(f"{len(chosen)} runs written to {output}", err=True)


def _all(place: Store) -> Iterator[RunRow]:
    """Yield runs, newest first."""
    before = None
    while rows := place.runs(limit=_PAGE, before=before):
        yield from rows
        before = rows[-1].created, rows[-1].run_id


def _write(place: Store, runs: list[RunRow], stream: IO[str], only_runs: bool) -> None:
    for run in runs:
        _line(stream, {"type": "run", **run_json(run)})
        if only_runs:
            continue
        for node in place.nodes(run.run_id):
            _line(stream, {"type": "node", "run": run.run_id, **node_json(node)})
        last = None
        while rows := place.task_runs(run.run_id, after=last, limit=_PAGE):
            for row in rows:
                _line(stream, {"type": "task_run", "run": run.run_id, **task_run_json(row)})
            last = rows[-1].node_id, rows[-1].index
        after = 0
        while lines := place.logs(run.run_id, after=after, limit=_PAGE):
            for line in lines:
                _line(stream, {"type": "log", "run": run.run_id, **log_json(line)})
            after = lines[-1].seq


def _line(stream: IO[str], value: dict[str, Any]) -> None:
    stream.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
