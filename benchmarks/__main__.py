"""`python -m benchmarks [NAME ...] [--json FILE] [--repeats N]`: run benchmarks and print their tables."""

from __future__ import annotations

import argparse
import inspect
import pkgutil
from importlib import import_module
from pathlib import Path

import benchmarks

TOOLS = {"harness", "__main__"}


def main() -> None:
    names = sorted(
        m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in TOOLS and not m.ispkg
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names)}; default all")
    parser.add_argument("--json", type=Path, help="write the results there; a folder if there are several")
    parser.add_argument("--repeats", type=int, help="how often each case is measured")
    parser.add_argument("--runner", help="measure this runner only, where a benchmark has a choice")
    args = parser.parse_args()
    unknown = set(args.names) - set(names)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    wanted = args.names or names
    for name in wanted:
        module = import_module(f"benchmarks.{name}")
        given = {"repeats": args.repeats, "runner": args.runner}
        takes = inspect.signature(module.run).parameters
        report = module.run(**{k: v for k, v in given.items() if v is not None and k in takes})
        report.print(baseline=getattr(module, "BASELINE", None))
        if args.json is not None:
            several = len(wanted) > 1
            if several:
                args.json.mkdir(parents=True, exist_ok=True)
            report.write(args.json / f"{name}.json" if several else args.json)


if __name__ == "__main__":
    main()
