"""`millrace runs`, `limit`, `doctor`, `version`: what they print for people and for scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.cli import checks
from orchestration.cli.app import cli
from orchestration.core.states import RunState
from orchestration.errors import StoreFullError
from orchestration.stores import open_store
from orchestration.stores.base import RunRow
from orchestration.stores.liveness import this_host

FLOWS = """
import os
from orchestration import Skip, flow, get_run_logger, task

@task(batch=1)
def note(x, file):
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "w") as out:
        out.write(f"{x}\\n")
    get_run_logger().warning("noted %s", x)
    if x == 3 and not os.path.exists(file + ".fixed"):
        raise ValueError(f"cannot note {x}")
    if x == 4:
        raise Skip("four")
    return x * 10

@flow
def notes(file: str, n: int = 3):
    return note.map(range(n), file=file)
"""

Call = Callable[..., tuple[int, str, str]]
RUN_KEYS = {
    *("id", "name", "flow", "state", "state_name", "message", "created", "started", "ended", "seconds"),
    *(
        "heartbeat",
        "runner",
        "engine_url",
        "retries",
        "retry_seconds",
        "entrypoint",
        "version",
        "tags",
        "parameters",
        "parent_id",
        "host",
        "pid",
    ),
    *("processes", "counts", "error"),
}


@pytest.fixture(autouse=True)
def flow_file(tmp_path: Path) -> None:
    (tmp_path / "notes.py").write_text(FLOWS)


def run_notes(call: Call, file: Path, name: str, n: int = 3, *more: str) -> int:
    args = ["-p", f'file="{file}"', "-p", f"n={n}", "--name", name, "--quiet", *more]
    return call("run", "notes.py:notes", *args)[0]


def test_an_empty_store_says_what_to_do(call: Call) -> None:
    code, out, err = call("runs", "ls")
    assert (code, out) == (0, "")
    assert "millrace run FILE.py:FLOW" in err


def test_ls_is_a_table_that_pipes_well(call: Call, tmp_path: Path) -> None:
    """Newest first, plain text, and at most 80 columns for usual names."""
    run_notes(call, tmp_path / "f", "good")
    run_notes(call, tmp_path / "f", "bad", 5)
    _, out, _ = call("runs", "ls")
    head, first, second = out.splitlines()
    assert head.split() == ["RUN", "FLOW", "STATE", "TASK", "RUNS", "STARTED", "TOOK"]
    assert first.split()[:3] == ["bad", "notes", "Failed"]
    assert "5, 1 failed" in first
    assert second.split()[:4] == ["good", "notes", "Completed", "3"]
    assert all(len(line) <= 80 and line.isascii() for line in out.splitlines())


def test_ls_json_has_stable_keys(call: Call, tmp_path: Path) -> None:
    run_notes(call, tmp_path / "f", "good")
    (record,) = json.loads(call("runs", "ls", "--json")[1])
    assert set(record) == RUN_KEYS
    assert record["counts"] == {"Completed": 3}
    assert record["parameters"]["n"] == 3


def test_ls_filters(call: Call, tmp_path: Path) -> None:
    run_notes(call, tmp_path / "f", "good")
    run_notes(call, tmp_path / "f", "bad", 4)

    def names(*args: str) -> list[str]:
        return [row["name"] for row in json.loads(call("runs", "ls", "--json", *args)[1])]

    assert names("--state", "failed") == ["bad"]
    assert names("--state", "Failed", "--state", "completed") == ["bad", "good"]
    assert names("--flow", "other") == []
    assert names("--limit", "1") == ["bad"]
    code, _, err = call("runs", "ls", "--state", "odd")
    assert code == 2
    assert "There are: Pending, Running" in err


def test_an_older_run_of_a_name_is_listed_by_its_id(call: Call, tmp_path: Path) -> None:
    """A name means its newest run, so the older one must be found in another way."""
    run_notes(call, tmp_path / "f", "same")
    run_notes(call, tmp_path / "f", "same")
    _, first, second = call("runs", "ls")[1].splitlines()
    assert first.split()[0] == "same"
    assert call("runs", "show", second.split()[0])[0] == 0


def test_show(call: Call, tmp_path: Path) -> None:
    """What was called, what became of it, which errors, what to do."""
    run_notes(call, tmp_path / "f", "bad", 5)
    code, out, _ = call("runs", "show", "latest")
    assert code == 0
    assert out.splitlines()[0] == "bad  Failed"
    assert "3 completed, 1 skipped, 1 failed" in out
    assert "note  5/5  1 failed, 1 skipped" in out.replace("    ", "  ").replace("   ", "  ")
    assert "ValueError: cannot note 3 (1 task run, notes.py:11)" in out
    assert "millrace runs resume bad" in out
    assert out.isascii()


def test_show_errors_and_task_runs(call: Call, tmp_path: Path) -> None:
    run_notes(call, tmp_path / "f", "bad", 5)
    out = call("runs", "show", "bad", "--errors")[1]
    assert 'raise ValueError(f"cannot note {x}")' in out
    out = call("runs", "show", "bad", "--state", "failed")[1]
    assert "note[3]" in out
    assert "note[2]" not in out
    shown = json.loads(call("runs", "show", "bad", "--task-runs", "--json")[1])
    assert set(shown) == RUN_KEYS | {"nodes", "errors", "task_runs"}
    assert [t["state"] for t in shown["task_runs"]] == ["Completed"] * 3 + ["Failed", "Skipped"]
    assert shown["errors"][0]["count"] == 1
    assert shown["nodes"][0]["width"] == 5


def test_story_and_logs(call: Call, tmp_path: Path) -> None:
    run_notes(call, tmp_path / "f", "bad", 5)
    out = call("runs", "story", "bad", "note", "3")[1]
    assert "attempt 1 failed" in out
    assert "cannot note 3" in out
    assert call("runs", "story", "bad", "nope")[0] == 2
    out = call("runs", "logs", "bad")[1]
    assert sorted(line.split("  ")[1] for line in out.splitlines()) == [f"noted {n}" for n in range(5)]
    assert "WARNING note[2]  noted 2" in out
    assert call("runs", "logs", "bad", "--level", "error")[1] == ""
    lines = [json.loads(line) for line in call("runs", "logs", "bad", "--json", "-f")[1].splitlines()]
    assert {line["index"] for line in lines} == {0, 1, 2, 3, 4}


def test_a_run_is_found_by_name_id_and_prefix(call: Call, tmp_path: Path) -> None:
    run_notes(call, tmp_path / "f", "good")
    (row,) = open_store().runs()
    for text in ("good", "latest", row.run_id, row.run_id[:8]):
        assert json.loads(call("runs", "show", text, "--json")[1])["id"] == row.run_id
    code, _, err = call("runs", "show", "goood")
    assert code == 2
    assert "Did you mean good" in err


def test_a_dead_process_is_seen_at_once(call: Call) -> None:
    """Looking at runs marks those as Crashed whose process is gone."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    now = time.time()
    row = RunRow("a" * 32, "ghost", "f", RunState.RUNNING, created=now, started=now, heartbeat=now)
    open_store().create_run(replace(row, host=this_host(), pid=process.pid))
    process.communicate(timeout=30)
    (shown,) = json.loads(call("runs", "ls", "--json")[1])
    assert shown["state"] == "Crashed"
    assert "ended without a word" in shown["message"]


def test_what_has_ended_cannot_be_stopped(call: Call, tmp_path: Path) -> None:
    run_notes(call, tmp_path / "f", "good")
    for verb in ("cancel", "pause"):
        code, _, err = call("runs", verb, "good")
        assert code == 2
        assert "it has ended (Completed)" in err
    code, _, err = call("runs", "resume", "good")
    assert code == 2
    assert "nothing to resume" in err


def test_watch_tells_how_a_run_ended(call: Call, tmp_path: Path) -> None:
    """Its exit code is that of the run."""
    run_notes(call, tmp_path / "f", "good")
    run_notes(call, tmp_path / "f", "bad", 4)
    assert call("runs", "watch", "good")[0] == 0
    code, out, _ = call("runs", "watch", "bad")
    assert code == 1
    assert "bad Failed after" in out


def test_retry_is_a_new_run(call: Call, tmp_path: Path) -> None:
    """All of it, with the same parameters."""
    file = tmp_path / "f"
    run_notes(call, file, "bad", 4)
    (tmp_path / "f.fixed").touch()
    code, out, _ = call("runs", "retry", "bad", "--json", "--quiet")
    assert code == 0
    record = json.loads(out)
    assert record["result"] == [0, 10, 20, 30]
    assert record["tags"][0].startswith("retry-of:")
    assert record["name"] != "bad"
    assert sorted(file.read_text().split()) == ["0", "0", "1", "1", "2", "2", "3", "3"]


def test_retry_of_what_failed_only(call: Call, tmp_path: Path) -> None:
    """What had completed with stored results does not run again, however often the run is retried."""
    file = tmp_path / "f"
    run_notes(call, file, "bad", 4, "--persist")
    assert call("runs", "retry", "bad", "--failed-only", "--quiet")[0] == 1
    (tmp_path / "f.fixed").touch()
    code, out, _ = call("runs", "retry", "latest", "--failed-only", "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["result"] == [0, 10, 20, 30]
    assert sorted(file.read_text().split()) == ["0", "1", "2", "3", "3", "3"]


def test_retry_without_stored_results_says_so(call: Call, tmp_path: Path) -> None:
    run_notes(call, tmp_path / "f", "bad", 4)
    code, _, err = call("runs", "retry", "bad", "--failed-only")
    assert code == 2
    assert "--persist" in err


def test_resume_keeps_what_was_stored(call: Call, tmp_path: Path) -> None:
    """Also if only the command line had asked for storing: `run --persist`, then plain `resume`."""
    file = tmp_path / "f"
    run_notes(call, file, "bad", 4, "--persist", "--runner", "sequential")
    (tmp_path / "f.fixed").touch()
    code, out, _ = call("runs", "resume", "bad", "--json", "--quiet")
    record = json.loads(out)
    assert code == 0
    assert (record["name"], record["processes"], record["runner"]) == ("bad", 2, "sequential")
    assert sorted(file.read_text().split()) == ["0", "1", "2", "3", "3"]


def test_who_holds_and_who_waits(call: Call) -> None:
    """With run, process and expiry; what a silent process of another host has left is told apart."""
    store = open_store()
    now = store.now()
    store.set_limit("db", 1)
    for name, host, pid in (("calm-otter", "far", 4711), ("jumpy-puppy", this_host(), os.getpid())):
        heard = now - 31 if host == "far" else now
        store.create_run(
            RunRow(name, name, "f", RunState.RUNNING, created=now, heartbeat=heard, host=host, pid=pid)
        )
        asked = {"holder": f"{name}/batch/1", "run_id": name, "epoch": 1, "label": "load[7]", "slots": 1}
        store.acquire(["db"], **asked, now=now)
    lines = call("limit", "show", "db")[1].splitlines()
    assert lines[0] == "db: 1 slot, 1 held, 1 waiting"
    assert lines[2].split()[:4] == ["left", "load[7]", "calm-otter", "1"]
    assert lines[2].endswith("4711@far")
    assert lines[3].split() == ["waits", "load[7]", "jumpy-puppy", "1", "now", "-", str(os.getpid())]
    out = call("runs", "show", "jumpy-puppy")[1]
    assert "  waits for  limit db, held by load[7]\n" in out
    assert "waits for" not in call("runs", "show", "calm-otter")[1]
    held, waits = json.loads(call("limit", "show", "db", "--json")[1])["leases"]
    assert (held["left"], held["run"], held["host"], held["pid"]) == (True, "calm-otter", "far", 4711)
    assert (waits["held"], waits["run"]) == (False, "jumpy-puppy")


def test_long_names_at_80_columns(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Task runs and runs share the room, and what tells task runs apart, their index, is not cut."""
    store = open_store()
    store.set_limit("db", 2)
    flow = "nightly-refresh-of-all-customers"
    store.create_run(RunRow("r", flow, flow, RunState.RUNNING, host="far", pid=4711, heartbeat=store.now()))
    for k in range(4):
        asked = {"holder": f"r/batch/{k}", "run_id": "r", "epoch": 1, "slots": 1}
        label = f"download_reports_of_one_customer[{k * 1111}]"
        store.acquire(["db"], **asked, label=label, now=store.now())
    for name, value in (("is_terminal", True), ("columns_of", 80), ("wants_colour", False)):
        monkeypatch.setattr(f"orchestration.cli.output.{name}", lambda stream, value=value: value)
    lines = call("limit", "show", "db")[1].splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:]] == ["holds", "holds", "waits", "waits"]
    for k, line in enumerate(lines[2:]):
        task_run, run = line.split()[1:3]
        assert task_run.startswith("downl")
        assert task_run.endswith(f"…[{k * 1111}]")
        assert run.startswith("nightly-ref")
        assert line.endswith("4711@far")


WORDY = """
from orchestration import flow, task

@task
def bad(n):
    if n:
        raise ValueError("word " * 25)

@task
def after(n): ...

@flow
def wordy():
    after.map(bad.map(range(1200))).wait()
"""


def test_sentences_break_at_80_columns(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a terminal: what `runs show` and `story` say of a long error, and the end of `watch`."""
    (tmp_path / "wordy.py").write_text(WORDY)
    name = "a-run-whose-name-is-long"
    call("run", "wordy.py:wordy", "--name", name, "--quiet")
    for part, value in (("is_terminal", True), ("columns_of", 80), ("wants_colour", False)):
        monkeypatch.setattr(f"orchestration.cli.output.{part}", lambda stream, value=value: value)
    shown, story, watched = (
        call("runs", *asked)[1].splitlines()
        for asked in (("show", name), ("story", name, "bad", "7"), ("watch", name))
    )
    end = watched[watched.index(next(line for line in watched if line.startswith(name))) :]
    for lines in (shown, story, end):  # paths stay whole, for whoever copies them
        assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line), lines
    assert "word word" in " ".join(shown)
    assert "word word" in " ".join(story)
    assert "1,199 upstream failed" in " ".join(" ".join(end).split())


def test_limits(call: Call) -> None:
    assert call("limit", "set", "db", "2")[1] == "limit db: 2 slots\n"
    assert call("limit", "set", "api", "5", "--per-second", "2.5")[0] == 0
    lines = call("limit", "ls")[1].splitlines()
    assert lines[1].split() == ["api", "2.5/s,", "5", "at", "once", "0", "0"]
    now = time.time()
    granted = {"holder": "r/batch/1", "run_id": "r", "epoch": 1, "label": "load[7] of good", "slots": 1}
    open_store().acquire(["db"], **granted, now=now)
    out = call("limit", "show", "db")[1]
    assert "db: 2 slots, 1 held, 0 waiting" in out
    assert "load[7] of good" in out
    assert max(map(len, out.splitlines())) <= 80
    shown = json.loads(call("limit", "show", "db", "--json")[1])
    assert set(shown) == {"name", "slots", "per_second", "held", "waiting", "leases"}
    assert shown["leases"][0]["run"] is None
    assert call("limit", "rm", "db")[0] == 0
    code, _, err = call("limit", "rm", "db")
    assert code == 2
    assert "There are: api." in err
    for wrong in ("0", "-1", "1.5", "many"):
        code, _, err = call("limit", "set", "db", wrong)
        assert code == 2
        assert f"'{wrong}' is no whole number of at least 1" in err
        assert "millrace limit rm db" in err


def test_doctor_of_a_sound_installation(call: Call, millrace_home: Path) -> None:
    code, out, _ = call("doctor")
    assert code == 0, out
    assert f"{millrace_home}/millrace.db" in out
    assert "sequential, threads" in out
    found = json.loads(call("doctor", "--json")[1])
    assert {"check", "status", "text"} == set(found[0])
    assert {"millrace", "orchestration", "runners", "sqlite", "store", "results"} <= {
        f["check"] for f in found
    }


def test_doctor_names_what_shadows_us(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local folder, and the distribution on PyPI that has a package of our name."""
    (tmp_path / "runners.py").touch()
    code, out, _ = call("doctor")
    assert code == 3
    assert f"{tmp_path}/runners.py hides our package" in out
    owners = {"orchestration": ["orchestration", "millrace"], "runners": ["millrace"]}
    monkeypatch.setattr(checks.metadata, "packages_distributions", lambda: owners)
    assert "pip uninstall orchestration" in call("doctor")[1]


def test_doctor_finds_a_damaged_store(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"this is no database" * 100)
    code, out, _ = call("doctor", "--store", str(tmp_path / "bad.db"))
    assert code == 3
    assert "StoreCorruptError" in out


def test_a_store_that_is_not_there_is_not_made_by_looking(call: Call, tmp_path: Path) -> None:
    code, _, err = call("runs", "ls", "--store", str(tmp_path / "typo.db"))
    assert code == 2
    assert "There is no store" in err
    assert not (tmp_path / "typo.db").exists()


def test_backend_errors_have_their_exit_code(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreFullError("No space is left.")

    monkeypatch.setattr("orchestration.stores.sqlite.SqliteStore.set_limit", full)
    code, _, err = call("limit", "set", "db", "2")
    assert code == 3
    assert err == "StoreFullError: No space is left.\n"


def test_a_defect_asks_to_be_reported(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.cli.limit.limit_json", None)
    call("limit", "set", "db", "2")
    code, _, err = call("limit", "ls", "--json")
    assert code == 5
    assert "Please report it" in err


def test_help_names_every_command_and_the_exit_codes(call: Call) -> None:
    out = call("--help")[1]
    for name in ("run", "runs", "limit", "doctor", "version"):
        assert f"  {name} " in out
    assert "130" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    for path in (("run",), ("runs",), ("runs", "show"), ("runs", "retry"), ("limit", "set"), ("doctor",)):
        assert "Usage: millrace" in call(*path, "--help")[1]


def test_a_misspelt_command_is_told_its_neighbour(call: Call) -> None:
    code, _, err = call("rns")
    assert code == 2
    assert "Did you mean 'run" in err
    assert "There are: ls, show" in call("runs", "zzzz")[2]


def test_every_command_tells_what_it_does() -> None:
    """Also what `--json` prints, where there is one."""
    import click

    def walk(group: click.Group, ctx: click.Context) -> Iterator[click.Command]:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None, name
            yield command
            if isinstance(command, click.Group):
                yield from walk(command, click.Context(command, parent=ctx))

    for command in walk(cli, click.Context(cli)):
        assert command.help, command.name
        if any("--json" in param.opts for param in command.params):
            assert "JSON" in command.help or command.name in ("resume", "retry"), command.name


def test_version(call: Call) -> None:
    assert call("version")[1].startswith("millrace ")
    assert set(json.loads(call("version", "--json")[1])) == {"millrace", "python"}
    assert os.environ.get("MILLRACE_DEBUG") == ""


def test_shell_completion(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell asks by an environment variable; the answer names the commands."""
    monkeypatch.setenv("_MILLRACE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "millrace runs c")
    monkeypatch.setenv("COMP_CWORD", "2")
    code, out, _ = call()
    assert (code, out.split()) == (0, ["plain,cancel"])
