"""The table of faults: in the terminal, and as a page of the documentation."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from faultkit.bench import Row

HEAD = (
    "fault",
    "injected",
    "runs",
    "task runs",
    "lost",
    "executions beyond the first",
    "of them not recorded or not allowed",
    "wrong states",
    "over the limit",
    "left behind",
    "recovery p50",
    "p99",
    "work redone",
)


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's cells as text."""
    counts = (
        row.injected, row.runs, row.task_runs, row.lost, row.again, row.bad, row.wrong, row.over_limit, row.left,
    )  # fmt: skip
    return (
        row.fault,
        *(f"{count:,}" for count in counts),
        _seconds(row.recoveries, 0.5),
        _seconds(row.recoveries, 0.99),
        f"{row.redone / row.spent:.1%}" if row.spent else "-",
    )


def _seconds(values: Sequence[float], quantile: float) -> str:
    if not values:
        return "-"
    value = sorted(values)[min(len(values) - 1, int(len(values) * quantile))]
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


NOT_SUMMED = ("fault", "how", "defect", "place", "made", "seed")
SHORT_HEAD = (
    "fault", "inj", "runs", "items", "lost", "again", "bad", "wrong", "limit", "left", "p50", "p99", "redone",
)  # fmt: skip


RUNNING_WIDTHS = (58, 5, 5, 7, 5, 7, 4, 6, 6, 5, 8, 8, 7)


def running(row: Row | None) -> str:
    """Return a line of a table whose other rows are not known yet; without a row its head."""
    line = SHORT_HEAD if row is None else cells(row)
    return " ".join(
        cell.rjust(w) if k else cell.ljust(w)
        for k, (cell, w) in enumerate(zip(line, RUNNING_WIDTHS, strict=True))
    )


def total(rows: Sequence[Row]) -> Row:
    """Return all rows as one."""
    whole = Row("all")
    for one in rows:
        for part in fields(Row):
            if part.name not in NOT_SUMMED:
                setattr(whole, part.name, getattr(whole, part.name) + getattr(one, part.name))
    return whole


@dataclass(frozen=True)
class Kept:
    """What the page is made from: its rows, and how many seeds of simulated flows were played, and when."""

    rows: list[Row]
    seeds: int = 0
    played: str = ""


def kept(path: Path, rows: Sequence[Row] = (), seeds: int = 0) -> Kept:
    """Keep rows, and a number of seeds, in a file, in place of those of the same faults; return all that is there."""
    told = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    found = {row.fault: row for row in (_read(one) for one in told if "fault" in one)}
    found.update((row.fault, row) for row in rows if row.runs)
    every = sorted(found.values(), key=lambda row: row.place)
    before = next((one for one in told if "seeds" in one), {"seeds": 0, "played": ""})
    played = {"seeds": seeds, "played": date.today().isoformat()} if seeds else before
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (played, *map(_rounded, every))))
    return Kept(every, **played)


def _read(told: dict[str, Any]) -> Row:
    return Row(**{**told, "place": tuple(told["place"])})


def _rounded(row: Row) -> dict[str, Any]:
    plain = asdict(row)
    plain["recoveries"] = [round(seconds, 3) for seconds in row.recoveries]
    return plain | {key: round(plain[key], 3) for key in ("took", "spent", "redone")}


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table as lines of text, columns aligned."""
    table = [SHORT_HEAD, *map(cells, rows), cells(total(rows))]
    widths = [max(len(line[k]) for line in table) for k in range(len(HEAD))]
    return [
        "  ".join(
            cell.rjust(w) if k else cell.ljust(w)
            for k, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]


INTRODUCTION = """\
# Faults

`make faults` injects faults into real runs of random small flows: processes are killed, stopped and poisoned,
connections cut, files torn. Each execution of user code appends a line to a file that Millrace knows nothing of.
Afterwards that history is compared with the record, and both with what should have happened. A short version is part
of `make test`. The suite writes this page, from the rows that it keeps in [faults.json](faults.json);
`make faults ARGS="-k ray"` makes some of them anew. All of it takes 40 minutes; with `MILLRACE_FAULTS_MINUTES=20` each
row gets half as long.

- **lost**: task runs that are not in the record, or Completed without an execution that made their value, or whose
  value the flow did not get.
- **executions beyond the first**: starts of code that had been started before. Each has to be in the record, by its
  attempt, as a second start, or as begun by a process that died; and it has to be allowed, by the policy's retries or
  by a loss. With `rerun_on_loss=False` none is.
- **wrong states**: task runs or runs whose state is not what the flow's plan and what was done to it imply, or that
  `millrace runs show` tells wrongly; processes that hang, errors that do not say what is the matter.
- **left behind**: processes that still run, leases that are still held, states that are not final after the end.
- **recovery**: from the fault to the next task run that completes, with the start of a new flow process where one was
  killed.
- **work redone**: the share of all execution time that went into executions whose result was lost.
"""

SIMULATED = """
Beside these, `make faults` played {seeds:,} seeds of simulated flows on {played}, with lost workers and results, lying
networks, wrong clocks and crashes, against a naive interpreter (`tests/simulation`).
"""


def page(told: Kept) -> str:
    """Return the page of the documentation."""
    rows = told.rows
    rule = ["---", *["--:"] * (len(HEAD) - 1)]
    table = [HEAD, rule, *map(cells, rows), cells(total(rows))]
    done = [f"- **{row.fault}**: {row.how}" for row in rows if row.how]
    defects = [f"- **{row.fault}**: {row.defect}." for row in rows if row.defect]
    defects += [
        f"- **{row.fault}**: see the counts; not explained yet."
        for row in rows
        if not row.defect and (row.lost or row.bad or row.wrong or row.over_limit or row.left)
    ]
    known = ["", "## Known not to hold yet", "", *defects] if defects else []
    return "\n".join(
        [
            INTRODUCTION,
            _made(rows),
            "",
            *("| " + " | ".join(line) + " |" for line in table),
            SIMULATED.format(seeds=told.seeds, played=told.played) if told.seeds else "",
            "## What is done",
            "",
            *done,
            *known,
            "",
        ]
    )


def _made(rows: Sequence[Row]) -> str:
    """Say when and with which seed the rows were made; which those are that were made at another time."""
    if not rows:
        return "Made of no faults yet."
    runs = Counter((row.made, row.seed) for row in rows)
    (day, seed), _ = runs.most_common(1)[0]
    told = [
        f"Made on {day} by `make faults` with `MILLRACE_SEED={seed}`, in "
        f"{sum(row.took for row in rows) / 60:.0f} min: {_versions()}."
    ]
    for other, other_seed in sorted(set(runs) - {(day, seed)}):
        names = [row.fault for row in rows if (row.made, row.seed) == (other, other_seed)]
        told.append(f"On {other}, with `MILLRACE_SEED={other_seed}`: {'; '.join(names)}.")
    return "\n".join(told)


def _versions() -> str:
    names = ("millrace", "distributed", "ray", "psycopg")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    return f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {packages}, {os.cpu_count()} cores"
