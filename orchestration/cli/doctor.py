"""`millrace doctor`: is everything there, and is it ours?"""

from __future__ import annotations

import sys

import click

from ..terminal.styled import Line
from .common import json_option, store_option
from .exits import Exit
from .output import print_json, print_lines

_STYLE = {"ok": "green", "note": "yellow", "wrong": "red"}


@click.command()
@json_option
@store_option
def doctor(as_json: bool, store: str | None) -> int:
    """Check the installation, the store and the runners.

    JSON: a list with keys check, status (ok, note, wrong), text. The exit code is 3 if anything is wrong.
    """
    from .checks import all_checks

    found = all_checks(store)
    if as_json:
        print_json([{"check": f.check, "status": f.status, "text": f.text} for f in found])
    else:
        lines: list[Line] = []
        for finding in found:
            first, *more = finding.text.splitlines()
            lines.append(
                [
                    (f"{finding.status:<6}", _STYLE[finding.status]),
                    (f"{finding.check:<14}", "bold"),
                    (first, ""),
                ]
            )
            lines += [[(" " * 20 + line, "")] for line in more]
        print_lines(lines)
    sys.stdout.flush()
    return Exit.BACKEND if any(f.status == "wrong" for f in found) else Exit.OK
