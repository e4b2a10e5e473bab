"""`millrace runs cancel`, `pause`, `resume` and `retry`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..core.states import RUN_TERMINAL, RunState
from ..errors import RunNotResumableError, UserError
from ..stores.base import RunRow, Store
from .common import find_run, load, open_reaped, run_argument, store_option
from .exits import Exit
from .run import Ran, completed, finish, read_parameters, set_up
from .runner_options import make_runner, runner_options

if TYPE_CHECKING:
    from ..api.flows import Flow


secrets_option = click.option(
    "-p",
    "--param",
    "secrets",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter that is a secret: these are not recorded.",
)


@click.command()
@run_argument
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@store_option
def cancel(run: str, wait: bool, store: str | None) -> int:
    """Cancel a run: what waits is not started, what runs is stopped where that can be done."""
    place, row = _find(run, store)
    if row.state is RunState.CANCELLED:
        click.echo(f"{row.name} was cancelled before")
        return Exit.OK
    _must_live(row, "cancelled")
    place.request(row.run_id, cancel=True)
    if not wait:
        click.echo(f"{row.name} was asked to cancel; `millrace runs watch {row.name}` shows its end")
        return Exit.OK
    from .runs_follow import ended

    row = ended(place, row.run_id)
    click.echo(f"{row.name} has ended: {row.state_name or row.state.title}")
    return Exit.OK if row.state is RunState.CANCELLED else Exit.FAILED


@click.command()
@run_argument
@store_option
def pause(run: str, store: str | None) -> None:
    """Let a run start nothing new; what runs is finished. `runs resume` lets it go on."""
    place, row = _find(run, store)
    _must_live(row, "paused")
    place.request(row.run_id, pause=True)
    click.echo(f"{row.name} is paused; it goes on with: millrace runs resume {row.name}")


@click.command()
@run_argument
@runner_options
@secrets_option
@click.option("--quiet", is_flag=True, help="Show errors only.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the run and its result as JSON when it has ended."
)
@store_option
def resume(
    run: str, secrets: tuple[str, ...], as_json: bool, quiet: bool, store: str | None, **options: Any
) -> int:
    """Continue a run: a paused one in its own process, one that has ended in this process.

    A crashed, failed or cancelled run starts its flow function again; task runs that completed and whose results
    are in storage are not run again. It uses the runner that the run had, unless --runner names another one.
    """
    place, row = _find(run, store)
    if row.state not in RUN_TERMINAL:
        if not place.requests(row.run_id, row.epoch).pause:
            raise RunNotResumableError(f"run {row.name} is {row.state.title}: there is nothing to resume.")
        place.request(row.run_id, pause=False)
        click.echo(f"{row.name} goes on")
        return Exit.OK
    if row.state is RunState.COMPLETED:
        raise RunNotResumableError(f"run {row.name} has completed: there is nothing to resume.")
    set_up(quiet=quiet, store=store)
    ran = Ran(_flow_of(row, store, **options))
    given = read_parameters(ran.flow, secrets, None)
    state = completed(ran.flow.resume(row.run_id, secrets=given, return_state=True))
    return finish(ran, state, as_json=as_json)


@click.command()
@run_argument
@click.option("--failed-only", is_flag=True, help="Reuse the stored results of task runs that completed.")
@runner_options
@secrets_option
@click.option("--quiet", is_flag=True, help="Show errors only.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the run and its result as JSON when it has ended."
)
@store_option
def retry(
    run: str,
    failed_only: bool,
    secrets: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    store: str | None,
    **options: Any,
) -> int:
    """Run the same flow with the same parameters again, as a new run."""
    from ..api.retrying import retry_flow

    _, row = _find(run, store)
    set_up(quiet=quiet, store=store)
    ran = Ran(_flow_of(row, store, **options))
    given = read_parameters(ran.flow, secrets, None)
    state = completed(
        retry_flow(ran.flow, row.run_id, failed_only=failed_only, secrets=given, return_state=True)
    )
    return finish(ran, state, as_json=as_json)


def _find(run: str, store: str | None) -> tuple[Store, RunRow]:
    place = open_reaped(store)
    return place, find_run(place, run)


def _must_live(row: RunRow, what: str) -> None:
    if row.state in RUN_TERMINAL:
        title = row.state_name or row.state.title
        raise UserError(f"run {row.name} cannot be {what}: it has ended ({title}).")


def _flow_of(
    row: RunRow, store: str | None, *, runner: str | None, address: str | None, workers: int | None
) -> Flow[Any, Any]:
    """Return a run's flow, with the runner that the run had."""
    from ..api.running import RUNNERS
    from ..api.running import make_runner as default_runner

    if not row.entrypoint:
        raise RunNotResumableError(
            f"run {row.name} does not say where its flow is: it was defined inside a function or interactively. "
            "Resume it from Python: flow.resume(run_id)."
        )
    flow = load(row.entrypoint)
    changed: dict[str, Any] = {"store": store} if store else {}
    chosen = make_runner(runner, address, workers)
    if chosen is None and row.runner in RUNNERS and default_runner(flow).name != row.runner:
        chosen = make_runner(row.runner, None, None)
    if chosen is not None:
        changed["task_runner"] = chosen
    return flow.with_options(**changed) if changed else flow
