"""Times as people give them on the command line: an age or a length such as `30d`, or a date."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _seconds(value: Any) -> float | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", str(value).strip())
    return None if found is None else float(found[1]) * _UNITS[found[2]]


class Moment(click.ParamType[float]):
    """Seconds since the epoch."""

    name = "age or date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        age = _seconds(value)
        if age is not None:
            return time.time() - age
        try:
            return datetime.fromisoformat(value).astimezone().timestamp()
        except ValueError:
            self.fail(f"{value!r} is neither an age (30d, 12h, 90m, 2w) nor a date (2026-01-31)", param, ctx)


class Span(click.ParamType[float]):
    """A length of time, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        span = _seconds(value)
        if not span:
            self.fail(f"{value!r} is no length of time (90d, 12h, 2w)", param, ctx)
        return span
