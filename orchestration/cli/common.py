"""What several commands share: options, and finding the store and the run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import (
    MillraceError,
    StoreFullError,
    StoreLockedError,
    StoreReadOnlyError,
    StoreRefusedError,
    UserError,
)

if TYPE_CHECKING:
    from ..api.flows import Flow
    from ..stores.base import RunRow, Store
    from ..stores.served import ServedStore

IN_MEMORY = "The store is in memory: other processes' runs are not in it. Set MILLRACE_STORE."

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON with stable keys.")(command)


def store_option(command: F) -> F:
    text = "The store: a path, a URL (sqlite:///PATH, postgresql://USER@HOST/DATABASE), or what MILLRACE_STORE says."
    return click.option("--store", metavar="URL", help=text)(command)


def run_argument(command: F) -> F:
    return click.argument("run", metavar="RUN")(command)


def open_reaped(url: str | None, *, new: bool = False) -> Store:
    """Open the store, with runs of dead processes marked as Crashed; only with `new` make one that is named."""
    from ..stores import open_store

    if not new:
        refuse_missing(url)
    store = open_store(url)
    if store.url == "memory":
        raise UserError(IN_MEMORY)
    # who may only read can still look
    with contextlib.suppress(StoreReadOnlyError, StoreRefusedError, StoreFullError, StoreLockedError):
        store.reap(store.now())
    return store


def open_served(url: str | None, *, new: bool = False) -> ServedStore:
    """Open a store that a server can be put before; only with `new` make one that is named.

    Its runs are not judged: while it had no server, those who write by way of one could not be heard.
    """
    from ..stores import open_store
    from ..stores.served import ServedStore

    if not new:
        refuse_missing(url)
    store = open_store(url)
    if store.url == "memory":
        raise UserError(IN_MEMORY)
    if not isinstance(store, ServedStore):
        raise UserError(
            f"{store.url} is reached by way of a server: tokens are made, and servers started, where its store is. "
            "Give that store with --store."
        )
    return store


def refuse_missing(url: str | None) -> None:
    """Raise UserError for a file that was named and is not there."""
    path = (url or "").removeprefix("sqlite:///")
    if url and "://" not in path and url != "memory" and not os.path.exists(path):
        raise UserError(f"There is no store {path}. Name another one, or leave --store out.")


def find_run(store: Store, run: str) -> RunRow:
    """Return the run with this id, prefix or name; `latest` is the newest that is no subflow."""
    if run != "latest":
        return store.run(run)
    before = None
    while rows := store.runs(limit=50, before=before):
        for row in rows:
            if row.parent_run_id is None:
                return row
        before = rows[-1].created, rows[-1].run_id
    from ..errors import RunNotFoundError

    raise RunNotFoundError(f"{store.url} has no runs yet. Start one: millrace run FILE.py:FLOW")


def load(entrypoint: str) -> Flow[Any, Any]:
    """Return the flow that an entry point names; what its file raises is shown, and is the user's own."""
    from ..api.entrypoints import load_flow
    from .exits import Exit
    from .output import print_traceback

    try:
        return load_flow(entrypoint)
    except MillraceError:
        raise
    except Exception as error:
        print_traceback(error)
        click.echo(f"{entrypoint} cannot be imported: see above.", err=True)
        raise click.exceptions.Exit(Exit.USAGE) from error


def state_title(store: Store, row: RunRow) -> str:
    """Return a run's state for people; a live run that was asked to pause is Paused."""
    from ..core.states import RUN_TERMINAL

    if row.state not in RUN_TERMINAL:
        asked = store.requests(row.run_id, row.epoch)
        if asked.cancel:
            return "Cancelling"
        if asked.pause:
            return "Paused"
    return row.state_name or row.state.title
