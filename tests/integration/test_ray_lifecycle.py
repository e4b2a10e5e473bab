"""Where RayTaskRunner's Ray comes from and what is left of it. Every test uses processes of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

PREAMBLE = """
import os, signal, sys, time
from runners import codec
from runners.arguments import Arguments, Column
from runners.base import QueueSink
from runners.body import TaskBody
from runners.context import RunContext
from runners.messages import *
from runners.ray import RayTaskRunner

SMALL = {"num_cpus": 2, "object_store_memory": 100_000_000}
numbers = iter(range(1, 1000))

def batch(fn, value):
    stage = Stage(1, "t", codec.dump_payload(TaskBody(fn, "t"), cached=True),
                  codec.dump_payload(Arguments((Column((value,)),))), (1,))
    context = codec.dump_payload(RunContext("r", "n", "f"), cached=True)
    return Batch("r", next(numbers), (0,), (stage,), context)

def until(runner, kind):
    while not isinstance(event := runner.sink.get(60), kind):
        pass
    return event

def call(runner, fn, value):
    made = batch(fn, value)
    runner.submit([made])
    until(runner, BatchFinished)
    return runner.fetch(made.batch_id, 0, [0])[0]

def open_runner(*args, **kwargs):
    runner = RayTaskRunner(*args, **kwargs)
    runner.start(QueueSink())
    return runner
"""


@dataclass
class Played:
    """How a script ended."""

    out: str
    err: str
    code: int


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short temporary folder (a socket's path has 107 bytes), after which no process of it may be left."""
    made = Path(tempfile.mkdtemp(prefix="mr", dir="/tmp"))
    try:
        yield made
        assert not list(made.glob("millrace-ray-*"))
        assert not processes_of(made)
    finally:
        for pid in processes_of(made):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(made, ignore_errors=True)


def processes_of(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in text and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """`start(script, NAME=value)`: a Python process whose temporary files are in the folder."""
    started = []

    def launch(script: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + script],
            env={**environment(folder), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def environment(folder: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    # a token of this test: it neither needs nor makes the user's
    token = uuid.uuid5(uuid.NAMESPACE_OID, str(folder)).hex
    return {**clean, "TMPDIR": str(folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def end_of(process: subprocess.Popen[str]) -> Played:
    out, err = process.communicate(timeout=150)
    return Played(out, err, process.returncode)


def play(start: Start, script: str, **env: str) -> str:
    """Run a script that must succeed and say nothing on stderr."""
    played = end_of(start(script, **env))
    assert played.code == 0, played.err
    assert played.err == "", played.err
    return played.out


def wait_gone(folder: Path, seconds: float, *names: str) -> None:
    """Wait for the end of a folder's processes, or of those with the given names."""
    end = time.monotonic() + seconds
    while left := [pid for pid in processes_of(folder) if not names or name_of(pid) in names]:
        assert time.monotonic() < end, [name_of(pid) for pid in left]
        time.sleep(0.1)  # another process's end cannot be waited for otherwise


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_a_local_ray_ends_with_the_runner(start: Start) -> None:
    """Nothing is printed, and nothing is left: neither after `close` nor after a second round."""
    script = """
for _ in range(2):
    runner = open_runner(init_kwargs=SMALL)
    assert call(runner, abs, -7) == 7
    folder = runner._desk.session.folder
    assert folder.is_dir()
    runner.close()
    runner.close()
    assert not folder.exists()
"""
    assert play(start, script) == ""


def test_a_program_that_forgets_to_close(start: Start) -> None:
    """The end of the program ends its Ray."""
    play(start, "runner = open_runner(init_kwargs=SMALL); assert call(runner, abs, -7) == 7")


def test_a_program_that_raises(start: Start, folder: Path) -> None:
    """An error that ends the program ends its Ray."""
    played = end_of(start("runner = open_runner(init_kwargs=SMALL)\nraise RuntimeError('over')"))
    assert played.code == 1
    assert played.err.rstrip().endswith("RuntimeError: over")
    wait_gone(folder, 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_program(start: Start, folder: Path, number: signal.Signals) -> None:
    """Ctrl-C (to all processes of the terminal) and SIGTERM in the middle of a batch leave nothing behind."""
    process = start("""
runner = open_runner(init_kwargs=SMALL)
runner.submit([batch(time.sleep, 60)])
until(runner, BatchStarted)
print("running", flush=True)
time.sleep(60)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert end_of(process).code != 0
    wait_gone(folder, 10)


def test_a_killed_program(start: Start, folder: Path) -> None:
    """Some seconds after kill -9 nothing is left of Ray, neither processes nor the folder."""
    process = start("runner = open_runner(init_kwargs=SMALL); print('up', flush=True); time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.kill()
    wait_gone(folder, 20)
    assert not list(folder.glob("millrace-ray-*"))


def test_a_killed_program_and_who_would_clean_up(start: Start, folder: Path) -> None:
    """After kill -9 Ray's servers end by themselves; the next run removes the folder and what hangs on."""
    process = start("""
from runners import ray_folder
runner = open_runner(init_kwargs=SMALL)
(_, watcher), = ray_folder._held.values()
print(watcher.pid, flush=True)
time.sleep(60)
""")
    assert process.stdout is not None
    os.kill(int(process.stdout.readline()), signal.SIGKILL)
    process.kill()
    wait_gone(folder, 30, "gcs_server", "raylet")
    assert list(folder.glob("millrace-ray-*"))
    play(start, "from runners.ray_folder import make_folder, remove_folder; remove_folder(make_folder())")


def test_a_ray_of_the_user_is_left_alone(start: Start) -> None:
    """A Ray that the program has initialised is used, and is still there afterwards."""
    script = """
import ray, logging
ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR,
         _temp_dir=os.environ["TMPDIR"] + "/r", **SMALL)
runner = open_runner()
assert call(runner, abs, -7) == 7
runner.close()
assert ray.is_initialized()
assert ray.get(ray.remote(lambda: 3).remote()) == 3
"""
    play(start, script)


def test_two_runners_share_a_local_ray(start: Start) -> None:
    """The Ray ends with the last of its runners, in whatever order they close."""
    script = """
import ray
first = open_runner(init_kwargs=SMALL)
second = open_runner()
first.close()
assert call(second, abs, -7) == 7
second.close()
assert not ray.is_initialized()
"""
    play(start, script)


def test_a_program_that_shuts_ray_down(start: Start) -> None:
    """Using a Ray that is gone is an error, and starts no second one by itself."""
    script = """
import ray
from runners.errors import ResultLostError
runner = open_runner(init_kwargs=SMALL)
assert call(runner, abs, -7) == 7
ray.shutdown()
runner.submit([batch(abs, 1)])
told = {}
while not told.keys() >= {BatchLost, RunnerFailed}:
    event = runner.sink.get(60)
    told[type(event)] = event
for kind in (BatchLost, RunnerFailed):
    assert "shut Ray down" in told[kind].reason
try:
    runner.fetch(1, 0, [0])
    raise AssertionError
except ResultLostError as error:
    assert "shut Ray down" in str(error)
runner.close()
assert not ray.is_initialized()
"""
    play(start, script)


def test_an_unreachable_address(start: Start) -> None:
    """Nobody there, or somebody else: an error in bounded time that names the address and the cure."""
    script = """
import socket
from runners.errors import ConnectionFailedError
free, mute = socket.socket(), socket.socket()
for made in (free, mute):
    made.bind(("127.0.0.1", 0))
mute.listen(10)
nobody, somebody = (f"127.0.0.1:{made.getsockname()[1]}" for made in (free, mute))
free.close()
for address, cure in ((nobody, "ray start --head"), ("ray://" + nobody, "ray start --head"), (somebody, "6379")):
    began = time.monotonic()
    try:
        open_runner(address=address)
    except ConnectionFailedError as error:
        assert address in str(error) and cure in str(error), error
    else:
        raise AssertionError(address)
    assert time.monotonic() - began < 30
"""
    assert end_of(start(script)).code == 0


@pytest.mark.parametrize(("part", "soon"), [("gcs_server", False), ("gcs_server", True), ("raylet", False)])
def test_a_local_ray_that_dies_is_replaced(start: Start, part: str, soon: bool) -> None:
    """Another one is started, the flow goes on, what was lost is made again and recorded, and nothing is left.

    Nothing waits for a head that dies before the first batch either: Ray ends a process that does so for a minute.
    """
    script = f"""
import ray
from orchestration import flow, task
from orchestration.api.sessions import current_session

@task
def double(n: int) -> int:
    time.sleep(0.02)
    return 2 * n

@task
def total(parts: list[int]) -> int:
    return sum(parts)

def kill():
    from ray._private import worker
    os.kill(worker._global_node.all_processes[{part!r}][0].process.pid, signal.SIGKILL)

@flow(task_runner=RayTaskRunner(init_kwargs=SMALL))
def broken_off():
    {"kill()" if soon else ""}
    first = double.map(range(40))
    first.wait()
    {"kill()" if not soon else ""}
    summed = total.submit(first)
    return summed.result(), sum(double.map(range(40)).result())

if __name__ == "__main__":
    print(broken_off())
    assert not ray.is_initialized()
"""
    played = end_of(start(script, MILLRACE_STORE="memory"))
    assert played.code == 0, played.err
    assert played.out.splitlines()[-1] == "(1560, 1560)", played
    assert "another one is started in its place" in played.err


def test_both_runners_go_on_where_their_local_ray_dies(start: Start) -> None:
    """One starts another Ray, the other joins it; it ends with the last of them."""
    script = """
import ray
first = open_runner(init_kwargs=SMALL)
second = open_runner()
for runner in (first, second):
    assert call(runner, abs, -7) == 7
from ray._private import worker
os.kill(worker._global_node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
for runner in (first, second):
    gone = until(runner, ResultsLost)
    while until(runner, SlotsChanged).slots != 2:
        pass
first.close()
assert call(second, abs, -8) == 8
second.close()
assert not ray.is_initialized()
"""
    assert end_of(start(script)).code == 0


def test_a_local_ray_started_by_a_thread_that_ends(start: Start) -> None:
    """It is there for as long as its runner is."""
    script = """
import threading
runner = RayTaskRunner(init_kwargs=SMALL)
thread = threading.Thread(target=runner.start, args=(QueueSink(),))
thread.start()
thread.join()
assert call(runner, abs, -7) == 7
runner.close()
"""
    play(start, script)


# --- clusters started as separate processes --------------------------------------------------------


@pytest.fixture
def head(folder: Path) -> Iterator[str]:
    """The address of a `ray start --head` of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        f"--port={port}",
        "--num-cpus=2",
        "--object-store-memory=100000000",
        "--include-dashboard=false",
        "--disable-usage-stats",
        f"--temp-dir={folder}/cluster",
    ]
    try:
        done = subprocess.run(
            command, env=environment(folder), capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        yield f"127.0.0.1:{port}"
    finally:
        for pid in processes_of(folder):
            os.kill(pid, signal.SIGKILL)
        wait_gone(folder, 10)


def test_a_cluster_by_its_address(start: Start, head: str) -> None:
    """A cluster is used by address or RAY_ADDRESS, survives its users, and names what it cannot honour."""
    script = f"""
from runners.errors import RunnerOptionError, UserError
for address in ({head!r}, None):
    runner = open_runner(address=address)
    assert call(runner, abs, -7) == 7
    assert {head!r} in runner.describe() and "2 CPUs" in runner.describe(), runner.describe()
    try:
        runner.check_options({{"num_cpus": 64}})
        raise AssertionError
    except RunnerOptionError as error:
        assert "64" in str(error)
    try:
        open_runner(address="127.0.0.1:1")
        raise AssertionError
    except UserError as error:
        assert "one connection per process" in str(error)
    runner.close()
"""
    play(start, script, RAY_ADDRESS=head)


def test_a_wrong_token(start: Start, head: str) -> None:
    """A cluster that wants another token is an error that says how to give it."""
    script = f"""
from runners.errors import ConnectionFailedError
try:
    open_runner(address={head!r})
    raise AssertionError
except ConnectionFailedError as error:
    assert "RAY_AUTH_TOKEN" in str(error), error
"""
    assert end_of(start(script, RAY_AUTH_TOKEN=uuid.uuid4().hex)).code == 0


def test_workers_of_another_version(start: Start, head: str) -> None:
    """Workers without Millrace, or with another version of it, are found when the runner connects."""
    script = f"""
from runners import ray_cluster, ray_worker
from runners.errors import VersionMismatchError
def fails(hint):
    try:
        open_runner(address={head!r})
        raise AssertionError
    except VersionMismatchError as error:
        assert hint in str(error), error
real, ray_worker.own_version = ray_worker.own_version, lambda: "0.0.1/1"
fails("0.0.1")
ray_worker.own_version = real
def make_probe():
    def probe():
        import sys
        return f"{{sys.version_info.major}}.{{sys.version_info.minor}}", None
    return probe
ray_cluster._make_probe = make_probe
fails("pip install")
"""
    assert end_of(start(script)).code == 0


@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_cluster_that_dies(start: Start, head: str, folder: Path, part: str) -> None:
    """The loss of the head or of this machine's Ray is told within ten seconds, and `close` returns."""
    process = start(f"""
runner = open_runner(address={head!r})
runner.submit([batch(time.sleep, 60)])
until(runner, BatchStarted)
print("running", flush=True)
print(until(runner, RunnerFailed).reason)
runner.close()
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    for pid in processes_of(folder):
        if name_of(pid) == part:
            os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    played = end_of(process)
    assert "does not answer" in played.out
    assert "ray start --head" in played.out
    assert "millrace runs resume" in played.out
    assert played.code == 0, played.err
    assert time.monotonic() - killed < 25
