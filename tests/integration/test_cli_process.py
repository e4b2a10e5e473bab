"""The command line as real processes: interrupts, kills, other processes, a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FLOWS = """
import os, time
from pathlib import Path
from orchestration import flow, get_run_logger, task

HERE = Path(__file__).parent

def note(what):
    with open(os.open(HERE / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND), "w") as out:
        out.write(f"{what}\\n")

def stop_at(gate):
    while not (HERE / gate).exists():
        time.sleep(0.01)

@task(batch=1)
def step(x, held_from):
    note(x)
    get_run_logger().info("step %s", x)
    if x >= held_from:
        stop_at("go")
    return x * 10

@flow
def steps(n: int = 6, held_from: int = 3):
    return step.map(range(n), held_from=held_from)

@task
def stubborn():
    note("stubborn")
    while not (HERE / "go").exists():
        try:
            time.sleep(0.01)
        except BaseException:
            pass

@flow
def hard():
    return stubborn.submit()

@task
def nap(x):
    time.sleep(0.02)
    if x % 10 == 7:
        raise ValueError(f"bad {x}")
    return x

@flow
def naps(n: int = 60):
    nap.map(range(n)).wait()
"""

MILLRACE = [sys.executable, "-c", "from orchestration.cli import main; main()"]
PATIENCE_SECONDS = 60.0
_tick = threading.Event()


def until(what: Callable[[], Any]) -> Any:
    """Wait for something that another process does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not happen"
        _tick.wait(0.02)
    return value


class Place:
    """A folder with flows and a store, and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("MILLRACE_")}
        self.env |= {"MILLRACE_HOME": str(folder / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
        self.started: list[subprocess.Popen[str]] = []
        self.prefix: list[str] = []
        (folder / "flows.py").write_text(FLOWS)

    def start(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command; stdout and stderr are pipes."""
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": self.folder}
        process = subprocess.Popen([*self.prefix, *MILLRACE, *args], **{"env": self.env, **given, **options})
        self.started.append(process)
        return process

    def call(self, *args: str, **options: Any) -> tuple[int, str, str]:
        """Run a command to its end: (exit code, stdout, stderr)."""
        process = self.start(*args, **options)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, out, err

    def run(self, name: str) -> dict[str, Any]:
        """What is recorded of a run."""
        code, out, err = self.call("runs", "show", name, "--json")
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def notes(self) -> list[str]:
        file = self.folder / "notes"
        return file.read_text().split() if file.exists() else []

    def go(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


def held(place: Place, *more: str, notes: int = 6) -> subprocess.Popen[str]:
    """Start a run named `held` and return when it stands at its gate."""
    process = place.start(
        "run", "flows.py:steps", "--name", "held", "--runner", "threads", "--workers", "4", *more
    )
    until(lambda: process.poll() is not None or len(place.notes()) >= notes)
    assert process.poll() is None, process.communicate()
    return process


def test_one_interrupt_cancels(place: Place) -> None:
    """The record says Cancelled, the exit code 130, and no process is left."""
    process = held(place)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "held Cancelled in" in err
    record = place.run("held")
    assert record["state"] == "Cancelled"
    assert set(record["counts"]) == {"Completed", "Cancelled"}


def test_sigterm_ends_a_run_in_order(place: Place) -> None:
    """So that a service manager's stop leaves a true record."""
    process = held(place)
    process.terminate()
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert place.run("held")["state"] == "Cancelled"


def test_a_second_interrupt_stops_what_cannot_be_cancelled(place: Place) -> None:
    """Code that swallows its cancellation holds up the first Ctrl-C, not the second."""
    process = place.start("run", "flows.py:hard", "--name", "hard")
    until(lambda: place.notes() == ["stubborn"])
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    told = next((line for line in process.stderr if "press Ctrl-C again" in line), None)
    assert told is not None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(timeout=PATIENCE_SECONDS)
    assert time.monotonic() - began < 30
    assert process.returncode in (130, 4, -signal.SIGINT)  # the last: it was ending when the second one came
    assert place.run("hard")["state"] in ("Cancelled", "Crashed")


def test_a_killed_run_is_crashed_and_can_be_resumed(place: Place) -> None:
    """Task runs whose results were stored are not run again; those that ran are."""
    process = held(place, "--persist", "-p", "n=6")
    until(lambda: place.run("held")["counts"].get("Completed") == 3)
    process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)
    code, out, _ = place.call("runs", "ls")
    assert code == 0
    assert out.splitlines()[1].split()[:3] == ["held", "steps", "Crashed"]
    assert sorted(place.notes()) == ["0", "1", "2", "3", "4", "5"]
    place.go()
    code, out, err = place.call("runs", "resume", "held", "--json")
    record = json.loads(out)
    assert code == 0, err
    assert record["result"] == [0, 10, 20, 30, 40, 50]
    assert (record["state"], record["processes"] > 1) == ("Completed", True)
    assert sorted(place.notes()) == ["0", "1", "2", "3", "3", "4", "4", "5", "5"]


def test_cancel_from_another_process(place: Place) -> None:
    process = held(place)
    code, out, _ = place.call("runs", "cancel", "held", "--wait")
    assert (code, out) == (0, "held has ended: Cancelled\n")
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130


def test_pause_and_resume_from_another_process(place: Place) -> None:
    """Paused: nothing new starts, and people can see why."""
    process = held(place, "-p", "held_from=0", "-p", "n=20", notes=4)
    assert place.call("runs", "pause", "latest")[0] == 0
    until(lambda: place.run("held")["counts"].get("Paused"))
    assert place.call("runs", "ls")[1].splitlines()[1].split()[2] == "Paused"
    place.go()
    until(lambda: not {"Running", "Submitted"} & set(place.run("held")["counts"]))
    assert process.poll() is None
    assert len(place.notes()) < 20
    assert place.call("runs", "resume", "held")[1] == "held goes on\n"
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert len(place.notes()) == 20


def test_a_living_run_is_not_resumed(place: Place) -> None:
    held(place)
    code, _, err = place.call("runs", "resume", "held")
    assert code == 2
    assert "there is nothing to resume" in err


def test_logs_are_followed_and_watched_to_the_end(place: Place) -> None:
    """`logs -f` prints while the run runs; both commands end with it."""
    process = held(place)
    follower = place.start("runs", "logs", "held", "-f")
    watcher = place.start("runs", "watch", "held")
    assert follower.stdout is not None
    first = follower.stdout.readline()
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    step\[\d]  step \d\n", first), first
    assert process.poll() is None
    place.go()
    rest = follower.stdout.read()  # communicate() would not see what readline() has buffered
    assert follower.wait(timeout=PATIENCE_SECONDS) == 0
    assert len(rest.splitlines()) == 5
    shown, _ = watcher.communicate(timeout=PATIENCE_SECONDS)
    assert watcher.returncode == 0
    assert "held Completed after" in shown
    process.communicate(timeout=PATIENCE_SECONDS)


def test_a_reader_that_leaves_early_is_no_error(place: Place) -> None:
    """`millrace runs ls | head -1` prints no traceback."""
    place.call("run", "flows.py:steps", "-p", "n=1")
    read, write = os.pipe()
    process = place.start("runs", "show", "latest", "--json", stdout=write)
    os.close(write)
    os.close(read)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err) == (0, "")


@pytest.mark.ray
def test_an_unreachable_cluster_is_a_backend_error(place: Place) -> None:
    """Exit code 3, one message with the address, a run that is recorded as Crashed."""
    args = ["--runner", "ray", "--address", "127.0.0.1:1", "--name", "far"]
    pytest.importorskip("ray")
    code, _, err = place.call("run", "flows.py:steps", *args)
    assert code == 3
    assert "127.0.0.1:1" in err
    assert "Traceback" not in err
    assert place.run("far")["state"] == "Crashed"


def test_a_store_that_cannot_be_written(place: Place, require: Callable[[str, object], None]) -> None:
    """Running says what to do; looking too, where SQLite cannot read without writing its index."""
    place.call("run", "flows.py:steps", "-p", "n=1", "--name", "first", "--quiet")
    if os.geteuid() == 0:  # permissions do not stop root, unless it gives up the right to pass over them
        require("setpriv", shutil.which("setpriv"))
        place.prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    home = place.folder / "home"
    for path in (*home.iterdir(), home):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        code, _, err = place.call("run", "flows.py:steps", "-p", "n=1")
        assert code == 3, err
        assert "cannot be written" in err
        assert "Traceback" not in err
        code, out, err = place.call("runs", "ls")
        assert "first" in out if code == 0 else "cannot be written" in err
    finally:
        home.chmod(0o755)


def terminal(
    place: Place, *args: str, on_output: Callable[[int, str], None] | None = None, **environ: str
) -> tuple[int, str]:
    """Run a command on a terminal of 80 columns: (exit code, everything that was written to it)."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {**place.env, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environ}
    env.pop("NO_COLOR", None)
    std = {"stdin": slave, "stdout": slave, "stderr": slave, "text": None}
    process = place.start(*args, **std, env=env, start_new_session=True)
    os.close(slave)
    seen = b""
    readable = selectors.DefaultSelector()  # not select(): its file descriptors end at 1024
    readable.register(master, selectors.EVENT_READ)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if not readable.select(0.2):
            continue
        try:
            part = os.read(master, 65536)
        except OSError:  # its other end is closed
            break
        if not part:
            break
        seen += part
        if on_output is not None:
            on_output(process.pid, seen.decode(errors="replace"))
    os.close(master)
    return process.wait(timeout=PATIENCE_SECONDS), seen.decode()


ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_the_live_display_at_80_columns(place: Place) -> None:
    """Progress with a bar, no line wider than the terminal, the cursor visible at the end."""
    code, seen = terminal(
        place, "run", "flows.py:naps", "-p", "n=300", "--name", "live", "--runner", "threads"
    )
    assert code == 0, seen
    assert "━" in seen
    text = ESCAPE.sub("", seen)
    lines = re.split(r"[\r\n]+", text)
    assert any(re.search(r"nap +━+─* +\d+/300 .* left", line) for line in lines), text
    assert [line for line in lines if len(line) > 80 and len(line.split()) > 1 and "File" not in line] == []
    assert any(line.startswith("live Completed in") for line in lines)
    assert "270 completed, 30 failed" in text
    assert "ValueError: bad 7 (30 task runs, first nap[7], flows.py:" in text
    assert seen.rfind("\x1b[?25h") >= seen.rfind("\x1b[?25l")


def test_an_interrupt_leaves_the_terminal_clean(place: Place) -> None:
    """Ctrl-C in the middle of the live display."""
    struck: list[int] = []

    def strike(pid: int, text: str) -> None:
        if "━" in text and not struck:
            struck.append(pid)
            os.kill(pid, signal.SIGINT)

    code, seen = terminal(place, "run", "flows.py:naps", "-p", "n=5000", "--name", "live", on_output=strike)
    assert code == 130, seen
    assert "live Cancelled" in ESCAPE.sub("", seen)
    assert "Traceback" not in seen
    assert seen.rfind("\x1b[?25h") >= seen.rfind("\x1b[?25l")


def test_watching_on_a_terminal(place: Place) -> None:
    """How far all of it is, each node, and what runs where."""
    process = held(place)

    def open_gate(_pid: int, text: str) -> None:
        if "3/6" in text and "step[5]" in text:
            place.go()

    code, seen = terminal(place, "runs", "watch", "held", on_output=open_gate)
    text = ESCAPE.sub("", seen)
    assert code == 0
    assert "held Completed after" in text
    assert re.search(r"^held  Running  0:\d\d  3/6", text, re.MULTILINE), text
    assert "3 running on 3 workers" in text
    assert re.search(r"step +━+─+ +3/6", text), text
    assert re.search(r"millrace-slot-\d +\d\S+  step\[3\]", text), text
    process.communicate(timeout=PATIENCE_SECONDS)


def test_watching_failures_on_an_ascii_terminal(place: Place) -> None:
    """LANG=C: nothing but ASCII; the errors are told with their number; no line is wider than the terminal."""
    process = place.start("run", "flows.py:naps", "-p", "n=500", "--name", "naps", "--quiet")
    until(lambda: "naps" in place.call("runs", "ls")[1])
    code, seen = terminal(place, "runs", "watch", "naps", LC_ALL="C")
    text = ESCAPE.sub("", seen)
    assert code == 0
    assert text.isascii(), text
    assert re.search(r"nap +#+-* +\d+/500 ", text), text
    assert "ValueError: bad 7 (50 task runs, first nap[7], flows.py:" in text
    assert [line for line in re.split(r"[\r\n]+", text) if len(line) > 80] == []
    process.communicate(timeout=PATIENCE_SECONDS)


def test_an_interrupt_ends_the_watching_only(place: Place) -> None:
    """Quietly, with its exit code; the run goes on."""
    process = held(place)
    struck: list[int] = []

    def strike(pid: int, text: str) -> None:
        if "step[3]" in text and not struck:
            struck.append(pid)
            os.kill(pid, signal.SIGINT)

    code, seen = terminal(place, "runs", "watch", "held", on_output=strike)
    assert code == 130, seen
    assert not re.search("Traceback|interrupted|Cancel", seen), seen
    assert seen.rfind("\x1b[?25h") >= seen.rfind("\x1b[?25l")
    assert place.run("held")["state"] == "Running"
    watcher = place.start("runs", "watch", "held")
    assert watcher.stdout is not None
    line = watcher.stdout.readline()  # in a pipe: whole lines, no control codes
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d held Running 3/6, 3 workers busy, longest with step\[\d\] for .*: step 3/6\n", line
    ), line
    watcher.send_signal(signal.SIGINT)
    assert watcher.communicate(timeout=PATIENCE_SECONDS) == ("", "")
    assert watcher.returncode == 130
    place.go()
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0


def test_a_script_that_is_interrupted(place: Place) -> None:
    """A flow called from a plain script: the caller is interrupted, after the record is written."""
    script = "from flows import steps\nsteps.with_options(flow_run_name='held')()\nprint('went on')\n"
    (place.folder / "script.py").write_text(script)
    command = [sys.executable, "script.py"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=place.folder, env=place.env, stdout=pipe, stderr=pipe, text=True)
    place.started.append(process)
    until(lambda: len(place.notes()) >= 6)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == -signal.SIGINT or process.returncode == 130
    assert out == ""
    assert "KeyboardInterrupt" in err
    assert place.run("held")["state"] == "Cancelled"
