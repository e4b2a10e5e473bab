"""The pure parts of the benchmarks of scheduling: Task Bench's patterns, METG, lower bounds."""

from __future__ import annotations

import json
import random
from itertools import count
from pathlib import Path

import pytest

from benchmarks import skew
from benchmarks.harness import Report
from benchmarks.metg import WrongInputError, graph, work, work_after
from benchmarks.scheduling.bounds import Bounded, critical_path, lower_bound
from benchmarks.scheduling.granularity import LEAST_SECONDS, ROUNDS, crossing, metg
from benchmarks.scheduling.patterns import PATTERNS, dependencies, grid, width_at
from benchmarks.workflows import load
from runners import SequentialTaskRunner


@pytest.mark.parametrize(
    ("pattern", "step", "point", "needed"),
    [
        ("trivial", 3, 2, []),
        ("no_comm", 3, 2, [2]),
        ("stencil_1d", 3, 2, [1, 2, 3]),
        ("stencil_1d", 3, 0, [0, 1]),
        ("stencil_1d", 3, 7, [6, 7]),
        ("fft", 1, 5, [4, 5, 6]),  # distances 1, 2, 4 in turn
        ("fft", 2, 5, [3, 5, 7]),
        ("fft", 3, 5, [1, 5]),
        ("fft", 4, 5, [4, 5, 6]),
        ("tree", 1, 1, [0]),
        ("tree", 3, 7, [3]),
        ("tree", 9, 7, [3]),  # grown: still the point of half the number
        ("nearest", 1, 0, [0, 1]),
        ("nearest", 1, 4, [3, 4, 5]),
        ("spread", 3, 1, [1, 3, 6]),  # 1, 1 + 8 // 3, 1 + 16 // 3
        ("spread", 4, 1, [1, 4, 7]),  # the same, shifted by one, but for the point itself
        ("spread", 5, 1, [0, 1, 5]),
    ],
)
def test_a_pattern_is_that_of_task_bench(pattern: str, step: int, point: int, needed: list[int]) -> None:
    """A grid of 8 points, calculated by hand from `TaskGraph::dependencies`."""
    assert dependencies(pattern, 8, step, point) == needed


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("width", [1, 8, 13])
def test_dependencies_are_points_of_the_timestep_before(pattern: str, width: int) -> None:
    """The first timestep needs nothing, later ones only points that exist; the same ones each time."""
    steps = grid(pattern, width, 6)
    assert all(needed == [] for needed in steps[0])
    for step in range(1, 6):
        assert len(steps[step]) == width_at(pattern, width, step)
        before = range(len(steps[step - 1]))
        for needed in steps[step]:
            assert needed == sorted(set(needed))
            assert all(p in before for p in needed)


def test_random_nearest_takes_the_point_itself_and_some_neighbours() -> None:
    """A share of the possible ones, other ones in other timesteps of a period."""
    steps = grid("random_nearest", 200, 7)
    assert all(point in needed for needed_by in steps[1:] for point, needed in enumerate(needed_by))
    neighbours = [sum(len(needed) - 1 for needed in needed_by) / 398 for needed_by in steps[1:]]
    assert all(0.15 < share < 0.35 for share in neighbours)
    assert steps[1] != steps[2]
    assert steps[1] == steps[4]


def test_a_tree_doubles_until_it_is_as_wide_as_the_grid() -> None:
    """From one point on."""
    assert [width_at("tree", 6, step) for step in range(5)] == [1, 2, 4, 6, 6]


def test_lower_bounds() -> None:
    """The longest task, all slots always busy, or the longest chain."""
    assert lower_bound([1.0, 1.0, 4.0], 2) == 4.0
    assert lower_bound([1.0] * 10, 4) == 2.5
    parents = {"a": [], "b": ["a"], "c": [], "d": ["b", "c"]}
    assert critical_path(parents, {"a": 1.0, "b": 2.0, "c": 5.0, "d": 1.0}) == 6.0
    assert lower_bound([], 2) == critical_path({}, {}) == 0.0


def test_a_report_says_which_targets_were_missed() -> None:
    """Ratios are medians over the runs of a case, each against its own bound."""
    bounded = Bounded()
    bounded.add("far", lambda: 1e-9, factor=1.1)
    bounded.add("near", lambda: 1000.0, factor=1.1, each=0.001, units=3)
    for case in bounded.cases:
        case.run()
    report = bounded.note(Report("?", []))
    notes = report.notes
    assert [target.met for target in report.targets][:2] == [False, True]
    assert notes[1].startswith("near: 0.000 x lower bound (1000.00 s)")


@pytest.mark.parametrize("name", skew.MIXTURES)
def test_mixtures_have_the_same_work_each_time(name: str) -> None:
    """A thousand tasks, ten seconds of work, no matter how it is spread."""
    seconds = skew.MIXTURES[name](random.Random(7))
    assert len(seconds) == skew.ITEMS
    assert sum(seconds) == pytest.approx(skew.ITEMS * skew.MEAN_SECONDS)
    assert seconds == skew.MIXTURES[name](random.Random(7))
    assert max(seconds) > 2 * min(seconds)


@pytest.mark.parametrize("guess", [1e-5, 1e-3, 1e-2, 0.5])
def test_metg_is_found_from_any_guess(guess: float) -> None:
    """With an overhead of 2 ms per task, half of the time is work where a task takes 2 ms."""
    asked: list[float] = []

    def efficiency(seconds: float) -> tuple[float, float]:
        asked.append(seconds)
        return seconds, seconds / (seconds + 0.002)

    assert metg(efficiency, guess) == pytest.approx(0.002, rel=0.05)
    assert len(asked) <= 12 + 2 * (ROUNDS - 1)


@pytest.mark.parametrize("disturbed", range(12))
def test_one_disturbed_run_does_not_end_the_search(disturbed: int) -> None:
    """A neighbour on the machine takes half of the cores in one run, whichever it is: METG stays where it is."""
    runs = count()

    def efficiency(seconds: float) -> tuple[float, float]:
        found = seconds / (seconds + 0.002)
        return seconds, found / 2 if next(runs) == disturbed else found

    assert metg(efficiency, 0.016) == pytest.approx(0.002, rel=0.05)


def test_metg_ends_where_there_is_none() -> None:
    """Efficient however small tasks are: the least size that means anything. Never efficient: an error."""
    assert metg(lambda seconds: (seconds, 0.9), 1e-4) <= LEAST_SECONDS
    with pytest.raises(ValueError, match="no METG"):
        metg(lambda seconds: (seconds, 0.3), 1e-4)


def test_the_crossing_lies_between_on_a_logarithmic_scale() -> None:
    """One half is in the middle of 0.25 and 0.75, and 2 ms in the middle of 1 and 4 ms."""
    assert crossing((0.001, 0.25), (0.004, 0.75)) == pytest.approx(0.002)


def test_a_task_that_got_something_else_fails() -> None:
    """Too few, too many, in another order, of another timestep."""
    assert work(2, [(0, 1), (0, 2), (0, 3)], 1, "stencil_1d", 8, 1) == (1, 2)
    assert work_after(2, (0, 2), 1, "no_comm", 8, 1) == (1, 2)
    wrong: list[list[tuple[int, int]]] = [
        [(0, 1), (0, 2)],
        [(0, 1), (0, 3), (0, 2)],
        [(0, 1), (0, 2), (1, 3)],
        [(0, 1), (0, 2), (0, 3), (0, 4)],
    ]
    for inputs in wrong:
        with pytest.raises(WrongInputError, match="point 2 of timestep 1"):
            work(2, inputs, 1, "stencil_1d", 8, 1)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_flow_follows_its_pattern(pattern: str, millrace_home: Path) -> None:
    """Each task of the grid runs and returns its own name."""
    rows = graph.with_options(task_runner=SequentialTaskRunner())(pattern, 6, 5, 1)
    assert rows == [[(step, p) for p in range(width_at(pattern, 6, step))] for step in range(5)]


def test_a_recorded_workflow_is_scaled_and_sorted(tmp_path: Path) -> None:
    """Parents first; runtimes sum up to the work that is wanted; the bound knows both kinds of limit."""
    tasks = [{"id": "b", "parents": ["a"]}, {"id": "c", "parents": ["a"]}, {"id": "a", "parents": []}]
    ran = [{"id": name, "runtimeInSeconds": seconds} for name, seconds in (("a", 10), ("b", 10), ("c", 20))]
    file = tmp_path / "toy-run-001.json"
    file.write_text(
        json.dumps({"workflow": {"specification": {"tasks": tasks}, "execution": {"tasks": ran}}})
    )
    workflow = load(file)
    assert workflow.name == "toy"
    assert next(iter(workflow.parents)) == "a"
    assert workflow.seconds == {"a": 1.0, "b": 1.0, "c": 2.0}
    assert workflow.bound(1) == 4.0
    assert workflow.bound(2) == 3.0
