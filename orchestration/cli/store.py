"""`millrace store`: the group, and where its commands are."""

from __future__ import annotations

import click

from .lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    package=__package__,
    commands={
        "migrate": ("store_upkeep:migrate", "Bring the store to this version's schema."),
        "check": ("store_upkeep:check", "Look for what does not agree in the record."),
        "export": ("store_export:export", "Write runs as JSON lines."),
        "flush": ("store_flush:flush", "Send what was buffered while the server was away."),
        "prune": ("store_upkeep:prune", "Delete runs that ended long ago, with their results."),
    },
)
def store() -> None:
    """Look after the store: a SQLite file, a PostgreSQL database, or a server that keeps one."""
