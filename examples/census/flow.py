"""The flow: find the files, then read, measure, sum up per package, report.

Reading and measuring are maps over files, so a file that is broken, vanished or too large concerns nobody else.
What travels between tasks stays small where it can: syntax trees, which are large, never leave `measure`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestration import (
    Skip,
    all_finished,
    allow_failure,
    flow,
    get_run_logger,
    runtime,
    task,
    unmapped,
)

from .discover import SourceFile, by_package, find_files, module_name
from .measure import FileMeasure, measure_source, text_of
from .report import report_of
from .summary import PackageSummary, summary_of

HICCUP_SHARE = 0.02
MAX_BYTES = 250_000


class Hiccup(Exception):
    """What a bad disk or a busy network does now and then: it works when tried again."""


def hiccups(name: str, attempt: int, share: float = HICCUP_SHARE) -> bool:
    """Return whether an attempt to read a file is to fail. Looks like chance, and is the same on every runner."""
    digest = hashlib.blake2b(f"{name}:{attempt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def only_hiccups(task: Any, task_run: Any, state: Any) -> bool:
    """Retry what may work next time; a file that is no text will not become one."""
    return isinstance(state.result(raise_on_failure=False), Hiccup)


@task
def discover(roots: Sequence[str], limit: int) -> list[SourceFile]:
    """Find the files."""
    return find_files(roots, limit)


@task
def index_modules(files: Sequence[SourceFile]) -> dict[str, str]:
    """Return the package of each module that there is."""
    return {module_name(file.name): file.package for file in files}


# A tag can have a limit: after `millrace limit set disk 4`, at most 4 of these run at a time.
@task(retries=4, retry_delay_seconds=0.1, retry_condition_fn=only_hiccups, tags={"disk"})
def read(file: SourceFile, max_bytes: int) -> str:
    """Return a file's text. Raises OSError if it has vanished, UnicodeError or SyntaxError if it is no text."""
    if file.size > max_bytes:
        raise Skip(f"{file.size:,} bytes are more than {max_bytes:,}")
    if hiccups(file.name, runtime.task_run.attempt or 1):
        raise Hiccup(f"reading {file.name} failed, as it does for {HICCUP_SHARE:.0%} of the attempts")
    return text_of(Path(file.path).read_bytes())


@task
def measure(file: SourceFile, text: str) -> FileMeasure:
    """Parse a file and measure it. Raises SyntaxError if it is not Python."""
    return measure_source(file.name, text)


@task(trigger=all_finished, skip_on_upstream_skip=False)
def summarise(
    package: str,
    files: list[SourceFile],
    measures: list[FileMeasure | Exception | None],
    known: dict[str, str],
) -> PackageSummary:
    """Sum up a package: its measures, and what became of the files that have none."""
    summary = summary_of(package, files, measures, known)
    if summary.problems:
        get_run_logger().info("%s: %d files could not be measured", package, len(summary.problems))
    return summary


@task
def report(summaries: list[PackageSummary]) -> dict[str, Any]:
    """Make one report of all packages."""
    return report_of(summaries)


@flow
def census(roots: list[str], limit_files: int = 0, max_bytes: int = MAX_BYTES) -> Any:
    """Measure the Python files below some folders and return the report."""
    files = discover(roots, limit_files)  # called, not submitted: runs here and now
    places = by_package(files)
    get_run_logger().info("%s files in %d packages", f"{len(files):,}", len(places))

    known = index_modules.submit(files)
    texts = read.map(files, max_bytes)
    measures = measure.map(files, texts)
    summaries = summarise.map(
        list(places),
        [files[place.start : place.stop] for place in places.values()],
        [allow_failure(measures[place.start : place.stop]) for place in places.values()],
        unmapped(known),
    )
    return report.submit(summaries)
