"""`python -m examples.census`: the census on all runners, compared, with a report as HTML and JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .compare import RunRecord, disagreements, run_on
from .discover import SourceFile, default_roots, find_files
from .flow import MAX_BYTES, census
from .page import page_of
from .specimens import specimens
from .table import footnotes, runner_table, state_table, wrapped

RUNNERS = ("sequential", "threads", "dask", "ray")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo. Returns the exit code: 0, 1 if the runners disagree, 130 after Ctrl-C."""
    options = _options(arguments)
    records: list[RunRecord] = []
    load = os.getloadavg()[0]
    try:
        with specimens(options.max_bytes) as folder:
            roots = [*(options.roots or default_roots()), folder]
            _warm(find_files(roots, options.limit_files))
            for name in options.runners:
                print(f"\nCensus on {name} ({len(records) + 1} of {len(options.runners)})", flush=True)
                record = run_on(census, name, name, (roots, options.limit_files, options.max_bytes))
                records.append(record)
                print(f"  {record.run_name}: {record.state}, {record.work_seconds:.1f} s of work", flush=True)
    except KeyboardInterrupt:
        print(
            "\nInterrupted. `millrace runs ls` shows the runs so far; no report was written.", file=sys.stderr
        )
        return 130
    problems = disagreements(records)
    files = write(options.out, records, problems, load)
    _tell(records, problems, files, load)
    return 1 if problems else 0


def write(out: Path, records: Sequence[RunRecord], problems: Sequence[str], load: float) -> list[Path]:
    """Write the report of the first run and the comparison of all as HTML and JSON; return the files."""
    report = records[0].report
    if report is None:
        return []
    out.mkdir(parents=True, exist_ok=True)
    data = {
        "agree": not problems,
        "disagreements": list(problems),
        "load_before": round(load, 2),
        "runs": [record.described() for record in records],
        "report": report,
    }
    page, raw = out / "index.html", out / "census.json"
    page.write_text(page_of(report, records, problems, load), encoding="utf-8")
    raw.write_text(json.dumps(data, indent=1), encoding="utf-8")
    return [page, raw]


def _warm(files: Sequence[SourceFile]) -> None:
    """Read all files once, so that the first runner does not wait for the disk on behalf of the others."""
    print(
        f"{len(files):,} files. Reading them once, so that the disk is equally warm for every runner",
        flush=True,
    )
    for file in files:
        with suppress(OSError):
            Path(file.path).read_bytes()


def _tell(records: Sequence[RunRecord], problems: Sequence[str], files: Sequence[Path], load: float) -> None:
    print(f"\n{runner_table(records)}\n\n{wrapped(footnotes(records, load))}\n")
    if problems:
        print("THE RUNNERS DISAGREE:")
        print("\n".join(f"  {problem}" for problem in problems))
    else:
        print(f"The report is the same on {_all(records)}: {records[0].digest[:16]}")
        print(f"So are the states of all task runs:\n{state_table(records[0])}")
    if files:
        print("\nThe report:")
        print("\n".join(f"  {file.resolve()}" for file in files))
    print("\nEvery task run is on record. Look at the runs with")
    print("  millrace runs ls")
    for record in records:
        print(f"  millrace runs show {record.run_name:<28} # {record.runner}")
    print("or in a browser: start the dashboard with")
    print("  millrace server start")


def _all(records: Sequence[RunRecord]) -> str:
    return records[0].runner if len(records) == 1 else f"all {len(records)} runners"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.census", description=__doc__)
    parser.add_argument(
        "roots",
        nargs="*",
        metavar="FOLDER",
        help="folders to count; default: standard library and installed packages",
    )
    parser.add_argument(
        "--runners", type=_runners, default=list(RUNNERS), metavar="A,B", help=f"default: {','.join(RUNNERS)}"
    )
    parser.add_argument(
        "--limit-files", type=int, default=0, metavar="N", help="at most N files of each folder"
    )
    parser.add_argument(
        "--max-bytes",
        type=int,
        default=MAX_BYTES,
        metavar="N",
        help="skip larger files (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("census-report"), metavar="FOLDER", help="default: %(default)s"
    )
    return parser.parse_args(arguments)


def _runners(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in RUNNERS]
    if wrong or not names:
        raise argparse.ArgumentTypeError(
            f"choose from {', '.join(RUNNERS)}, not {', '.join(wrong) or 'nothing'}"
        )
    return names


if __name__ == "__main__":
    sys.exit(main())
