"""The display: words, lines of a given width, tallies, summaries, and the screen in its modes."""

from __future__ import annotations

import io
import logging
from array import array
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from orchestration import flow, get_run_logger, task, terminal
from orchestration.core.journal import (
    LOST,
    AttemptsEnded,
    Counted,
    LogWritten,
    Moved,
    NodeAdded,
    RunMoved,
    WidthLearned,
)
from orchestration.core.states import RunState, State
from orchestration.stores.base import RunRow
from orchestration.terminal import display_for, summary, words
from orchestration.terminal.overview import Busy, Overview, overview_lines, overview_text
from orchestration.terminal.progress import NodeProgress, Speed, progress_lines, progress_text
from orchestration.terminal.styled import ansi, ascii_only, cut, is_terminal, plain, speaks_unicode, wrapped
from orchestration.terminal.tally import MAX_WAITING_LINES, Tally
from orchestration.terminal.view import RunView, shown_level
from runners import DaskTaskRunner, RayTaskRunner, SequentialTaskRunner
from runners.base import Sink, TaskRunner
from runners.messages import Detail, LogLine, Outcome

TRACE = (
    'Traceback (most recent call last):\n  File "/home/me/flows.py", line 12, in t\n    x\nValueError: bad'
)


def counts(**numbers: int) -> tuple[int, ...]:
    return tuple(numbers.get(state.name.lower(), 0) for state in State)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.00028, "0.28 ms"),
        (0.0083, "8.3 ms"),
        (0.0414, "41 ms"),
        (0.0999, "0.10 s"),
        (0.344, "0.34 s"),
        (9.999, "10.0 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min"),
        (125, "2 min 5 s"),
        (3599.9, "1 h"),
        (12_000, "3 h 20 min"),
        (360_000, "4 d 4 h"),
        (-1, "0.00 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "now"), (12, "12 s ago"), (190, "3 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_how_long_ago(seconds: float, text: str) -> None:
    assert words.ago(1e9 - seconds, 1e9) == text


def test_long_ago_is_a_date() -> None:
    assert words.ago(1e9 - 40 * 86400, 1e9).startswith("2001-07-3")
    assert words.ago(None, 1e9) == "-"


def test_rates_and_remaining_times() -> None:
    assert [words.rate(r) for r in (81234.4, 99.6, 8.51, 0.05)] == ["81,234/s", "100/s", "8.5/s", "3.0/min"]
    assert [words.left(s) for s in (9.4, 750, 3723)] == ["0:09", "12:30", "1:02:03"]


def test_speed_looks_at_the_last_seconds_only() -> None:
    """A slow beginning is forgotten after the window."""
    speed = Speed()
    speed.begin(0.0)
    assert speed.update(0.1, 1) is None  # too early to say
    assert speed.update(10.0, 10) == pytest.approx(1.0)
    for second in range(11, 30):
        latest = speed.update(float(second), 10 + (second - 10) * 100)
    assert latest == pytest.approx(100.0)


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_lines_fit_their_width(columns: int) -> None:
    """Whatever happens to a node, its line is one line; the bar gives way first, then the notes."""
    many = counts(completed=99_000, failed=3, skipped=12, awaiting_retry=7, awaiting_limit=5, running=8)
    nodes = [
        NodeProgress("extract", 100_000, many, 1234.5),
        NodeProgress("a_name_that_is_very_long_indeed_and_longer", None, counts(pending=1)),
        NodeProgress("empty", 0, counts()),
        NodeProgress("done", 10, counts(completed=10)),
    ]
    lines = [plain(line) for line in progress_lines(nodes, columns=columns)]
    assert len(lines) == 4
    assert all(len(line) < columns for line in lines)
    assert "99,015/100,000" in lines[0]
    if columns >= 120:
        assert "1,234/s  0:01 left  3 failed, 12 skipped, 7 retrying, 5 at limit" in lines[0]


def test_without_unicode_and_without_bars() -> None:
    node = [NodeProgress("t", 4, counts(completed=2))]
    assert plain(progress_lines(node, unicode=False)[0]).isascii()
    assert plain(progress_lines(node, bars=False)[0]).split() == ["t", "2/4"]


@pytest.mark.parametrize("rows", [8, 12, 16, 24])
def test_a_whole_run_fits_its_window(rows: int) -> None:
    """80 columns and few rows: how far all of it is, what runs where, what went wrong; less of each in small ones."""
    now = counts(completed=400, failed=30, running=9, pending=561)
    workers = [Busy(f"a-long-name-of-a-host:{n}:millrace-slot-{n}", f"load[{n}]", 90.0 - n) for n in range(9)]
    errors = [f"ValueError: bad {n} {'and more ' * 12}(30 task runs)" for n in range(3)]
    nodes = [NodeProgress(f"node-{n}", 1000, now, 50.0) for n in range(40)]
    run = Overview("held", "Running", 75, NodeProgress("", 1000, now, 50.0), nodes, workers, errors, 2)
    lines = overview_lines(run, columns=80, rows=rows)
    texts = [plain(line) for line in lines]
    assert len(texts) <= rows
    assert all(len(text) < 80 for text in texts)
    assert texts[0] == "held  Running  1:15  430/1,000  50.0/s  0:11 left"
    assert any("9 running on 9 workers" in text for text in texts)
    assert any("load[0]" in text and ("1m30s" in text) for text in texts)
    assert any("ValueError: bad 0" in text for text in texts)
    assert plain(lines[-1]).endswith("other kinds of error")
    ascii_lines = overview_lines(run, columns=80, rows=rows, unicode=False)
    assert all(plain(ascii_only(line)).isascii() for line in ascii_lines)


def test_a_run_of_which_little_is_known() -> None:
    """No task runs yet, or a map whose width is not known: no speed and no end are made up."""
    nothing = Overview("new", "Running", 1, NodeProgress("", 0, counts()))
    assert [plain(line) for line in overview_lines(nothing, columns=80, rows=24)] == [
        "new  Running  0:01  0/0"
    ]
    growing = Overview("new", "Running", 1, NodeProgress("", None, counts(completed=3), 2.0))
    assert overview_text(growing) == "new Running 3/?, 2.0/s"


@pytest.mark.parametrize(
    ("locale", "spoken"),
    [
        ({"LANG": "C"}, False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, False),  # which Python has put there
        ({"LC_ALL": "POSIX", "LANG": "de_DE.UTF-8"}, False),
        ({"LANG": "C", "LC_ALL": "C.UTF-8"}, True),
        ({"LC_CTYPE": "C.UTF-8"}, True),
        ({"LANG": "en_US.UTF-8"}, True),
    ],
)
def test_the_c_locale_is_ascii(locale: dict[str, str], spoken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal; what goes to a file is as the program made it."""
    for name in ("LANG", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**locale, "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert speaks_unicode(file)
    monkeypatch.setattr(file, "isatty", lambda: True, raising=False)
    assert speaks_unicode(file) is spoken


def test_many_nodes_are_folded() -> None:
    """What runs stays visible; what has finished goes first."""
    finished = [NodeProgress(f"old{n}", 1, counts(completed=1)) for n in range(30)]
    running = [NodeProgress("busy", 10, counts(running=2, pending=8))]
    waiting = [NodeProgress(f"new{n}", 1, counts(pending=1)) for n in range(20)]
    lines = [plain(line) for line in progress_lines([*finished, *running, *waiting], rows=12)]
    assert len(lines) == 12
    assert "busy" in lines[0]
    assert lines[-1] == "  + 40 more nodes (30 finished)"


def test_one_line_of_text_tells_where_a_run_is() -> None:
    nodes = [
        NodeProgress("extract", 10, counts(completed=10)),
        NodeProgress("load", 10, counts(completed=4, failed=1), 2.0),
    ]
    assert progress_text("run", nodes) == (
        "run: load 5/10 (1 failed, 2.0/s, 0:02 left); + 1 more node (finished)"
    )
    assert progress_text("run", []) == "run: no task runs yet"


def test_cutting_and_wrapping() -> None:
    line = [("abc", "red"), ("defgh", "")]
    assert plain(cut(line, 8)) == "abcdefgh"
    assert plain(cut(line, 6)) == "abcde…"
    assert ansi([("a", "bold red"), ("b", "")]) == "\x1b[1;31ma\x1b[0mb"
    assert [plain(part) for part in wrapped([("  one two three", "")], 10)] == ["  one two", "    three"]


def attempts(
    states: Sequence[State], outcomes: Sequence[int], details: dict[int, Detail] | None = None
) -> AttemptsEnded:
    n = len(states)
    zeros = array("d", [0.0] * n)
    return AttemptsEnded(
        node_id=0,
        batch_id=0,
        execution_id="e",
        worker="w",
        at=0.0,
        indices=range(n),
        attempts=[1] * n,
        outcomes=bytes(outcomes),
        states=bytes(states),
        started=zeros,
        durations=zeros,
        positions=range(n),
        details=details or {},
    )


def node_added(node_id: int = 0, name: str = "t", kind: str = "map", width: int | None = 3) -> NodeAdded:
    return NodeAdded(node_id, f"{name}-{node_id}", name, kind, width, 0.0)


def test_a_tally_counts_by_batch() -> None:
    """Retries, losses and cached results come from the attempts, states from the counts."""
    tally = Tally("run", logging.INFO)
    detail = Detail("builtins.ValueError", "bad", TRACE)
    states = [State.COMPLETED, State.AWAITING_RETRY, State.AWAITING_RETRY, State.FAILED]
    outcomes = [Outcome.CACHED, LOST, Outcome.FAILED, Outcome.FAILED]
    ended = attempts(states, outcomes, {2: detail, 3: detail})
    tally.observe(
        [node_added(width=None), WidthLearned(0, 4), ended, Counted(0, counts(completed=1, failed=1))]
    )
    assert (tally.retries, tally.lost, tally.cached) == (2, 1, 1)
    (failure,) = tally.failures.values()
    assert (failure.count, failure.first) == (1, "t[3]")
    (progress,) = tally.progress(0.0)
    assert (progress.width, progress.done) == (4, 2)
    tally.observe([Moved(0, (1, 2), State.FAILED, 0.0, "no list"), RunMoved(RunState.CANCELLING, 0.0)])
    assert tally.state is RunState.CANCELLING
    assert sum(f.count for f in tally.failures.values()) == 3


def test_single_task_runs_of_a_task_share_a_line() -> None:
    """A loop of submits is one line, two maps of a task are two."""
    tally = Tally("run", logging.INFO)
    tally.observe([node_added(n, "one", "single", 1) for n in range(50)])
    tally.observe([node_added(100, "many"), NodeAdded(101, "many-1", "many", "map", 5, 0.0)])
    tally.observe([Counted(n, counts(completed=1)) for n in range(7)])
    shown = [(p.name, p.width, p.done) for p in tally.progress(0.0, "sub/")]
    assert shown == [("sub/one", 50, 7), ("sub/many-100", 3, 0), ("sub/many-1", 5, 0)]


def test_log_lines_are_bounded_and_counted() -> None:
    """A flood neither fills the memory nor the terminal."""
    tally = Tally("run", logging.INFO)
    line = LogLine(0, 0, 0, 0.0, logging.INFO, "l", "hello")
    quiet = LogLine(0, 0, 0, 0.0, logging.DEBUG, "l", "hush")
    many = MAX_WAITING_LINES + 10
    tally.observe([node_added(), LogWritten(0, [2] * many, [1] * many, [line] * many)])
    tally.observe([LogWritten(-1, (0,), (0,), (quiet,))])
    assert tally.lines_dropped == 10
    assert {(shown.whose, shown.line.message) for shown in tally.take_lines()} == {("t[2]", "hello")}
    assert tally.take_lines() == []


def closing(state: RunState, tally: Tally, numbers: tuple[int, ...], message: str = "") -> list[str]:
    row = RunRow("id", "jumpy-puppy", "f", state, message=message)
    return [plain(line) for line in summary.closing(row, numbers, tally, 2.0, recorded=True)]


def test_the_summary_of_a_good_run_is_short() -> None:
    tally = Tally("run", logging.INFO)
    assert closing(RunState.COMPLETED, tally, counts(completed=10_000)) == [
        "jumpy-puppy Completed in 2.00 s: 10,000 task runs, 5,000/s",
        "  millrace runs show jumpy-puppy",
    ]


def test_the_summary_says_what_went_wrong_without_flooding() -> None:
    """Errors are grouped by task and type, and at most three kinds are shown."""
    tally = Tally("run", logging.INFO)
    tally.observe([node_added(n, f"t{n}") for n in range(6)])
    for n in range(6):
        detail = Detail(f"mod.Error{n}", "bad\nmore", TRACE)
        for index in range(n + 1):
            tally._fail(n, index, detail, 1)
    tally.retries, tally.lost = 1, 3
    lines = closing(RunState.FAILED, tally, counts(completed=4, failed=21), "2/25 task runs failed")
    assert lines[1] == "  4 completed, 21 failed; 1 retry, 3 lost with a worker"
    assert lines[2] == "  2/25 task runs failed"
    assert lines[3] == "  mod.Error5: bad (6 task runs, first t5[0], flows.py:12)"
    assert lines[6] == "  + 3 other kinds of error"
    assert len(lines) == 8


def test_errors_of_many_nodes_of_one_task_are_one_line() -> None:
    """Whoever submits in a loop makes a node each time; the first one of them is named."""
    tally = Tally("run", logging.INFO)
    tally.observe([node_added(n, "load") for n in range(3)])
    for n in (2, 0, 1):
        tally._fail(n, 0, Detail("mod.Error", f"bad {n}", TRACE), 1)
    lines = closing(RunState.COMPLETED, tally, counts(completed=1, failed=3))
    assert lines[2:4] == [
        "  mod.Error: bad 0 (3 task runs, first load[0], flows.py:12)",
        "    Traceback (most recent call last):",
    ]


def test_a_completed_run_shows_the_traceback_that_nobody_raises() -> None:
    tally = Tally("run", logging.INFO)
    tally.observe([node_added()])
    tally._fail(0, 1, Detail("builtins.ValueError", "bad", TRACE), 1)
    lines = closing(RunState.COMPLETED, tally, counts(completed=2, failed=1))
    assert '      File "/home/me/flows.py", line 12, in t' in lines


def test_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """MILLRACE_LOG_LEVEL takes a name or a number; nonsense is INFO."""
    for text, level in (("warning", 30), ("15", 15), ("loud", 20)):
        monkeypatch.setenv("MILLRACE_LOG_LEVEL", text)
        assert shown_level() == level


# --- whole runs ----------------------------------------------------------------------------------


@task
def half(x: int) -> int:
    get_run_logger().info("half of %s", x)
    return x // 2


@flow(store="memory")
def inner() -> list[int]:
    return half.map([2])  # type: ignore[no-any-return]


@flow(store="memory")
def outer() -> list[int]:
    inner()
    return half.map([4, 6])  # type: ignore[no-any-return]


@pytest.fixture
def display(millrace_home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILLRACE_DISPLAY", raising=False)


def test_a_run_without_terminal(display: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Plain lines on stderr, nothing on stdout; a subflow leaves one line."""
    assert outer() == [2, 3]
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert " flow outer on ThreadPoolTaskRunner" in lines[0]
    assert lines[1] == "  recorded in memory only: it is gone when this process ends"
    assert sum("(inner) Completed" in line for line in lines) == 1
    assert sum(" Completed in " in line for line in lines) == 2
    assert [line.split("  ")[-1] for line in lines if "INFO" in line][-1] in ("half of 4", "half of 6")
    assert "\x1b" not in err


def test_display_off(
    display: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLRACE_DISPLAY", "off")
    outer()
    assert capsys.readouterr() == ("", "")


def test_a_closed_stderr_breaks_no_run(display: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks: the run goes on."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    assert outer() == [2, 3]
    monkeypatch.setattr("sys.stderr", None)
    assert outer() == [2, 3]


def test_what_is_no_terminal() -> None:
    assert not is_terminal(None)
    assert not is_terminal(io.StringIO())
    assert callable(display_for)


def test_the_start_of_a_cluster_is_not_counted_as_work() -> None:
    """The speed is that of the task runs that ran; cancelled ones did not."""
    row = RunRow("id", "jumpy-puppy", "f", RunState.CANCELLED)
    numbers = counts(completed=40, cancelled=1000)
    tally = Tally("run", logging.INFO)
    lines = summary.closing(row, numbers, tally, 4.0, starting_seconds=20.1, recorded=False)
    assert plain(lines[0]) == "jumpy-puppy Cancelled in 4.00 s (+ 20.1 s to start): 1,040 task runs, 10.0/s"


class StartingRunner(SequentialTaskRunner):
    """Notes what the display says while it starts."""

    def start(self, sink: Sink) -> None:
        said.append((view_of_run().plain_text([]), plain(view_of_run().heading())))
        super().start(sink)

    def describe_start(self) -> str:
        return "a cluster of its own"


said: list[tuple[str, str]] = []


def view_of_run() -> RunView:
    (view,) = terminal._shared("auto")._views
    return view


def test_a_start_that_takes_long_says_how_long_and_what_it_waits_for(display: None) -> None:
    said.clear()
    inner.with_options(task_runner=StartingRunner())()
    ((line, heading),) = said
    assert line.endswith(": starting StartingRunner for 0:00, waiting for a cluster of its own")
    assert heading.endswith("  starting StartingRunner  0:00  (waiting for a cluster of its own)")


@pytest.mark.parametrize(
    ("runner", "awaited"),
    [
        (SequentialTaskRunner(), ""),
        (DaskTaskRunner(), "the scheduler and workers of a new LocalCluster"),
        (DaskTaskRunner("tcp://host:8786"), "the Dask scheduler at tcp://host:8786"),
        (DaskTaskRunner(cluster_class="a.b.KubeCluster"), "the scheduler and workers of a new KubeCluster"),
        (DaskTaskRunner(cluster=object()), "the workers of object"),
        (RayTaskRunner(), "Ray's processes on this machine"),
        (RayTaskRunner("auto"), "Ray at auto"),
    ],
)
def test_whom_runners_wait_for(runner: TaskRunner, awaited: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DASK_SCHEDULER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert runner.describe_start() == awaited


def test_a_run_that_waits_for_its_turn_starts_no_runner_yet(display: None) -> None:
    """It says who has it."""
    run = SimpleNamespace(
        row=RunRow("id", "jumpy-puppy", "f", RunState.PENDING, "AwaitingLimit", message="held up by others"),
        driver=SimpleNamespace(observers=[]),
        runner=SequentialTaskRunner(),
    )
    view = RunView(run, terminal._shared("auto"))  # type: ignore[arg-type]
    assert view.plain_text([]) == "jumpy-puppy: waiting for its turn for 0:00, held up by others"
