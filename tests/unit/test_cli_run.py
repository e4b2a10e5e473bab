"""`millrace run`: parameters, options, what is printed, exit codes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

FLOWS = """
from orchestration import flow, task, get_run_logger

@task
def double(x):
    if x == 13:
        raise ValueError("unlucky 13")
    return x * 2

@flow
def doubled(n: int = 3, *, label: str = "a"):
    get_run_logger().info("label %s", label)
    return double.map(range(n))

@flow
def broken(n: int = 0):
    return 1 / n

@flow
def unlucky():
    return double.map([12, 13])

@flow
async def slowly():
    return "async"

@flow
def leaves():
    raise SystemExit(9)

@flow
def anything(**kwargs):
    return kwargs
"""

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def flow_file(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)


def test_a_flow_runs_and_says_so_on_stderr(call: Call) -> None:
    """Stdout belongs to the flow; the display tells the run, its end, and where to look."""
    code, out, err = call("run", "flows.py:doubled", "--name", "first")
    assert (code, out) == (0, "")
    assert "first  flow doubled on ThreadPoolTaskRunner" in err
    assert "first Completed in" in err
    assert "3 task runs" in err
    assert "millrace runs show first" in err
    assert "INFO    first  label a" in err
    assert "\x1b" not in err


def test_quiet_is_silent(call: Call) -> None:
    assert call("run", "flows.py:doubled", "--quiet") == (0, "", "")


def test_values_are_json_where_possible_and_coerced(call: Call) -> None:
    """`n=4` is a number, `label=7` becomes the text that the flow wants."""
    args = ["--quiet", "--json", "-p", "n=4", "-p", "label=x y"]
    code, out, _ = call("run", "flows.py:doubled", *args)
    record = json.loads(out)
    assert code == 0
    assert record["parameters"] == {"n": 4, "label": "x y"}
    assert record["result"] == [0, 2, 4, 6]
    assert record["state"] == "Completed"
    assert record["counts"] == {"Completed": 4}


def test_parameters_from_a_file_and_from_pairs(call: Call, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"a": [1], "b": 2}')
    code, out, _ = call("run", "flows.py:anything", "--params-json", "@p.json", "-p", "b=3", "--json")
    assert code == 0
    assert json.loads(out)["result"] == {"a": [1], "b": 3}


def test_parameters_from_standard_input(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """As other commands take it: `-`. A server starts flows so, and leaves no file with their parameters."""
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": "\\u00e4"}'))
    code, out, _ = call("run", "flows.py:anything", "--params-json", "@-", "--json")
    assert code == 0
    assert json.loads(out)["result"] == {"a": "\u00e4"}
    monkeypatch.setattr("sys.stdin", io.StringIO("{"))
    assert "standard input is no JSON" in call("run", "flows.py:anything", "--params-json", "@-")[2]


def test_async_flows_run(call: Call) -> None:
    assert json.loads(call("run", "flows.py:slowly", "--quiet", "--json")[1])["result"] == "async"


@pytest.mark.parametrize("runner", ["sequential", "threads", "runners.threads:ThreadPoolTaskRunner"])
def test_the_swap(call: Call, runner: str) -> None:
    """--runner takes a name or a class."""
    code, out, _ = call("run", "flows.py:doubled", "--runner", runner, "--quiet", "--json")
    assert code == 0
    assert json.loads(out)["runner"] == runner.split(":", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1]


def test_name_tags_and_store(call: Call, tmp_path: Path) -> None:
    """They are in the record, and the record is where --store says."""
    where = str(tmp_path / "other.db")
    args = ["--name", "{odd} name", "--tag", "a", "--tag", "b", "--store", where, "--json", "--quiet"]
    record = json.loads(call("run", "flows.py:doubled", *args)[1])
    assert record["name"] == "{odd} name"
    assert record["tags"] == ["a", "b"]
    assert [r["id"] for r in json.loads(call("runs", "ls", "--json", "--store", where)[1])] == [record["id"]]


def test_a_failing_flow_prints_the_users_traceback_once(call: Call) -> None:
    """Exit code 1, and no frame of Millrace in between."""
    code, out, err = call("run", "flows.py:broken")
    assert (code, out) == (1, "")
    assert err.count("Traceback (most recent call last)") == 1
    assert err.count("return 1 / n") == 1
    assert "orchestration" not in err.partition("Traceback")[2]
    assert err.rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_failing_task_run_is_named(call: Call) -> None:
    """The summary names the first of those that failed and where; the traceback is the task's."""
    code, _, err = call("run", "flows.py:unlucky")
    assert code == 1
    assert "ValueError: unlucky 13 (double[1], flows.py:7)" in err
    assert "1/2 task runs failed" in err
    assert err.count("Traceback (most recent call last)") == 1


def test_a_flow_that_leaves_is_crashed(call: Call) -> None:
    assert call("run", "flows.py:leaves", "--quiet")[0] == 4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nofile.py:x"], "there is no file"),
        (["flows.py:nope"], "It has: anything, broken, doubled, leaves, slowly, unlucky"),
        (["flows.py"], "Write FILE.py:FLOW"),
        (["no_such_module:x"], "there is no module 'no_such_module'"),
        (["flows.py:doubled", "-p", "m=1"], "no parameter 'm'. It has: n, label."),
        (["flows.py:doubled", "-p", "n=abc"], "valid integer"),
        (["flows.py:doubled", "-p", "n"], "write NAME=VALUE"),
        (["flows.py:doubled", "--params-json", "[1]"], "must be a JSON object"),
        (["flows.py:doubled", "--params-json", "{"], "is no JSON"),
        (["flows.py:doubled", "--params-json", "@gone.json"], "No such file"),
        (["flows.py:doubled", "--runner", "spark"], "there is no task runner 'spark'"),
        (["flows.py:doubled", "--runner", "no_mod:X"], "No module named 'no_mod'"),
        (["flows.py:doubled", "--runner", "os:getcwd"], "is no task runner class"),
        (["flows.py:doubled", "--runner", "threads", "--address", "x"], "--address means nothing"),
        (["flows.py:doubled", "--runner", "sequential", "--workers", "2"], "--workers means nothing"),
        (["flows.py:doubled", "--runner", "dask", "--address", "x", "--workers", "2"], "leave --workers out"),
        (["flows.py:doubled", "--workers", "2"], "--workers needs --runner"),
        (["flows.py:doubled", "--store", "mysql://x"], "There is no store for mysql"),
    ],
)
def test_wrong_inputs_are_told_in_one_message(call: Call, args: list[str], words: str) -> None:
    """Exit code 2, the cause and the cure on stderr, no traceback, nothing on stdout."""
    code, out, err = call("run", *args)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_a_file_that_does_not_import_shows_where(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad_import.py").write_text("import a_module_that_is_not\n")
    code, _, err = call("run", "bad_import.py:x")
    assert code == 2
    assert "import a_module_that_is_not" in err
    assert "defect" not in err


def test_debug_shows_the_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """--debug and MILLRACE_DEBUG=1 alike."""
    assert "Traceback" in call("--debug", "run", "nofile.py:x")[2]
    os.environ["MILLRACE_DEBUG"] = ""
    assert "Traceback" not in call("run", "nofile.py:x")[2]
    monkeypatch.setenv("MILLRACE_DEBUG", "1")
    assert "Traceback" in call("run", "nofile.py:x")[2]
