"""What a connected Ray has to offer, and whether it is still there."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray

from . import ray_session
from .errors import RunnerOptionError, VersionMismatchError
from .ray_failures import INSTALL_HINT
from .ray_mailbox import Mailbox
from .ray_worker import check_version

logger = logging.getLogger("millrace.ray")

LOOK_SECONDS = 2.0  # between two looks at the nodes
LOCAL_LOOK_SECONDS = 0.5  # between two looks at whether our own Ray is there
MAX_MISSED = 3  # looks. Ray ends this whole process when the head has been away for 60 s: we must be sooner
CLOSE_SECONDS = 10.0  # for a look that is under way
CHECK_SECONDS = 30.0  # for the version check; on a cluster that is still starting we go on without
MAX_CALLS = 10_000  # that one mailbox can hold open


class Cluster:
    """The Ray behind a session, watched by a thread."""

    def __init__(
        self,
        session: ray_session.Session,
        slots_changed: Callable[[int], None],
        gone: Callable[[str, bool], None],
    ) -> None:
        self._session = session
        self._slots_changed = slots_changed
        self._gone = gone
        self._closed = threading.Event()
        self._nodes: list[dict[str, Any]] = []
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Tell the slots, now and whenever they change."""
        self._look()
        self._thread = threading.Thread(target=self._serve, name="millrace-ray-nodes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)

    def paused(self) -> bool:
        """Wait for a moment; True when that was cut short by `close`."""
        return self._closed.wait(0.5)

    def describe(self) -> str:
        cpus = f"{self._cpus():g} CPUs"
        where = f"local Ray, {cpus}" if self._session.is_local else f"Ray at {self._session.address}, {cpus}"
        link = self.dashboard_url()
        return f"{where}, dashboard {link}" if link else where

    def check_version(self) -> None:
        """Compare a worker's Python and Millrace with ours.

        Raises:
            VersionMismatchError: they differ, or the worker has no Millrace.
        """
        if self._session.is_local:
            return  # its workers run with our interpreter
        probe = ray.remote(num_cpus=0, max_retries=0)(_make_probe()).options(name="millrace-versions")
        try:
            python, theirs = ray.get(probe.remote(), timeout=CHECK_SECONDS)
        except ray.exceptions.GetTimeoutError:
            logger.warning(
                "no worker of %s has started within %g s; going on without comparing versions",
                self._session.address,
                CHECK_SECONDS,
            )
            return
        if theirs is None:
            raise VersionMismatchError(
                f"the workers of {self._session.address} have no millrace. {INSTALL_HINT}"
            )
        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        if python != ours:
            raise VersionMismatchError(
                f"the workers of {self._session.address} run Python {python}, this process runs {ours}"
            )
        check_version(theirs)

    def check_feasible(self, options: Mapping[str, Any]) -> None:
        """Raise `RunnerOptionError` where no node has what a task asks for, and no node can come."""
        asked = {
            "CPU": options.get("num_cpus"),
            "GPU": options.get("num_gpus"),
            "memory": options.get("memory"),
        }
        asked |= options.get("resources") or {}
        if options.get("accelerator_type"):
            asked[f"accelerator_type:{options['accelerator_type']}"] = 0.001
        wanted = {name: amount for name, amount in asked.items() if amount}
        alive = [node for node in self._nodes if node.get("Alive")]
        if not wanted or not alive or any(_satisfies(node["Resources"], wanted) for node in alive):
            return
        best = {name: max(node["Resources"].get(name, 0.0) for node in alive) for name in wanted}
        message = (
            f"runner_options ask for {_amounts(wanted)} on one node, but the best that a node of "
            f"{self.describe()} has is {_amounts(best)}"
        )
        if any(node.get("NodeTypeName") for node in alive):  # set by Ray's autoscaling launchers
            logger.warning("%s; waiting for the cluster to grow", message)
            return
        raise RunnerOptionError(f"{message}: such a task would wait for ever.")

    # --- watching -------------------------------------------------------------------------------

    def _serve(self) -> None:
        local, missed, looked = self._session.is_local, 0, time.monotonic()
        while not self._closed.wait(LOCAL_LOOK_SECONDS if local else LOOK_SECONDS):
            if not self._session.live():
                # our own Ray is over before its last user goes only if it died, and another one has noticed
                died = self._session.over
                why = "it died" if died else "the program has shut Ray down"
                self._gone(f"{self.describe()} has gone: {why}", died)
                return
            problem, refused = self._problem()
            if not problem:
                missed = 0
                if time.monotonic() - looked >= LOOK_SECONDS:
                    self._try_to_look()
                    looked = time.monotonic()
                continue
            missed += 1
            # on our own machine, nobody listens only where the process is dead
            if (missed == MAX_MISSED or (local and refused)) and not self._closed.is_set():
                self._gone(f"{self.describe()} has gone: {problem}", True)
                return

    def _try_to_look(self) -> None:
        try:
            self._look()
        except Exception as error:
            if not self._closed.is_set():
                logger.warning("Ray's list of nodes cannot be read: %s", error)

    def _look(self) -> None:
        with self._session.calls() as live:
            self._nodes = ray.nodes() if live else []
        if not self._closed.is_set():
            # a cluster that scales up from nothing has no CPU until somebody asks for one
            self._slots_changed(max(1, int(self._cpus())))

    def _cpus(self) -> float:
        return sum(float(node["Resources"].get("CPU", 0.0)) for node in self._nodes if node.get("Alive"))

    def _problem(self) -> tuple[str, bool]:
        """Say what does not answer ("" if all do), and whether nobody listens there.

        Not found out by Ray's own calls: these block when the head is away.
        """
        error = self._session.head_error(LOOK_SECONDS)
        if error is not None:
            text = f"its head at {self._session.gcs_address} does not answer ({error})"
            return text, isinstance(error, ConnectionRefusedError)
        own = next((node for node in self._nodes if node["NodeID"] == self._session.node_id), None)
        if own is not None and not self._session.is_client:
            host, port = own["NodeManagerAddress"], own["NodeManagerPort"]
            error = ray_session.unreachable(host, port, LOOK_SECONDS)
            if error is not None:
                text = f"this machine's Ray process at {host}:{port} does not answer ({error})"
                return text, isinstance(error, ConnectionRefusedError)
        return "", False

    def dashboard_url(self) -> str:
        if not self._session.live():
            return ""
        try:
            url = ray._private.worker.get_dashboard_url()
        except Exception:  # not connected, or another version of Ray
            return ""
        return f"http://{url}" if url else ""


def open_mailbox(name: str) -> Any:
    """Create a mailbox actor without waiting for it. Ray restarts it when its process dies."""
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(Mailbox)
    return actor.options(name=name, max_concurrency=MAX_CALLS).remote()


def _make_probe() -> Callable[[], tuple[str, str | None]]:
    # a function inside a function is pickled by value, so it also runs where Millrace is missing
    def probe() -> tuple[str, str | None]:
        import importlib
        import sys

        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        try:
            theirs = importlib.import_module("runners.ray_worker").own_version()
        except ImportError:
            return python, None
        return python, theirs

    return probe


def _satisfies(resources: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0.0) >= amount for name, amount in wanted.items())


def _amounts(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in amounts.items())
