"""The benchmarks' tool: figures, targets, JSON, and one benchmark that fails among others."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.harness import Case, Report, Result, Target, duration, figure, measure


def made() -> Report:
    results = [
        Result("millrace on dask", 1000, [0.01, 0.02, 0.03], rival="bare Client.map"),
        Result("bare Client.map", 10, [0.04, 0.03, 0.05]),
    ]
    return Report("What does it cost?", results, {"cores": 2}, ["a note"])


def test_cases_take_turns_and_warm_up_rounds_do_not_count() -> None:
    """What disturbs one disturbs the other; a case may take its time itself."""
    calls: list[str] = []
    report = measure(
        "?", [Case("a", lambda: calls.append("a")), Case("b", lambda: calls.append("b") or 7.0)], repeats=2
    )
    assert calls == ["a", "b"] * 3
    assert len(report.of("a").seconds) == 2
    assert report.of("b").seconds == [7.0, 7.0]


def test_speed_is_per_unit() -> None:
    """A rival may do fewer units."""
    report = made()
    assert report.speed("millrace on dask", "bare Client.map") == pytest.approx(200)
    assert report.of("millrace on dask").rate == pytest.approx(50_000)
    assert report.of("millrace on dask").spread == pytest.approx(1.0)


def test_targets_say_what_was_wanted_and_reached() -> None:
    """Of a case that was not measured nothing is claimed."""
    report = made()
    report.want_speed("millrace on dask", "bare Client.map", 150)
    report.want_rate("millrace on dask", 100_000)
    report.want_speed("millrace on ray", "bare Client.map", 150)
    report.want_rate("millrace on ray", 1)
    assert [str(target) for target in report.targets] == [
        "150x as fast as bare Client.map: 200x, met",
        "100,000/s millrace on dask: 50,000/s, MISSED",
    ]
    assert Target("of import", 1.2, 1.5, at_most=True).met
    assert str(Target("hello", 0.4, 0.3, "s", at_most=True)) == "at most 300 ms hello: 400 ms, MISSED"


def test_json_gives_the_same_report_back(tmp_path: Path) -> None:
    """All that a table needs."""
    report = made()
    report.want_speed("millrace on dask", "bare Client.map", 150)
    report.wall_seconds = 3.0
    report.write(tmp_path / "a.json")
    assert Report.read(tmp_path / "a.json") == report


def test_tables_fit_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Long names have a line of their own, notes are wrapped."""
    report = made()
    report.results.append(Result("a case that has a name of more than thirty-four letters", 2, [12345.0]))
    report.notes.append("word " * 40)
    report.want_speed("millrace on dask", "bare Client.map", 150)
    report.print()
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "target: 150x as fast as bare Client.map: 200x, met" in printed
    report.print(baseline="bare Client.map")
    assert "0.5x" in capsys.readouterr().out


def test_figures() -> None:
    """Three digits, a unit that suits."""
    assert [duration(s) for s in (12345.0, 1.5, 0.0204, 3e-6, 5e-9)] == [
        "12345 s",
        "1.5 s",
        "20.4 ms",
        "3 us",
        "5 ns",
    ]
    assert figure(5123.4, "x") == "5,123x"
    assert figure(1.05, "x") == "1.05x"
    assert figure(12.0, "MB") == "12 MB"


def test_one_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code and a line say so; options go to those that have them."""
    seen: dict[str, Any] = {}

    def bad() -> Report:
        raise OSError("no room")

    def good(*, repeats: int = 1) -> Report:
        seen["repeats"] = repeats
        return made()

    modules = {"benchmarks.bad": SimpleNamespace(run=bad), "benchmarks.good": SimpleNamespace(run=good)}
    monkeypatch.setattr(command, "names", lambda: ["bad", "good"])
    monkeypatch.setattr(command, "import_module", modules.__getitem__)
    assert command.main(["--repeats", "3", "--runner", "dask", "--json", str(tmp_path / "new")]) == 1
    assert seen == {"repeats": 3}
    assert Report.read(tmp_path / "new" / "good.json").wall_seconds is not None
    assert "benchmark bad failed: OSError: no room" in capsys.readouterr().err
    assert command.main(["good", "--json", str(tmp_path / "one.json")]) == 0
    assert (tmp_path / "one.json").exists()


def test_tools_are_no_benchmarks() -> None:
    """Nor are packages."""
    assert {"overhead", "startup"} <= set(command.names())
    assert {"harness", "report", "__main__", "__init__", "scheduling"}.isdisjoint(command.names())


@pytest.mark.parametrize("name", command.names())
def test_every_benchmark_has_a_run(name: str) -> None:
    """With keywords only, `repeats` among them."""
    parameters = inspect.signature(import_module(f"benchmarks.{name}").run).parameters
    assert "repeats" in parameters
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_readme_has_the_results_between_its_marks(tmp_path: Path) -> None:
    """Tables and verdicts are written where the marks are; what stands around them stays."""
    from benchmarks import report as pages

    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{pages.BEGIN}\nold\n{pages.END}\nafter\n")
    found = Report("How fast?", [Result("ours", 10, [1.0, 2.0, 3.0], "theirs"), Result("theirs", 10, [8.0])])
    found.stamp = {
        "date": "2026-01-01",
        "python": "3",
        "cores": 2,
        "processor": "p",
        "load": 0.5,
        "versions": {},
    }
    found.want_speed("ours", "theirs", 5)
    found.write(tmp_path / "fast.json")
    pages.write(pages.read(tmp_path), readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| ours | 2 s |" in text
    assert "0 of 1 targets met" in text
    assert "MISSED" in text


def test_every_question_can_be_asked() -> None:
    """All benchmarks can be imported and have a question in their first line."""
    from benchmarks.__main__ import names

    assert {"overhead", "latency", "memory", "store", "startup"} <= set(names())
    for name in names():
        module = import_module(f"benchmarks.{name}")
        assert callable(module.run)
        assert (module.__doc__ or "").strip().split("\n")[0].endswith((".", "?"))
