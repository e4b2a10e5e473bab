"""`python -m benchmarks [NAME ...] [--runner R] [--repeats N] [--json PATH]`: run benchmarks, print their tables.

`python -m benchmarks report DIR` writes the results of a folder into benchmarks/README.md;
`python -m benchmarks plot DIR -o OUT` draws them.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any


def names() -> list[str]:
    """Return the names of all benchmarks: modules that have a `run`. Other modules and packages are tools."""
    folder = Path(__file__).parent
    return sorted(path.stem for path in folder.glob("*.py") if "\ndef run(" in path.read_text())


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    if words and words[0] in ("report", "plot"):
        return _render(words)
    known = names()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(known)}; default all")
    parser.add_argument(
        "--json", type=Path, help="write the results there: a file if it ends in .json, or a folder"
    )
    parser.add_argument("--repeats", type=int, help="how often each case is measured")
    parser.add_argument("--runner", help="measure this runner only, where a benchmark has a choice")
    parser.add_argument("--size", type=int, help="how many items, where a benchmark has a choice")
    args = parser.parse_args(words)
    unknown = set(args.names) - set(known)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    wanted = args.names or known
    to_file = args.json is not None and args.json.suffix == ".json"
    if to_file and len(wanted) > 1:
        parser.error(f"{args.json} is one file, and there are {len(wanted)} benchmarks: name a folder")
    given = {"repeats": args.repeats, "runner": args.runner, "size": args.size}
    failed = {}
    for name in wanted:
        path = None if args.json is None else args.json if to_file else args.json / f"{name}.json"
        try:
            _run(name, {k: v for k, v in given.items() if v is not None}, path)
        except Exception as error:
            traceback.print_exc()
            failed[name] = error
    for name, error in failed.items():
        print(f"benchmark {name} failed: {type(error).__name__}: {error}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, given: dict[str, Any], path: Path | None) -> None:
    began = time.perf_counter()
    module = import_module(f"benchmarks.{name}")
    takes = inspect.signature(module.run).parameters
    report = module.run(**{k: v for k, v in given.items() if k in takes})
    report.wall_seconds = time.perf_counter() - began
    report.print(baseline=getattr(module, "BASELINE", None))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        report.write(path)


def _render(words: Sequence[str]) -> int:
    from . import plots, report

    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("report", help="write the tables into benchmarks/README.md")
    drawing = commands.add_parser("plot", help="draw a picture per benchmark, and one page with all of them")
    for command in (writing, drawing):
        command.add_argument("folder", type=Path, metavar="DIR", help="where --json wrote its files")
    writing.add_argument("-o", "--output", type=Path, default=report.README, help="default: %(default)s")
    drawing.add_argument("-o", "--output", type=Path, required=True, help="the folder for the pictures")
    args = parser.parse_args(words)
    reports = report.read(args.folder)
    if not reports:
        parser.error(
            f"there are no results in {args.folder}; `python -m benchmarks --json {args.folder}` makes some"
        )
    if args.command == "report":
        report.write(reports, args.output)
    else:
        print(plots.draw(reports, args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
