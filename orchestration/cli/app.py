"""The root of the commands, and how each of them ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from .exits import Exit, describe
from .lazy import LazyGroup

COMPLETION = "_MILLRACE_COMPLETE"  # set by the shell, see click's documentation


@click.group(
    cls=LazyGroup,
    package=__package__,
    commands={
        "run": ("run:run", "Run a flow of a Python file or module."),
        "runs": ("runs:runs", "Look at runs, and cancel, pause, resume or retry them."),
        "server": ("server:server", "Serve the dashboard and the HTTP API."),
        "token": ("token:token", "Make and revoke tokens for the server."),
        "limit": ("limit:limit", "Set and look at concurrency and rate limits."),
        "store": ("store:store", "Migrate, check, export and prune the store."),
        "doctor": ("doctor:doctor", "Check the installation, the store and the runners."),
        "version": ("version:version", "Show the version."),
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=describe(),
)
@click.option("--debug", is_flag=True, help="Show tracebacks of errors (also: MILLRACE_DEBUG=1).")
@click.version_option(package_name="millrace", prog_name="millrace", message="%(prog)s %(version)s")
def cli(debug: bool) -> None:
    """Run Python flows on one machine or a cluster, with a durable record of every task run."""
    if debug:
        os.environ["MILLRACE_DEBUG"] = "1"


def run_command(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Errors are told once, on stderr."""
    completing = os.environ.get(COMPLETION)
    if completing:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "millrace", COMPLETION, completing)
    try:
        # not cli.main(): that takes a broken pipe for a failure
        with cli.make_context("millrace", list(sys.argv[1:] if args is None else args)) as context:
            result = cli.invoke(context)
        sys.stdout.flush()
    except BaseException as error:
        return _ended_by(error)
    return int(result) if isinstance(result, int) else Exit.OK


def _ended_by(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):
        _forget_stdout()
        return Exit.OK
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else Exit.FAILED
    if isinstance(error, click.ClickException):
        error.show()
        return Exit.USAGE if isinstance(error, click.UsageError) else error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    return _tell(error)


def _tell(error: BaseException) -> int:
    """Say what went wrong, and whose problem it is."""
    import traceback

    from runners import errors

    from .output import error_text, is_ours

    known = isinstance(error, errors.UserError | errors.BackendError)
    if known and os.environ.get("MILLRACE_DEBUG", "") in ("", "0"):
        click.echo(error_text(error), err=True)
    else:
        traceback.print_exception(error)
    if isinstance(error, errors.UserError):
        return Exit.USAGE
    if isinstance(error, errors.BackendError):
        return Exit.BACKEND
    if not is_ours(error):
        return Exit.FAILED
    click.echo("\nThis is a defect of Millrace. Please report it with the lines above.", err=True)
    return Exit.DEFECT


def _forget_stdout() -> None:
    """The reader has gone: nothing may be written there, not even when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
