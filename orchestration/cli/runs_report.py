"""`millrace runs report`: a run as one page to mail to somebody, made from the store alone."""

from __future__ import annotations

import heapq
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UserError
from .common import find_run, open_reaped, run_argument, state_title, store_option
from .runs_look import error_kinds, failures_of

if TYPE_CHECKING:
    from ..report import Report
    from ..stores.base import RunRow, Store

MAX_TASK_RUNS = 200_000
SLOWEST = 20


@click.command()
@run_argument
@click.option(
    "-o",
    "--output",
    default="report.html",
    show_default=True,
    metavar="FILE",
    help="Where the page is written; - is stdout.",
)
@store_option
def report(run: str, output: str, store: str | None) -> None:
    """Write one HTML page about a run: its nodes, timeline, errors, slowest task runs.

    The page needs no server, no network and no other file. It holds the run's parameters, its workers' names and
    tracebacks: look whom you send it to.
    """
    from ..report import page_of

    place = open_reaped(store)
    page = page_of(report_of(place, find_run(place, run))).encode("utf-8", "xmlcharrefreplace")
    if output == "-":
        click.echo(page, nl=False)
        return
    try:
        Path(output).write_bytes(page)
    except OSError as error:
        raise UserError(
            f"The report cannot be written to {output}: {error.strerror}. Name another file with -o."
        ) from error
    click.echo(f"{output}: {len(page) / 1000:,.0f} kB; open it in any browser")


def report_of(store: Store, row: RunRow) -> Report:
    """Read from the store what the page tells."""
    from ..report import Report
    from ..report.lanes import lanes_of

    made = time.time()
    nodes = [node for node in store.nodes(row.run_id) if node.replaced_by is None]
    items = store.task_runs(row.run_id, limit=MAX_TASK_RUNS)
    timed = (item for item in items if item.seconds is not None)
    return Report(
        run=row,
        state=state_title(store, row),
        nodes=nodes,
        failures=error_kinds(failures_of(store, row.run_id)),
        lanes=lanes_of(items, made if row.ended is None else row.ended),
        slowest=heapq.nlargest(SLOWEST, timed, key=lambda item: item.seconds or 0.0),
        left_out=max(0, sum(row.counts) - len(items)),
        made=made,
    )
