"""`millrace store`: migrate, check, export, prune."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchestration import flow, task
from orchestration.core.journal import RunMoved
from orchestration.core.states import RunState
from orchestration.stores import open_store
from orchestration.stores.sqlite import SqliteStore, schema
from orchestration.testing.store_entries import new_run
from runners import SequentialTaskRunner

Call = Callable[..., tuple[int, str, str]]


@task
def double(n: int) -> int:
    print(n)
    return 2 * n


@flow(task_runner=SequentialTaskRunner(), persist_results=True, log_prints=True)
def doubles(n: int) -> list[int]:
    return double.map(range(n)).result()


@pytest.fixture
def runs(millrace_home: Path) -> list[str]:
    """The ids of three runs, oldest first."""
    for n in (1, 2, 3):
        doubles(n)
    return [run.run_id for run in open_store().runs()][::-1]


# --- migrate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(1, schema.newest()))
def test_migrate_from_every_version(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """What an older version has made becomes a store of this one; a second time there is nothing to do."""
    old, path = tmp_path / "old", tmp_path / "old.db"
    old.mkdir()
    for number, file in schema.migrations(schema.FOLDER):
        if number <= version:
            shutil.copy(file, old)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "FOLDER", old)
        SqliteStore(path).close()
    newest = schema.newest()
    code, out, err = call("store", "migrate", "--store", str(path))
    assert (code, out, err) == (0, f"sqlite:///{path}: migrated from schema {version} to {newest}\n", "")
    code, out, _ = call("store", "migrate", "--store", str(path), "--json")
    assert json.loads(out) == {"store": f"sqlite:///{path}", "from": newest, "to": newest}
    assert call("store", "check", "--store", str(path))[0] == 0


def test_failures_that_an_earlier_version_has_counted(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By text, which is all that it knew, without their places, in their order; what was skipped is none."""
    old, path, before = tmp_path / "old", tmp_path / "old.db", 9
    old.mkdir()
    for number, file in schema.migrations(schema.FOLDER):
        if number <= before:
            shutil.copy(file, old)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "FOLDER", old)
        SqliteStore(path).close()
    rows = [("ValueError", 40), ("TypeError", 2), ("KeyError", 2), ("OSError", 0), ("Skip", 7)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO error (run_no, node_id, digest, ended, type_name, message, traceback, retriable, abandoned) "
            "VALUES (1, 0, ?, ?, ?, 'x', '', 1, 0)",
            [(name.encode(), ended, name) for name, ended in rows],
        )
    assert call("store", "migrate", "--store", str(path))[0] == 0
    store = SqliteStore(path)
    run_id = new_run(store)  # which becomes number 1
    found = [(group.error.type_name, group.count, group.first) for group in store.failures(run_id)]
    store.close()
    assert found == [("ValueError", 40, None), ("TypeError", 2, None), ("KeyError", 2, None)]


def test_a_store_that_is_not_there(call: Call) -> None:
    """Nothing is made by looking for it, and there is nothing to do in memory."""
    for command in (["migrate"], ["check"], ["export"], ["prune", "--keep", "1"]):
        code, _, err = call("store", *command, "--store", "no.db")
        assert (code, "There is no store no.db" in err) == (2, True)
        assert not os.path.exists("no.db")
        code, _, err = call("store", *command, "--store", "memory")
        assert (code, "memory" in err) == (2, True)


def test_the_first_migration_makes_the_store(call: Call, millrace_home: Path) -> None:
    """The store of the settings need not be there yet."""
    path = millrace_home / "millrace.db"
    assert call("store", "migrate")[:2] == (0, f"sqlite:///{path}: made, with schema {schema.newest()}\n")
    assert path.exists()


# --- check ---------------------------------------------------------------------------------------


def test_check(call: Call, runs: list[str]) -> None:
    """Exit code 0 and one line, or 3 and a line for each thing that is wrong."""
    code, out, _ = call("store", "check")
    assert code == 0
    assert out.endswith("nothing is wrong\n")
    assert call("store", "check", "--json")[1] == "[]\n"
    store = open_store()
    new_run(store, "silent", host="elsewhere", pid=7)
    code, out, err = call("store", "check")
    assert code == 3
    assert out.startswith("stale      Run name-silent says Running, but its process 7 on elsewhere")
    assert "millrace runs ls" in err
    code, out, _ = call("store", "check", "--json")
    assert (code, [one["run_id"] for one in json.loads(out)]) == (3, ["silent"])


def test_check_of_a_damaged_file(call: Call, runs: list[str], millrace_home: Path) -> None:
    """SQLite's own check is part of it."""
    open_store().close()
    path = millrace_home / "millrace.db"
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute("DELETE FROM sqlite_master WHERE name = 'run_name'")
    raw.close()
    code, out, _ = call("store", "check")
    assert code == 3
    assert out.startswith("integrity ")


# --- export --------------------------------------------------------------------------------------


def test_export(call: Call, runs: list[str], tmp_path: Path) -> None:
    """Runs, oldest first, each followed by its nodes, task runs and log lines."""
    code, out, _ = call("store", "export")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["id"] for line in lines if line["type"] == "run"] == runs
    for n, run_id in enumerate(runs, 1):
        own = [line for line in lines if line.get("run") == run_id]
        assert [line["type"] for line in own] == ["node", *["task_run"] * n, *["log"] * n]
        assert [line["state"] for line in own if line["type"] == "task_run"] == ["Completed"] * n
        assert [line["message"] for line in own if line["type"] == "log"] == [str(k) for k in range(n)]
    code, out, err = call("store", "export", "--run", runs[1], "--only-runs", "-o", "runs.jsonl")
    assert (code, out) == (0, "")
    assert "written to runs.jsonl" in err
    (line,) = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == runs[1]
    assert stat.S_IMODE((tmp_path / "runs.jsonl").stat().st_mode) == 0o600


def test_export_filters(call: Call, runs: list[str]) -> None:
    """By age, date and flow; what is no age is a wrong usage."""
    count = {
        args: len(call("store", "export", "--only-runs", *args)[1].splitlines())
        for args in [("--since", "1h"), ("--since", "2999-01-01"), ("--flow", "other"), ("--run", "latest")]
    }
    assert list(count.values()) == [3, 0, 0, 1]
    code, _, err = call("store", "export", "--since", "yesterday")
    assert (code, "30d" in err) == (2, True)


# --- prune ---------------------------------------------------------------------------------------


def results(home: Path) -> set[str]:
    return {path.parent.name for path in home.rglob("*.result")}


def test_prune(call: Call, runs: list[str], millrace_home: Path) -> None:
    """A dry run changes nothing; then the runs go with their result files, and the rest is as it was."""
    assert results(millrace_home) == set(runs)
    code, out, _ = call("store", "prune", "--keep", "1", "--dry-run")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [["would", "delete"]] * 2
    assert results(millrace_home) == set(runs)
    code, out, _ = call("store", "prune", "--keep", "1", "--json")
    told = json.loads(out)
    assert (code, told["deleted"], told["dry_run"]) == (0, [runs[1], runs[0]], False)
    assert told["files"] >= 2
    assert results(millrace_home) == {runs[2]}
    assert [run.run_id for run in open_store().runs()] == [runs[2]]
    assert call("store", "check")[0] == 0
    code, out, err = call("store", "prune", "--older-than", "1h")
    assert (code, out, err) == (0, "", "0 runs and 0 result files deleted\n")


def test_prune_asks_on_a_terminal(call: Call, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No is the default; --yes does not ask."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    answers = iter(["", "y"])
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt: next(answers))
    assert call("store", "prune", "--keep", "2")[0] == 130
    assert len(open_store().runs()) == 3
    assert call("store", "prune", "--keep", "2")[0] == 0
    assert len(open_store().runs()) == 2
    assert call("store", "prune", "--keep", "1", "--yes")[0] == 0
    assert len(open_store().runs()) == 1


def test_prune_wants_to_know_what(call: Call, runs: list[str]) -> None:
    """Without a criterion nothing goes."""
    code, _, err = call("store", "prune")
    assert (code, "--older-than" in err) == (2, True)
    store = open_store()
    new_run(store, "live", host="elsewhere", pid=7)
    store.append("live", 1, [RunMoved(RunState.RUNNING, 1.0)])
    assert call("store", "prune", "--keep", "0")[0] == 0
    assert [run.run_id for run in store.runs()] == ["live"]
