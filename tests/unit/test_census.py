"""The pure parts of the census: measuring, resolving imports, the report, the comparison, the page."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from examples.census.charts import squarify
from examples.census.compare import RunRecord, disagreements
from examples.census.discover import SourceFile, by_package, evenly, find_files, module_name
from examples.census.flow import hiccups
from examples.census.imports import imported_modules, resolve
from examples.census.measure import FileMeasure, Import, measure_source, text_of
from examples.census.page import page_of
from examples.census.report import digest_of, report_of
from examples.census.specimens import specimens
from examples.census.summary import PackageSummary, summary_of
from examples.census.table import footnotes, runner_table, state_table, wrapped

COUNTED_BY_HAND = [
    ("pass", 1),
    ("if a: pass", 2),
    ("if a: pass\n    else: pass", 2),
    ("if a: pass\n    elif b: pass\n    else: pass", 3),
    ("if a and b or c: pass", 4),
    ("return a if b else c", 2),
    ("for x in a:\n        while x: pass\n    else: pass", 3),
    ("try: pass\n    except A: pass\n    except B: pass\n    else: pass\n    finally: pass", 3),
    ("return [x for x in a if x if y for z in x]", 5),
    ("with a: assert b", 1),
    ("return lambda x: x if a else b", 2),
    ("match a:\n        case 1: pass\n        case 2 if b: pass\n        case _: pass", 3),
    ("match a:\n        case 1: pass\n        case _ if b: pass", 3),
    ("def inner():\n        if a: pass\n    if b: pass", 2),
    ("class Inner:\n        def method(self):\n            if a: pass", 1),
]


def functions_of(text: str) -> dict[str, int]:
    """Complexity by function."""
    return {f.name: f.complexity for f in measure_source("m.py", text).functions}


@pytest.mark.parametrize(("body", "complexity"), COUNTED_BY_HAND)
def test_complexity_is_what_a_person_counts(body: str, complexity: int) -> None:
    """1 plus the decisions, in each kind of statement."""
    assert functions_of(f"def outer():\n    {body}\n")["outer"] == complexity


def test_async_functions_count_like_others() -> None:
    """`async for` is a loop, `await` and `async with` are no decisions."""
    text = "async def f():\n    async for x in a:\n        await x\n    async with b: pass\n"
    assert functions_of(text) == {"f": 2}


def test_functions_have_qualified_names_and_spans() -> None:
    """Methods and nested functions are told apart, and each knows where it is."""
    text = "class A:\n    def f(self):\n        def g():\n            return 1\n        return g\n\n\nclass B: pass\n"
    measured = measure_source("m.py", text)
    assert [(f.name, f.line, f.lines) for f in measured.functions] == [("A.f", 2, 4), ("A.f.g", 3, 2)]
    assert measured.classes == 2
    assert (measured.lines, measured.code_lines) == (8, 6)


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    """The walk keeps a stack of its own."""
    text = "def f():\n    return " + " + ".join(["x"] * 900) + "\n"
    assert functions_of(text) == {"f": 1}


def test_a_file_is_decoded_as_it_says() -> None:
    """A coding line counts, else UTF-8 does; line ends become one kind."""
    assert text_of("# coding: latin-1\nx = 'é'\r\n".encode("latin-1")) == "# coding: latin-1\nx = 'é'\n"
    assert text_of("\ufeffx = 'é'".encode()) == "x = 'é'"
    with pytest.raises(UnicodeDecodeError):
        text_of(b"a\nb\nc = '\xff'")
    with pytest.raises(SyntaxError, match="encoding"):
        text_of(b"# coding: klingon\n")


@pytest.mark.parametrize(
    ("statement", "package", "module"),
    [
        (Import("os.path"), "p", "os.path"),
        (Import("p", "module"), "q", "p.module"),
        (Import("p", "name"), "q", "p"),
        (Import("", "module", 1), "p", "p.module"),
        (Import("", "name", 1), "p", "p"),
        (Import("module", "name", 1), "p", "p.module"),
        (Import("module", "name", 2), "p.sub", "p.module"),
        (Import("", "module", 2), "p.sub", "p.module"),
        (Import("module", "name", 3), "p.sub", ""),
        (Import("module", "name", 1), "", ""),
    ],
)
def test_imports_are_resolved(statement: Import, package: str, module: str) -> None:
    """Relative imports, and `from` imports of modules and of names in them."""
    assert resolve(statement, package, {"p", "p.module", "p.sub"}) == module


def test_a_file_counts_a_module_once_and_never_itself() -> None:
    """`__future__` is no module that is used."""
    text = "from __future__ import annotations\nimport os, os\nfrom . import b\nfrom .a import x\nfrom . import a\n"
    assert imported_modules(measure_source("p/a.py", text), {"p", "p.a", "p.b"}) == {"os", "p.b"}
    assert imported_modules(measure_source("p/__init__.py", "from .b import x"), {"p.b"}) == {"p.b"}


def test_files_become_modules() -> None:
    """A package is named by its folder."""
    names = ["asyncio/events.py", "asyncio/__init__.py", "abc.py", "__init__.py"]
    assert [module_name(name) for name in names] == ["asyncio.events", "asyncio", "abc", "__init__"]


def test_files_are_found_once_in_order_and_evenly(tmp_path: Path) -> None:
    """Caches and what is not Python are left out; the same folder twice counts once."""
    for name in ("b/x.py", "b/__pycache__/y.py", "a.py", "b/data.txt", "b/site-packages/z.py"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("pass")
    files = find_files([str(tmp_path), str(tmp_path)])
    assert [(f.package, f.name, f.size) for f in files] == [("a", "a.py", 4), ("b", "b/x.py", 4)]
    assert by_package(files) == {"a": range(1), "b": range(1, 2)}
    assert evenly(list("abcdefghij"), 3) == ["a", "d", "g"]
    assert evenly(list("abc"), 0) == evenly(list("abc"), 5) == list("abc")


def test_hiccups_are_the_same_everywhere_and_about_as_many_as_said() -> None:
    """They depend on the name and the attempt only, and all end after some attempts."""
    names = [f"package/module_{n}.py" for n in range(5000)]
    first = [name for name in names if hiccups(name, 1)]
    assert first == [name for name in names if hiccups(name, 1)]
    assert 0.015 < len(first) / len(names) < 0.025
    assert [name for name in first if not hiccups(name, 2)]
    assert not [name for name in names if all(hiccups(name, attempt) for attempt in range(1, 6))]


def test_hiccups_are_pinned() -> None:
    """Another version of Python, or a salted hash, would show here."""
    assert [n for n in range(200) if hiccups(f"f{n}.py", 1)] == [58, 69, 70, 86, 96, 127, 158, 173, 196]


def sample(package: str, texts: Sequence[str]) -> PackageSummary:
    """The summary of a package with these files, one broken and one skipped."""
    files = [SourceFile(package, f"{package}/m{n}.py", "", len(text)) for n, text in enumerate(texts)]
    measures: list[FileMeasure | BaseException | None] = [
        measure_source(file.name, text) for file, text in zip(files, texts, strict=True)
    ]
    files += [
        SourceFile(package, f"{package}/y.py", "", 1),
        SourceFile(package, f"{package}/z.py", "", 999_999),
    ]
    return summary_of(package, files, [*measures, SyntaxError("broken"), None], {})


def samples() -> list[PackageSummary]:
    """Some packages that share names and sizes, so that an order by size alone would be open."""
    text = "import os\n\n\ndef f(a):\n    if a:\n        return os\n"
    return [sample(package, [text, text + "\n\nclass C: pass\n"]) for package in ("p", "q", "r")]


def test_the_report_does_not_depend_on_the_order() -> None:
    """Packages may end in any order."""
    summaries = samples()
    digests = set()
    for seed in range(6):
        random.Random(seed).shuffle(summaries)
        digests.add(digest_of(report_of(summaries)))
    assert len(digests) == 1


def test_the_report_adds_up() -> None:
    """Files that were measured, failed and skipped are all files."""
    report = report_of(samples())
    totals = report["totals"]
    assert (totals["files"], totals["measured"], totals["failed"], totals["skipped"]) == (12, 6, 3, 3)
    assert totals["mean_complexity"] == 2.0
    assert [bucket["functions"] for bucket in report["histogram"]] == [0, 6, 0, 0, 0, 0]
    assert report["most_imported"] == [{"module": "os", "files": 6, "packages": 3}]
    assert [(group["kind"], group["count"]) for group in report["errors"]] == [("SyntaxError", 3)]
    assert report["skipped"][0] == {"file": "p/z.py", "bytes": 999_999}


def test_the_specimens_fail_as_they_should() -> None:
    """One each is broken, no text, too large, vanished; nothing is left of them."""
    with specimens(1000) as folder:
        files = {file.name.rpartition("/")[2]: file for file in find_files([folder])}
        with pytest.raises(SyntaxError):
            measure_source("broken.py", text_of(Path(files["broken.py"].path).read_bytes()))
        with pytest.raises(UnicodeDecodeError):
            text_of(Path(files["no_text.py"].path).read_bytes())
        with pytest.raises(FileNotFoundError):
            Path(files["vanished.py"].path).read_bytes()
        assert files["too_large.py"].size > 1000
    assert not Path(folder).exists()


def record(runner: str, **options: Any) -> RunRecord:
    """A run that went well."""
    report = report_of(samples())
    given: dict[str, Any] = {
        "run_name": "jumpy-puppy",
        "state": "Completed",
        "states": {
            "read": {"Completed": 123_456, "Failed": 1, "Skipped": 2},
            "measure": {"UpstreamFailed": 3},
        },
        "retried": 2_500,
        "start_seconds": 12.3,
        "work_seconds": 1234.5,
        "digest": digest_of(report),
        "report": report,
    }
    return RunRecord(runner, **(given | options))


def test_runs_that_agree_give_no_disagreement() -> None:
    """Times and names may differ."""
    assert disagreements([record("sequential"), record("ray", work_seconds=1.0, run_name="other")]) == []


@pytest.mark.parametrize(
    "options",
    [
        {"digest": "other", "report": {}},
        {"states": {"read": {"Completed": 1}}},
        {"states": {}},
        {"state": "Failed", "report": None, "digest": ""},
    ],
)
def test_each_difference_is_a_disagreement(options: dict[str, Any]) -> None:
    """In the report, in the states, or because a run failed."""
    problems = disagreements([record("sequential"), record("dask", **options)])
    assert problems
    assert all(problem.startswith(("dask", "    ")) for problem in problems)


def test_the_table_fits_into_80_columns() -> None:
    """With large numbers too, and speed is against serial."""
    records = [record("sequential"), record("threads", work_seconds=617.25)]
    texts = [runner_table(records), state_table(records[0]), wrapped(footnotes(records, load=9.0))]
    assert max(len(line) for text in texts for line in text.splitlines()) <= 80
    assert "busy" in texts[-1]
    assert "busy" not in " ".join(footnotes(records))
    assert "2.00x" in runner_table(records).splitlines()[-1]
    assert "-" in runner_table([record("dask")]).splitlines()[-1].split()


def test_the_page_stands_alone_and_escapes_names() -> None:
    """No script, no address of anything to load, and a file name cannot become markup."""
    report = report_of([sample("<b>p", ["def f(): pass\n"])])
    page = page_of(report, [record("sequential"), record("dask")], ["dask: <i>differs"])
    assert "<b>p" not in page
    assert "<i>differs" not in page
    assert not re.search(r"<script|<link|src=|href=|url\(|@import", page)
    assert "prefers-color-scheme: dark" in page


def test_a_treemap_covers_its_space_without_overlap() -> None:
    """Areas are like the values, and they add up to the whole."""
    values = [60.0, 30.0, 20.0, 10.0, 5.0, 1.0]
    boxes = squarify(values, 300, 200)
    total = sum(values)
    for value, (x, y, width, height) in zip(values, boxes, strict=True):
        assert width * height == pytest.approx(value / total * 60_000)
        assert -1e-6 <= x <= x + width <= 300 + 1e-6
        assert -1e-6 <= y <= y + height <= 200 + 1e-6
    assert squarify([], 10, 10) == []
