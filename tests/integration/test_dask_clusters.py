"""The Dask runner with clusters of every origin: its own, other people's, none, and broken ones."""

from __future__ import annotations

import datetime
import gc
import ipaddress
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import LocalCluster
from distributed.comm import CommClosedError

import runners
from orchestration import flow, task
from orchestration.api.sessions import current_session
from orchestration.errors import BackendError
from runners import DaskTaskRunner, dask_desk
from runners.dask_versions import check_versions
from runners.errors import ConnectionFailedError, UserError, VersionMismatchError
from runners.messages import BatchLost, BatchStarted, Call, Outcome, RunnerFailed, SlotsChanged

pytestmark = pytest.mark.dask

ROOT = Path(runners.__file__).parents[1]
DONE = bytes([Outcome.COMPLETED])
LOCAL = {"n_workers": 1}


def double(x: Any) -> Any:
    return 2 * x


def wait_for_ever(_: Any) -> None:
    while True:
        time.sleep(0.01)


def ask(payload: bytes) -> bytes:
    from runners.context import current_item

    item = current_item.get()
    assert item is not None
    reply: bytes = item.channel.call(item.batch_id, item.execution.execution_id, item.entry, "ask", payload)
    return reply


# --- processes ---------------------------------------------------------------------------------------


class Process:
    """A Dask command in a process group of its own, whose output can be waited for."""

    def __init__(
        self, *arguments: str, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        command = [*prefix, sys.executable, "-m", "dask", *arguments]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._change = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._change:
                self.lines.append(line)
                self._change.notify_all()

    def said(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        """Wait until a line of the output matches."""

        def found() -> re.Match[str] | None:
            return next((m for line in self.lines if (m := re.search(pattern, line))), None)

        with self._change:
            assert self._change.wait_for(found, timeout), "".join(self.lines)
            match = found()
        assert match is not None
        return match

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)
        self.process.wait(10)


@contextmanager
def scheduler(*arguments: str, host: str = "127.0.0.1", prefix: tuple[str, ...] = ()) -> Iterator[str]:
    process = Process("scheduler", "--host", host, "--port", "0", "--no-dashboard", *arguments, prefix=prefix)
    try:
        yield process.said(r"Scheduler at:\s+(\S+)").group(1)
    finally:
        process.end()


@contextmanager
def worker(address: str, *arguments: str, **kwargs: Any) -> Iterator[Process]:
    process = Process("worker", address, "--nthreads", "1", "--no-dashboard", *arguments, **kwargs)
    try:
        process.said("Registered to")
        yield process
    finally:
        process.end()


@pytest.fixture(scope="module")
def foreign() -> Iterator[str]:
    """The address of a cluster of two workers that was started by commands."""
    with scheduler() as address, worker(address), worker(address, "--resources", "GPU=1"):
        yield address


@pytest.fixture
def start(open_port: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def begin(*args: Any, **kwargs: Any) -> Any:
        runner = DaskTaskRunner(*args, **kwargs)
        made.append(runner)
        return open_port(runner)

    yield begin
    for runner in made:
        runner.close()


# --- clusters of others ------------------------------------------------------------------------------


def test_an_address(foreign: str, start: Callable[..., Any]) -> None:
    """Work runs on a cluster of separate processes, with resources, live events and answers."""
    port = start(foreign)
    assert port.until(lambda e: isinstance(e, SlotsChanged)).slots == 2
    port.runner.check_options({"resources": {"GPU": 1}})
    batch = port.batch(double, [1, 2], options={"resources": {"GPU": 1}})
    assert port.run(batch).outcomes == DONE * 2
    assert port.runner.fetch(batch.batch_id, 0, [1]) == [4]
    asking = port.batch(ask, [b"question"])
    port.runner.submit([asking])
    port.runner.answer(port.of(Call, asking).call_id, b"answer")
    port.table(asking)
    assert port.runner.fetch(asking.batch_id, 0, [0]) == [b"answer"]


def test_closing_leaves_a_foreign_cluster_alone(foreign: str, start: Callable[..., Any]) -> None:
    """It serves the next run; what was left running is stopped, and nothing of the run is kept there."""
    first = start(foreign)
    stuck = [first.batch(wait_for_ever) for _ in range(2)]
    first.runner.submit(stuck)
    for batch in stuck:
        first.of(BatchStarted, batch)
    topic = first.runner._desk.topic
    first.runner.close()
    second = start(foreign)
    assert second.run(second.batch(double, [3])).outcomes == DONE

    async def gone(dask_scheduler: Any) -> None:
        import asyncio

        while topic in dask_scheduler._broker._topics:
            await asyncio.sleep(0.05)

    second.runner._desk.client.run_on_scheduler(gone)


def test_the_environment_names_a_cluster(
    foreign: str, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DASK_SCHEDULER_ADDRESS is honoured where nothing else is given."""
    import dask

    with dask.config.set({"scheduler-address": foreign}):
        port = start()
    assert foreign in port.runner.describe()


def test_a_worker_that_dies_under_a_foreign_scheduler(start: Callable[..., Any]) -> None:
    """Dask would run its tasks again by itself: the batch that ran is reported as lost instead."""
    with scheduler() as address, worker(address, "--no-nanny") as doomed:
        port = start(address)
        batch = port.batch(wait_for_ever)
        port.runner.submit([batch])
        port.of(BatchStarted, batch)
        queued = port.batch(double, [1])
        port.runner.submit([queued])
        port.runner._desk.client.sync(_idle)  # what was submitted has reached the scheduler
        doomed.end()
        lost = port.end(batch)
        assert isinstance(lost, BatchLost)
        assert lost.suspect
        with worker(address, "--no-nanny"):
            assert port.table(queued).outcomes == DONE  # it had not begun, so Dask may move it
            assert len(port.ends(batch)) == 1


async def _idle() -> None:
    import asyncio

    await asyncio.sleep(0.05)


def test_a_scheduler_that_dies(start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """All batches are lost, and when there is no way back the runner has failed."""
    monkeypatch.setattr("runners.dask_connect.PATIENCE_SECONDS", 3.0)
    with scheduler() as address:
        context = worker(address)
        context.__enter__()
        port = start(address, client_kwargs={"timeout": 2})
        batch = port.batch(wait_for_ever)
        port.runner.submit([batch])
        port.of(BatchStarted, batch)
    try:
        assert isinstance(port.end(batch), BatchLost)
        assert "scheduler" in port.until(lambda e: isinstance(e, RunnerFailed)).reason
    finally:
        context.__exit__(None, None, None)


def test_a_given_cluster_is_not_closed(open_port: Callable[..., Any]) -> None:
    """A cluster object can be used by several runs; its owner closes it."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        for _ in range(2):
            runner = DaskTaskRunner(cluster=cluster)
            port = open_port(runner)
            assert port.run(port.batch(double, [1])).outcomes == DONE
            runner.close()
        assert cluster.status.name == "running"


def test_a_cluster_without_workers_is_told_of(
    open_port: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Dask waits for workers without a word; who looks at the terminal wants to know what for."""
    from distributed import LocalCluster

    monkeypatch.setattr(dask_desk, "BARE_SECONDS", 0.5)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        runner = DaskTaskRunner(cluster=cluster)
        port = open_port(runner)
        cluster.scale(0)
        for _ in range(1000):
            if not cluster.scheduler.workers:
                break
            time.sleep(0.02)
        batch = port.batch(double, [1])
        port.runner.submit([batch])
        said = ""
        for _ in range(1000):
            said = "".join(r.getMessage() for r in caplog.records if r.name == "millrace.runners.dask")
            if said:
                break
            time.sleep(0.02)
        assert f"dask worker {cluster.scheduler_address}" in said
        cluster.scale(1)
        assert port.table(batch).outcomes == DONE
        runner.close()


# --- clusters of our own -----------------------------------------------------------------------------


def test_an_own_cluster_is_gone_after_close(open_port: Callable[..., Any]) -> None:
    """Its processes have ended even if a task did not; closing again is harmless."""
    runner = DaskTaskRunner(cluster_kwargs=LOCAL)
    port = open_port(runner)
    batch = port.batch(wait_for_ever)
    runner.submit([batch])
    pid = int(port.of(BatchStarted, batch).worker.split(":")[1])
    begin = time.monotonic()
    runner.close()
    assert time.monotonic() - begin < 8
    assert not Path(f"/proc/{pid}").exists()
    runner.close()


class InterruptedCluster(LocalCluster):
    """A cluster during whose closing Ctrl-C is pressed."""

    async def _close(self) -> None:
        main = threading.main_thread().ident
        if self.status.name == "running" and main:
            signal.pthread_kill(main, signal.SIGINT)
        await super()._close()  # type: ignore[no-untyped-call]


def test_an_interrupt_while_a_cluster_closes(open_port: Callable[..., Any]) -> None:
    """It is closed all the same, and nobody waits for it at the end of the process."""
    port = open_port(DaskTaskRunner(cluster_class=InterruptedCluster, cluster_kwargs=LOCAL))
    cluster = port.runner._desk.connection.cluster
    (pid,) = port.runner._desk.client.run(os.getpid).values()
    with pytest.raises(KeyboardInterrupt):
        port.runner.close()
    assert cluster.status.name == "closed"
    assert not Path(f"/proc/{pid}").exists()


def test_clusters_that_were_closed_take_no_memory(open_port: Callable[..., Any]) -> None:
    """A process that runs one flow after another does not grow by a scheduler for each."""
    kept = []
    for _ in range(3):
        runner = DaskTaskRunner(cluster_kwargs=LOCAL)
        port = open_port(runner)
        assert port.run(port.batch(double, [1])).outcomes == DONE
        kept.append(weakref.ref(port.runner._desk.connection.cluster.scheduler))
        runner.close()
    gc.collect()
    assert kept[0]() is None  # Dask remembers the newest for a while


def test_workers_come_back_however_long_that_takes(start: Callable[..., Any]) -> None:
    """Dask's own cluster object would give up a worker that is away for longer than a timeout."""
    import dask

    with dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}):
        port = start(cluster_kwargs=LOCAL)
        for _ in range(2):
            batch = port.batch(wait_for_ever)
            port.runner.submit([batch])
            os.kill(int(port.of(BatchStarted, batch).worker.split(":")[1]), 9)
            assert isinstance(port.end(batch), BatchLost)
        assert port.run(port.batch(double, [1])).outcomes == DONE


def test_a_cluster_class_by_name(start: Callable[..., Any]) -> None:
    """A dotted name is imported; a wrong one is an error that says so."""
    port = start(cluster_class="distributed.LocalCluster", cluster_kwargs=LOCAL)
    assert port.run(port.batch(double, [1])).outcomes == DONE
    with pytest.raises(UserError, match="cannot be imported"):
        start(cluster_class="distributed.NoSuchCluster")
    with pytest.raises(UserError, match="does not take"):
        start(cluster_class=lambda: None, cluster_kwargs={"n": 1})


def test_an_adaptive_cluster(start: Callable[..., Any]) -> None:
    """It starts without workers, is told of the demand, and grows."""
    port = start(adapt_kwargs={"minimum": 0, "maximum": 2, "interval": "100ms"})
    assert port.until(lambda e: isinstance(e, SlotsChanged)).slots == 2
    assert port.run(port.batch(double, [1])).outcomes == DONE


def test_a_copy_is_independent(start: Callable[..., Any]) -> None:
    """A template can be started again after its copy has ended."""
    template = DaskTaskRunner(cluster_kwargs=LOCAL)
    twin = template.duplicate()
    assert twin.settings == template.settings
    assert twin._token != template._token


# --- TLS ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A self-signed certificate and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "millrace-test")])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(cert_path), str(key_path)


def security_of(certificate: tuple[str, str]) -> Any:
    from distributed.security import Security

    cert, key = certificate
    names = {
        f"tls_{who}_{what}": p
        for who in ("client", "worker", "scheduler")
        for what, p in (("cert", cert), ("key", key))
    }
    return Security(tls_ca_file=cert, require_encryption=True, **names)


def test_tls_to_a_foreign_cluster(certificate: tuple[str, str], start: Callable[..., Any]) -> None:
    """With the certificate it works; without, the error names TLS in bounded time."""
    cert, key = certificate
    options = ("--protocol", "tls", "--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key)
    with scheduler(*options) as address, worker(address, *options[2:]):
        assert address.startswith("tls://")
        port = start(address, client_kwargs={"security": security_of(certificate)})
        batch = port.batch(double, [1])
        assert port.run(batch).outcomes == DONE
        assert port.runner.fetch(batch.batch_id, 0, [0]) == [2]
        with pytest.raises((ConnectionFailedError, UserError), match=r"TLS|tls"):
            start(address, client_kwargs={"timeout": 2})


def test_tls_within_an_own_cluster(certificate: tuple[str, str], start: Callable[..., Any]) -> None:
    """An own cluster takes the client's security."""
    port = start(cluster_kwargs=LOCAL, client_kwargs={"security": security_of(certificate)})
    assert "tls://" in port.runner.describe()
    assert port.run(port.batch(double, [1])).outcomes == DONE


# --- what goes wrong ---------------------------------------------------------------------------------


def test_an_unreachable_address(start: Callable[..., Any]) -> None:
    """The error comes in bounded time and names the address and the cure."""
    begin = time.monotonic()
    with pytest.raises(ConnectionFailedError, match=r"tcp://127.0.0.1:9.*dask scheduler"):
        start("tcp://127.0.0.1:9", client_kwargs={"timeout": 1})
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    "kwargs",
    [
        {"address": "tcp://x:1", "cluster_kwargs": {"n_workers": 1}},
        {"address": "tcp://x:1", "adapt_kwargs": {"maximum": 1}},
        {"address": "tcp://x:1", "cluster_class": "a.B"},
        {"cluster": object(), "cluster_kwargs": {"n_workers": 1}},
        {"client_kwargs": {"asynchronous": True}},
        {"cluster_kwargs": {"asynchronous": True}},
    ],
)
def test_contradicting_arguments(kwargs: dict[str, Any]) -> None:
    """They are an error before anything starts."""
    with pytest.raises(UserError):
        DaskTaskRunner(**kwargs)


def note(path: Path) -> None:
    with path.open("a") as file:
        file.write("began\n")


def test_a_worker_that_comes_when_all_have_died_begins_nothing_that_was_given_up(
    tmp_path: Path, start: Callable[..., Any]
) -> None:
    """Dask has it make a lost result again for its reader; the worker asks, and the reader is told of the loss."""
    starts = tmp_path / "starts"
    with scheduler() as address:
        with worker(address):
            port = start(address)
            made = port.batch(note, [starts, starts], deadline=0.0)
            assert port.run(made).outcomes == bytes([Outcome.COMPLETED, Outcome.UNSTARTED])
            blocks, reads = port.batch(wait_for_ever), port.batch(double, inputs=[made])
            port.runner.submit([blocks])
            port.of(BatchStarted, blocks)
            port.runner.submit([reads])
        assert isinstance(port.end(blocks), BatchLost)
        with worker(address):
            assert port.table(reads).outcomes == bytes([Outcome.INPUT_LOST])
    assert starts.read_text() == "began\n"


def test_a_worker_of_another_version(tmp_path: Path, start: Callable[..., Any]) -> None:
    """A worker on whose path another release comes first is refused, and both versions are named."""
    info = tmp_path / "millrace-9.9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: millrace\nVersion: 9.9.9\n", encoding="utf-8"
    )
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    with (
        scheduler() as address,
        worker(address, env={"PYTHONPATH": path}),
        pytest.raises(VersionMismatchError, match=r"9\.9\.9.*Install the same version"),
    ):
        start(address)


def test_a_worker_without_millrace(tmp_path: Path, start: Callable[..., Any]) -> None:
    """The error has the line to install it."""
    (tmp_path / "runners.py").write_text("raise ImportError('no millrace here')\n", encoding="utf-8")
    with (
        scheduler() as address,
        worker(address, env={"PYTHONPATH": str(tmp_path)}),
        pytest.raises(VersionMismatchError, match="pip install"),
    ):
        start(address)


def run_script(folder: Path, body: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(textwrap.dedent(body), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=env, timeout=timeout, check=False
    )


def test_a_script_without_main_guard(tmp_path: Path) -> None:
    """Workers import the script again: that ends in one readable error, not in a storm of processes."""
    done = run_script(
        tmp_path,
        """
        from runners import DaskTaskRunner, dask_desk
        with DaskTaskRunner(cluster_kwargs={"n_workers": 2}):
            pass
        """,
    )
    assert done.returncode != 0
    assert "if __name__ == '__main__':" in done.stderr.splitlines()[-1]


def test_flows_of_a_script_without_main_guard_do_not_run_in_workers(tmp_path: Path) -> None:
    """Those that come before the one on Dask neither, and a script that goes on after errors is ended, too.

    Each worker says in one line which flow it is and where, and the one traceback shows the user's line.
    """
    done = run_script(
        tmp_path,
        """
        from orchestration import flow
        @flow(store="memory", task_runner="sequential")
        def first():
            print("first ran")
        @flow(store="memory", task_runner="dask")
        def second():
            pass
        try:
            first()
        except Exception:
            pass
        second()
        """,
    )
    assert done.stdout.split("\n") == ["first ran", ""]
    assert f"{tmp_path / 'script.py'}, line 10: flow 'first' would start again in this worker" in done.stderr
    assert done.stderr.count("Traceback") == 1
    assert "if __name__ == '__main__':" in done.stderr.splitlines()[-1]
    assert "loop.py" not in done.stderr


@pytest.mark.parametrize(
    ("times", "problem"), [(1, ""), (99, "was killed while it started, 4 times in a row")]
)
def test_workers_that_are_killed_while_they_start(
    tmp_path: Path, start: Callable[..., Any], times: int, problem: str
) -> None:
    """Another cluster is started; if that happens again and again, the error says so and blames no script."""
    script = tmp_path / "preloaded.py"
    script.write_text(
        f"""
import os, signal
from pathlib import Path
for n in range({times}):
    mark = Path({str(tmp_path)!r}, str(n))
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    options = {**LOCAL, "n_workers": 1, "preload": str(script)}
    with pytest.raises(ConnectionFailedError, match=problem) if problem else nullcontext():
        start(cluster_kwargs=options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"n_worker": 1},
            "LocalCluster does not take these cluster_kwargs: .*unexpected keyword argument 'n_worker'",
        ),
        (
            {"memory_limit": "much"},
            "LocalCluster does not take these cluster_kwargs: Could not interpret 'much'",
        ),
    ],
)
def test_options_that_workers_do_not_take(start: Callable[..., Any], options: Any, told: str) -> None:
    """What a worker says of itself is told, not that Dask has ended it thereupon."""
    with pytest.raises(UserError, match=told):
        start(cluster_kwargs={**LOCAL, **options})


def test_a_worker_that_goes_while_versions_are_compared() -> None:
    """It is of no other version for that."""
    client = SimpleNamespace(
        get_versions=lambda: {"client": {}, "workers": {}},
        run=lambda *_, **__: {"tcp://10.0.0.1:1": CommClosedError("in <TCP>: Stream is closed")},
    )
    check_versions(client)


def test_workers_that_end_by_themselves_while_they_start(tmp_path: Path, start: Callable[..., Any]) -> None:
    """They would do so again."""
    script = tmp_path / "preloaded.py"
    script.write_text("import os; os._exit(3)")
    with pytest.raises(UserError, match="ended by themselves while they started"):
        start(cluster_kwargs={**LOCAL, "n_workers": 1, "preload": str(script)})


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(0)", "os.kill(os.getpid(), signal.SIGINT)"])
def test_a_forgotten_runner_leaves_nothing(tmp_path: Path, end: str) -> None:
    """A script that never closes its runner ends in time, quietly, and its workers with it."""
    done = run_script(
        tmp_path,
        f"""
        import os, signal
        from runners import DaskTaskRunner, dask_desk
        from runners.base import QueueSink
        if __name__ == "__main__":
            runner = DaskTaskRunner(cluster_kwargs={{"n_workers": 1}})
            runner.start(QueueSink())
            print(*runner._desk.client.run(os.getpid).values(), flush=True)
            {end}
        """,
    )
    pid = int(done.stdout.split()[0])
    assert not Path(f"/proc/{pid}").exists()
    noise = [line for line in done.stderr.splitlines() if line and "KeyboardInterrupt" not in line]
    assert [line for line in noise if "distributed" in line or "tornado" in line or "leaked" in line] == []


def test_a_performance_report_needs_bokeh(tmp_path: Path, start: Callable[..., Any]) -> None:
    """Without bokeh that is said at the start; with it the report is there at the end."""
    path = tmp_path / "report.html"
    try:
        import bokeh  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="bokeh"):
            start(cluster_kwargs=LOCAL, performance_report_path=str(path))
    else:
        port = start(cluster_kwargs=LOCAL, performance_report_path=str(path))
        port.run(port.batch(double, [1]))
        port.runner.close()
        assert path.stat().st_size


# --- a network ---------------------------------------------------------------------------------------

NAMES = ("mill-a", "mill-b")


@pytest.fixture
def two_hosts(require: Callable[[str, object], None]) -> Iterator[tuple[str, str]]:
    """Two network namespaces on a bridge with this machine, each with an address of its own."""
    require("root", os.geteuid() == 0)
    require("iproute2", shutil.which("ip"))
    ip(*["link", "add", "mill-br", "type", "bridge"])
    try:
        ip(*["addr", "add", "10.211.7.1/24", "dev", "mill-br"])
        ip(*["link", "set", "mill-br", "up"])
        for number, name in enumerate(NAMES, start=2):
            ip("netns", "add", name)
            ip(*f"link add {name}-o type veth peer name eth0 netns {name}".split())
            ip(*f"link set {name}-o master mill-br up".split())
            ip(*f"-n {name} addr add 10.211.7.{number}/24 dev eth0".split())
            ip(*f"-n {name} link set eth0 up".split())
            ip(*f"-n {name} link set lo up".split())
        yield "10.211.7.2", "10.211.7.3"
    finally:
        for name in NAMES:
            ip("netns", "del", name, check=False)
        ip(*["link", "del", "mill-br"], check=False)


def ip(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr}")


@pytest.mark.netns
def test_scheduler_and_workers_on_different_hosts(
    two_hosts: tuple[str, str], start: Callable[..., Any]
) -> None:
    """Flow, scheduler and worker have a network address each, and the worker's is not the scheduler's."""
    here, there = (("ip", "netns", "exec", name) for name in NAMES)
    with (
        scheduler(host=two_hosts[0], prefix=here) as address,
        worker(address, "--host", two_hosts[1], prefix=there),
    ):
        port = start(address)
        batch = port.batch(double, [1, 2])
        assert port.run(batch).outcomes == DONE * 2
        assert port.of(BatchStarted, batch)
        assert two_hosts[1] in next(iter(port.runner._desk.workers))
        assert port.runner.fetch(batch.batch_id, 0, [0, 1]) == [2, 4]
        asking = port.batch(ask, [b"question"])
        port.runner.submit([asking])
        port.runner.answer(port.of(Call, asking).call_id, b"answer")
        assert port.table(asking).outcomes == DONE


# --- broken during a run -----------------------------------------------------------------------------

WIDTH = 40
SUBPROCESSES = "distributed.deploy.subprocess.SubprocessCluster"  # its scheduler is a process of its own


@task
def double_slowly(n: int) -> int:
    time.sleep(0.02)
    return 2 * n


@task
def total(parts: list[int]) -> int:
    return sum(parts)


def break_off_and_go_on(runner: DaskTaskRunner, break_off: Any) -> tuple[int, int, dict[str, int]]:
    """Run a flow whose engine breaks off when results are there that will be read, and in the middle of a map."""

    @flow(task_runner=runner)
    def broken_twice() -> Any:
        first = double_slowly.map(range(WIDTH))
        first.wait()
        break_off()
        summed = total.submit(first)
        second = double_slowly.map(range(WIDTH))
        second[0].wait()
        break_off()
        return summed.result(), sum(second.result()), second.states.counts

    found: tuple[int, int, dict[str, int]] = broken_twice()
    return found


WHOLE = (WIDTH * (WIDTH - 1), WIDTH * (WIDTH - 1), {"Completed": WIDTH})


@pytest.mark.timeout(180)
def test_the_connection_to_the_scheduler_is_cut(
    millrace_home: Path, make_proxy: Callable[[str], Any]
) -> None:
    """It is made again; what the cluster had been given and what it had made is done again where it is needed."""
    with scheduler() as address, worker(address):
        proxy = make_proxy(address)
        assert break_off_and_go_on(DaskTaskRunner(address=proxy.address), proxy.cut) == WHOLE


@pytest.mark.timeout(180)
def test_the_scheduler_of_an_own_cluster_dies(millrace_home: Path) -> None:
    """Another cluster is started in its place."""

    def kill_scheduler() -> None:
        session = current_session.get()
        assert session is not None
        runner: Any = session.driver.runner
        process = runner._desk.connection.cluster.scheduler.process
        os.kill(process.pid, signal.SIGKILL)

    runner = DaskTaskRunner(
        cluster_class=SUBPROCESSES,
        cluster_kwargs={"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None},
        client_kwargs={"timeout": 5},
    )
    assert break_off_and_go_on(runner, kill_scheduler) == WHOLE


@pytest.mark.timeout(180)
def test_a_scheduler_that_is_not_ours_and_does_not_come_back(
    millrace_home: Path, monkeypatch: pytest.MonkeyPatch, make_proxy: Callable[[str], Any]
) -> None:
    """After some patience the run ends with an error that names the address."""
    monkeypatch.setattr("runners.dask_connect.PATIENCE_SECONDS", 2.0)
    with scheduler() as address, worker(address):
        proxy = make_proxy(address)

        @flow(task_runner=DaskTaskRunner(address=proxy.address, client_kwargs={"timeout": 2}))
        def cut_off() -> Any:
            futures = double_slowly.map(range(WIDTH))
            futures[0].wait()
            proxy.close()
            return futures.result()

        with pytest.raises(BackendError, match=f"no Dask scheduler answers at {proxy.address}"):
            cut_off()
