"""The `millrace` command. What a command does is in a file of its own, imported when the command is used."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command of this process and exit with its code."""
    if sys.argv[1:] == ["--version"]:  # quicker than the smallest command line library
        from .. import __version__

        sys.stdout.write(f"millrace {__version__}\n")
        return
    from .app import run_command

    sys.exit(run_command())


__all__ = ["main"]
