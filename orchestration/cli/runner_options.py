"""`--runner`, `--address` and `--workers`, as a runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import UserError

if TYPE_CHECKING:
    from runners.base import TaskRunner

F = TypeVar("F", bound=Callable[..., Any])


def runner_options(command: F) -> F:
    """Add the three options to a command."""
    for decorator in (
        click.option("--workers", type=click.IntRange(min=1), help="Threads, Dask workers, or CPUs of Ray."),
        click.option("--address", metavar="ADDRESS", help="Of a running Dask scheduler or Ray cluster."),
        click.option(
            "--runner", metavar="RUNNER", help="sequential, threads, dask, ray, or MODULE:CLASS for your own."
        ),
    ):
        command = decorator(command)
    return command


def make_runner(name: str | None, address: str | None, workers: int | None) -> TaskRunner | None:
    """Return the runner that the options describe; None if they say nothing."""
    from ..api.running import runner_by_name

    if name is None:
        if address is None and workers is None:
            return None
        option = "--address" if address is not None else "--workers"
        raise UserError(f"{option} needs --runner as well: --runner dask, for instance.")
    return _build(runner_by_name(name), name, _settings(name, address, workers))


def _settings(name: str, address: str | None, workers: int | None) -> dict[str, Any]:
    if name in ("sequential", "threads") and address is not None:
        raise UserError(f"--address means nothing to --runner {name}, which runs in this process.")
    if name == "sequential" and workers is not None:
        raise UserError("--workers means nothing to --runner sequential, which runs one task at a time.")
    if name in ("dask", "ray") and address is not None and workers is not None:
        raise UserError("--address names a cluster that has its workers already: leave --workers out.")
    settings: dict[str, Any] = {} if address is None else {"address": address}
    if workers is not None:
        options: dict[str, dict[str, Any]] = {
            "threads": {"max_workers": workers},
            "dask": {"cluster_kwargs": {"n_workers": workers}},
            "ray": {"init_kwargs": {"num_cpus": workers}},
        }
        settings |= options.get(name, {"workers": workers})
    return settings


def _build(made: type[TaskRunner], name: str, settings: dict[str, Any]) -> TaskRunner:
    try:
        return made(**settings)
    except TypeError as error:
        raise UserError(f"--runner {name} cannot be made with {settings}: {error}") from error
