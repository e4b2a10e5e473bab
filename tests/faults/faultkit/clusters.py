"""Clusters that are started by commands, as their users start them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from faultkit.processes import wait_until

# Dask itself must not start what died with its worker: as it is for clusters that a flow makes.
DASK_CONFIG = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}


class Command:
    """A command that runs until it is ended, and what it says."""

    def __init__(self, *command: str, prefix: tuple[str, ...] = ()) -> None:
        environ = {**os.environ, **DASK_CONFIG, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [*prefix, *command],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self._lines.append(line)
                self._said.notify_all()

    def said(self, pattern: str, times: int = 1, timeout: float = 60.0) -> re.Match[str]:
        """Wait until the command has said something so often; return the last."""

        def found() -> list[re.Match[str]]:
            return [match for line in self._lines if (match := re.search(pattern, line))]

        with self._said:
            assert self._said.wait_for(lambda: len(found()) >= times, timeout), "".join(self._lines)
            return found()[-1]

    def end(self) -> None:
        """End the command and all that it has started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                continue
        self._reader.join(10)
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()


@contextmanager
def dask_cluster(
    workers: int, *, host: str = "127.0.0.1", prefix: tuple[str, ...] = ()
) -> Iterator[tuple[Command, dict[str, Any]]]:
    """Run `dask scheduler` and workers; yield the scheduler's command, and the runner that uses them.

    Args:
        prefix: of the workers' command: where they run.
    """
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", host, "--port", "0"]
    scheduler = Command(*command, "--no-dashboard")
    try:
        address = scheduler.said(r"Scheduler at:\s+(\S+)").group(1)
        with dask_workers(address, workers, prefix=prefix):
            yield scheduler, {"kind": "dask", "address": address}
    finally:
        scheduler.end()


@contextmanager
def dask_workers(address: str, number: int, *arguments: str, **options: Any) -> Iterator[Command]:
    """Run `dask worker` with so many processes of one thread, whose nannies start them again when they die."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nworkers", str(number)]
    workers = Command(
        *command, "--nthreads", "1", "--no-dashboard", "--memory-limit", "0", *arguments, **options
    )
    try:
        workers.said("Registered to", number)
        yield workers
    finally:
        workers.end()


class Proxy:
    """A TCP proxy whose connections can be cut."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections; new ones are accepted."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)
                    end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


DRAIN_SECONDS = 3  # for what a node that retires has begun


class RayCluster:
    """A Ray that was started by `ray start --head`, with everything it keeps in one folder.

    Args:
        folder: with a short name, because the paths of sockets have 107 bytes.
        host: the address of its head.
    """

    def __init__(self, folder: str, host: str = "127.0.0.1") -> None:
        self.folder = folder
        self._host = host
        with socket.create_server((host, 0)) as probe:
            self._port = probe.getsockname()[1]

        self._node: list[psutil.Process] = []
        # a token of its own: it neither needs nor makes the user's
        self._secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}

    @property
    def runner(self) -> dict[str, Any]:
        return {"kind": "ray", "address": self._address}

    @property
    def _address(self) -> str:
        return f"{self._host}:{self._port}"

    def lend(self, environ: dict[str, str]) -> dict[str, Any]:
        """Give a process's environment what it needs to connect; return the runner."""
        environ.update(self._secret)
        return self.runner

    def __enter__(self) -> RayCluster:
        head = ("--head", f"--port={self._port}", "--include-dashboard=false", f"--temp-dir={self.folder}")
        self._start(self._host, *head)
        return self

    def _start(self, host: str, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        options = ("--num-cpus=2", "--object-store-memory=100000000", "--disable-usage-stats")
        self._command("start", f"--node-ip-address={host}", *arguments, *options, prefix=prefix)

    def _command(self, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, sys.executable, "-m", "ray.scripts.scripts", *arguments]
        environ = {**os.environ, **self._secret}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr + done.stdout

    def of_nodes(self) -> list[int]:
        """Return the processes that start workers, and the workers."""
        found = [psutil.Process(pid) for pid in self._processes()]
        return [process.pid for process in found if process.name().startswith(("raylet", "ray::"))]

    def add_node(self, host: str = "127.0.0.1", prefix: tuple[str, ...] = ()) -> None:
        """Start a second node: on this machine, or where `prefix` runs commands."""
        before = set(self._processes())
        self._start(host, f"--address={self._address}", prefix=prefix)
        new = [psutil.Process(pid) for pid in self._processes() if pid not in before]
        self._node = [process for process in new if process.name() == "raylet"]
        assert self._node, "no raylet has come with the node"

    def kill_node(self) -> None:
        """Kill the second node's raylet; its workers end with it."""
        for process in self._node:
            process.kill()  # raises where the number is another process's by now

    def retire_node(self) -> None:
        """Have the second node take nothing more and end, as autoscalers do; after some seconds it is killed."""
        for process in self._node:
            node_id = next(word for word in process.cmdline() if word.startswith("--node_id="))
            self._command(
                "drain-node",
                f"--address={self._address}",
                f"--node-id={node_id.partition('=')[2]}",
                "--reason=DRAIN_NODE_REASON_PREEMPTION",
                "--reason-message=it retires",
                f"--deadline-remaining-seconds={DRAIN_SECONDS}",
            )
        for process in psutil.wait_procs(self._node, timeout=DRAIN_SECONDS)[1]:
            process.kill()

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """Kill every process of it, as when its machine fails."""
        for _ in range(3):  # what is being started meanwhile shows up in the next round
            for pid in self._processes():
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _processes(self) -> Iterator[int]:
        name = self.folder.encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if name in said and int(entry.name) != os.getpid():
                    yield int(entry.name)


MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")


def may_limit_memory() -> bool:
    return os.geteuid() == 0 and (MEMORY_GROUPS / "memory.limit_in_bytes").exists()


@contextmanager
def memory_group(name: str, *, megabytes: int) -> Iterator[Callable[[Iterable[int]], None]]:
    """Make a cgroup with so much memory; yield what puts processes into it, and thereby what they start."""
    group = MEMORY_GROUPS / name
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(megabytes << 20))

        def join(pids: Iterable[int]) -> None:
            for pid in pids:
                (group / "cgroup.procs").write_text(str(pid))

        yield join
    finally:
        wait_until(
            lambda: not (group / "cgroup.procs").read_text(), 15.0
        )  # those that were killed are on their way
        group.rmdir()


class OtherHost:
    """A network namespace that looks like a host of its own, and the way to it, which can be cut in one direction."""

    name = "millrace-there"
    here, there = "10.211.9.1", "10.211.9.2"

    @property
    def inside(self) -> tuple[str, ...]:
        """What runs a command there."""
        return "ip", "netns", "exec", self.name

    def __enter__(self) -> OtherHost:
        _run("ip", "netns", "add", self.name)
        try:
            _run(*f"ip link add mill-there type veth peer name eth0 netns {self.name}".split())
            _run(*f"ip addr add {self.here}/24 dev mill-there".split())
            _run(*["ip", "link", "set", "mill-there", "up"])
            for command in (f"addr add {self.there}/24 dev eth0", "link set eth0 up", "link set lo up"):
                _run("ip", "-n", self.name, *command.split())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the host with all that runs there: Ray's agents outlive their node by most of a minute."""
        there = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False
        )
        for pid in there.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _run("ip", "netns", "del", self.name)
        wait_until(lambda: not Path("/sys/class/net/mill-there").exists(), 15.0)

    @contextmanager
    def cut(self, direction: str) -> Iterator[None]:
        """Lose every packet "to" the other host, or "from" it."""
        rule = ["root", "tbf", "rate", "8bit", "burst", "1", "latency", "1ms"]  # less than one packet, ever
        where, device = ((), "mill-there") if direction == "to" else (self.inside, "eth0")
        _run(*where, "tc", "qdisc", "add", "dev", device, *rule)
        try:
            yield
        finally:
            _run(*where, "tc", "qdisc", "del", "dev", device, "root")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr}")
