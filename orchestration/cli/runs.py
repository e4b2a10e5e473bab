"""`millrace runs`: the group, and where its commands are."""

from __future__ import annotations

import click

from .lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    package=__package__,
    commands={
        "ls": ("runs_look:list_runs", "List runs, newest first."),
        "show": ("runs_look:show", "Show a run: its nodes, errors, task runs."),
        "story": ("runs_look:story", "Show what happened to one task run."),
        "logs": ("runs_follow:logs", "Print log lines; -f follows them."),
        "report": ("runs_report:report", "Write a page about a run to mail to somebody."),
        "watch": ("runs_watch:watch", "Watch a run until it ends."),
        "cancel": ("runs_act:cancel", "Cancel a run."),
        "pause": ("runs_act:pause", "Let a run start nothing new."),
        "resume": ("runs_act:resume", "Continue a paused, crashed, failed or cancelled run."),
        "retry": ("runs_act:retry", "Run the same flow and parameters again."),
    },
)
def runs() -> None:
    """Look at runs, and cancel, pause, resume or retry them.

    RUN is a name, an id or the beginning of one (8 characters or more), or `latest`. Runs whose process has
    died are marked as Crashed before they are shown.
    """
