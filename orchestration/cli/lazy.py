"""Command groups that import a command when it is used, so that `--help` stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose commands are named as `module:attribute`, with the line that the group's help shows.

    Args:
        package: where the modules are.
        commands: by name: (module:attribute, short help).
    """

    def __init__(
        self, *args: Any, package: str | None, commands: Mapping[str, tuple[str, str]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._package = package or ""
        self._lazy = commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which people meet them, not of the alphabet."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(f".{module}", self._package), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            import difflib

            near = difflib.get_close_matches(args[0], self._lazy, 1)
            if near:
                ctx.fail(f"There is no command {args[0]!r}. Did you mean {near[0]!r}?")
            ctx.fail(f"There is no command {args[0]!r}. There are: {', '.join(self._lazy)}.")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._lazy.items()])
