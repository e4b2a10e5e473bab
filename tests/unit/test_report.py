"""`millrace runs report`: one page that needs nothing else and believes nothing that a run says."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from orchestration.core.states import RunState, State
from orchestration.report import Report, page_of
from orchestration.report.lanes import COLUMNS, MAX_LANES, lanes_of
from orchestration.stores.base import NodeRow, RunRow, TaskRunRow
from orchestration.terminal.tally import Failure

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
COUNTS = tuple(3 if state is State.COMPLETED else 1 if state is State.FAILED else 0 for state in State)
RUN = RunRow("r" * 32, "calm-otter", "loads", RunState.FAILED, created=1000.0, started=1000.0, ended=1010.0)
VOID = {"meta", "img", "link"}


class Elements(HTMLParser):
    """The elements of a page with their attributes, and whether each one that opens also closes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def item(
    index: int, started: float, seconds: float | None, state: State = State.COMPLETED, **more: object
) -> TaskRunRow:
    return replace(
        TaskRunRow(0, index, "load", state, state.title, 1, started, seconds, "worker-1"),
        **more,  # type: ignore[arg-type]
    )


def node(path: str) -> NodeRow:
    return NodeRow(0, path, path, "map", 4, 1000.0, frozenset(), (), "", {}, None, COUNTS, 1000.0, 1009.0)


def report(name: str = "load") -> Report:
    items = [item(0, 1000.0, 2.0, worker=name, name=name, state_name=name)]
    run = replace(
        RUN,
        name=name,
        flow_name=name,
        message=name,
        entrypoint=name,
        version=name,
        runner=name,
        host=name,
        tags=frozenset([name]),
        parameters={name: name},
        counts=COUNTS,
    )
    failures = [Failure(name, name, name, name, 1)]
    return Report(run, name, [node(name)], failures, lanes_of(items, 1010.0), items, 0, 1010.0)


def test_hostile_text_stays_text() -> None:
    """Whatever a run's author, its data or its workers are called, the page has the elements it always has."""
    hostile, calm = Elements(page_of(report(HOSTILE))), Elements(page_of(report()))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in calm.found]
    assert [sorted(attrs) for _, attrs in hostile.found] == [sorted(attrs) for _, attrs in calm.found]
    assert hostile.open == []


def test_the_page_needs_nothing_else() -> None:
    """No element loads anything, no style does, and the page's own policy refuses it, too."""
    page = page_of(report())
    elements = Elements(page).found
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in elements}
    assert not [
        name for _, attrs in elements for name in attrs if name in ("src", "href") or name.startswith("on")
    ]
    assert not re.search(r"url\(|@import|https?://", page)
    assert "default-src 'none'" in page


def test_what_overlaps_on_one_worker_gets_lanes_of_its_own() -> None:
    items = [item(0, 1000.0, 10.0), item(1, 1002.0, 3.0), item(2, 1005.0, 5.0)]
    lanes = lanes_of(items, 1010.0)
    assert lanes is not None
    assert [lane.task_runs for lane in lanes.lanes] == [1, 2]
    assert (lanes.started, lanes.ended) == (1000.0, 1010.0)
    tenth = COLUMNS // 10
    assert [(s.first, s.last) for s in lanes.lanes[1].segments] == [(2 * tenth, 10 * tenth)]


def test_one_failure_among_thousands_is_seen() -> None:
    """Of what meets in a column the state that matters is shown, and the page stays small."""
    items = [item(k, 1000 + k / 100, 0.01) for k in range(50_000)]
    items[30_000] = replace(items[30_000], state=State.FAILED, attempts=3)
    lanes = lanes_of(items, 2000.0)
    assert lanes is not None
    segments = [s for lane in lanes.lanes for s in lane.segments]
    assert [s.state for s in segments] == [State.COMPLETED, State.FAILED, State.COMPLETED]
    assert lanes.lanes[0].retried == [segments[1].first]


def test_many_lanes_are_counted_not_drawn() -> None:
    items = [item(k, 1000.0, 1.0, worker=f"w{k}") for k in range(MAX_LANES + 9)]
    lanes = lanes_of(items, 1001.0)
    assert lanes is not None
    assert lanes.left_out == 9
    assert "9 further lanes not shown" in page_of(replace(report(), lanes=lanes))


def test_what_still_runs_ends_now() -> None:
    lanes = lanes_of([item(0, 1000.0, None, State.RUNNING)], 1005.0)
    assert lanes is not None
    assert lanes.ended == 1005.0
    assert lanes_of([item(0, None, None, State.PENDING)], 1005.0) is None  # type: ignore[arg-type]


FLOWS = """
from orchestration import flow, task

@task
def halve(x):
    if x == 3:
        raise ValueError(f"odd: {x}")
    return x // 2

@flow
def halves(n: int = 5):
    return halve.map(range(n))
"""


def test_a_run_is_reported_from_the_store(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """From the command line to the file: name, state, task, traceback."""
    (tmp_path / "flows.py").write_text(FLOWS)
    assert call("run", "flows.py:halves", "--name", "first", "--quiet")[0] == 1
    code, out, _ = call("runs", "report", "first", "-o", "r.html")
    assert code == 0
    assert out.startswith("r.html: ")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    for text in ("first", "Failed", "halve", "odd: 3", "4 completed, 1 failed", time.strftime("%Y-")):
        assert text in page
    assert Elements(page).open == []


def test_a_folder_that_is_not_there(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    call("run", "flows.py:halves", "--name", "first", "--quiet")
    code, _, err = call("runs", "report", "first", "-o", "none/r.html")
    assert code == 2
    assert "none/r.html" in err
    assert "-o" in err


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_colour_in_both_themes(state: State) -> None:
    """Those of the dashboard, light ones first, dark ones where the reader's system is dark."""
    page = page_of(report())
    light, _, rest = page.partition("@media (prefers-color-scheme: dark) { :root {")
    dark = rest.partition("}")[0]
    name = f"--state-{state.title}"
    (first, *_), (second,) = (re.findall(rf"{name}: (#\w+);", part) for part in (light, dark))
    assert first != second
    assert f".s-{state.title} {{ --state: var({name}); }}" in page
