"""The table of faults: in the terminal, and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence

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
    verdicts = row.verdicts

    def count(*kinds: str) -> str:
        return f"{sum(len(getattr(verdict, kind)) for verdict in verdicts for kind in kinds):,}"

    seconds, redone = sum(v.seconds for v in verdicts), sum(v.redone_seconds for v in verdicts)
    return (
        row.fault,
        f"{row.injected:,}",
        f"{row.runs:,}",
        f"{sum(v.task_runs for v in verdicts):,}",
        count("lost"),
        f"{sum(v.beyond_first for v in verdicts):,}",
        count("unrecorded", "forbidden"),
        count("wrong", "untrue"),
        count("over_limit"),
        count("left_behind"),
        _seconds(row.recoveries, 0.5),
        _seconds(row.recoveries, 0.99),
        f"{redone / seconds:.1%}" if seconds else "-",
    )


def _seconds(values: Sequence[float], quantile: float) -> str:
    if not values:
        return "-"
    value = sorted(values)[min(len(values) - 1, int(len(values) * quantile))]
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table as lines of text, columns aligned."""
    table = [HEAD, *map(cells, rows)]
    short = [
        (
            "fault",
            "inj",
            "runs",
            "items",
            "lost",
            "again",
            "bad",
            "wrong",
            "limit",
            "left",
            "p50",
            "p99",
            "redone",
        )
    ]
    widths = [max(len(line[k]) for line in short + table[1:]) for k in range(len(HEAD))]
    return [
        "  ".join(
            cell.ljust(w) if not k else cell.rjust(w)
            for k, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in short + table[1:]
    ]
