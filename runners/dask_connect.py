"""Getting hold of a Dask cluster: one of our own, one that the user made, or one at an address."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from .dask_adapt import adapt_cluster, check_adapt
from .dask_close import close_client
from .dask_start import NOT_STARTED, root_of, start_cluster
from .dask_versions import by_value, check_versions
from .errors import ConnectionFailedError, MissingExtraError, UserError
from .main_guard import CURE, refuse_in_child

CONNECT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0  # for a scheduler that is not ours to answer again, beyond what Dask's client waits
MAX_REPLACEMENTS = 3  # of clusters or connections in a row without anything done
ABANDON_SECONDS = 2.0
GRACE_SECONDS = 1.0  # for worker processes of our own to end by themselves
FIRST_WORKER_SECONDS = 5.0  # a cluster without workers is waited for so long before versions are compared


@dataclass(frozen=True)
class Settings:
    """The arguments of `DaskTaskRunner`, checked as far as that can be done without a cluster."""

    address: str | None = None
    cluster: Any = None
    cluster_class: str | Callable[..., Any] | None = None
    cluster_kwargs: Mapping[str, Any] = field(default_factory=dict)
    adapt_kwargs: Mapping[str, Any] = field(default_factory=dict)
    client_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ("cluster", "cluster_class", "cluster_kwargs", "adapt_kwargs")
        given = [name for name in names if getattr(self, name)]
        if self.address and given:
            raise UserError(
                f"DaskTaskRunner got an address and {' and '.join(given)}. An address is of a cluster that "
                "runs already: give either the address or what a new cluster is made from."
            )
        if self.cluster is not None and (self.cluster_class or self.cluster_kwargs):
            raise UserError(
                "DaskTaskRunner got a cluster and cluster_class or cluster_kwargs, which make another one. "
                "Give one of them."
            )
        for where in ("cluster_kwargs", "client_kwargs"):
            if getattr(self, where).get("asynchronous"):
                raise UserError(
                    f"{where} has asynchronous=True; DaskTaskRunner needs a synchronous one. Remove it."
                )
        if getattr(self.cluster, "asynchronous", False):
            raise UserError(
                "the cluster given to DaskTaskRunner is asynchronous. Make it without asynchronous=True."
            )

    @property
    def adaptive(self) -> bool:
        return bool(self.adapt_kwargs)


@dataclass
class Connection:
    """A client, and the cluster if there is an object for it."""

    client: Any
    cluster: Any = None
    owned: bool = False
    fixed: bool = False  # it is local processes of ours, whose number does not change

    @property
    def where(self) -> str:
        """The scheduler's address, for people."""
        return str(getattr(self.client.scheduler, "address", "?"))

    def close(self, *, at_once: bool = False) -> None:
        """Close the client, and the cluster if it is ours. Quiet whatever state they are in.

        An interrupt meanwhile (Ctrl-C) ends the worker processes of our own local cluster at once, as `at_once`
        does; it is raised when all is closed, or after `ABANDON_SECONDS`.
        """
        closed = self._begin_to_close()
        try:
            if at_once:
                self._kill()
            closed.wait()
        except KeyboardInterrupt:
            self._kill()
            closed.wait(ABANDON_SECONDS)
            raise

    def abandon(self) -> None:
        """Close what is broken, which may wait for answers that never come: not for long."""
        self._begin_to_close().wait(ABANDON_SECONDS)

    def _begin_to_close(self) -> threading.Event:
        """Close in a thread of its own, which no interrupt reaches. Returns what tells the end.

        Where an interrupt reaches the thread that waits for it, Dask leaves the cluster half closed, and waits
        for 10 s at the process's end for it to be closed.
        """
        closed = threading.Event()
        try:
            threading.Thread(
                target=self._close, args=(closed,), name="millrace-dask-close", daemon=True
            ).start()
        except RuntimeError:  # the interpreter is ending, and takes no threads any more
            self._kill()
            self._close(closed, hurries=False)
        return closed

    def _close(self, closed: threading.Event, *, hurries: bool = True) -> None:
        try:
            with contextlib.suppress(Exception):
                close_client(self.client)
            if self.owned:
                self._close_cluster(hurries=hurries)
        finally:
            closed.set()

    def _close_cluster(self, *, hurries: bool) -> None:
        hurry = threading.Timer(GRACE_SECONDS, self._kill)
        hurry.daemon = True
        if hurries:
            hurry.start()
        with contextlib.suppress(Exception):
            self.cluster.close(timeout=10)
        hurry.cancel()
        _forget_closed()

    def mend(self) -> None:
        """Start workers of our own cluster again whose nanny has given up.

        A nanny does that when its worker dies before it has said that it is up. A task that kills its worker
        at once can cost the cluster all its workers in this way.
        """
        if self.fixed:
            self.cluster.loop.add_callback(_mend, self.cluster)

    def kill_worker(self, worker: str) -> bool:
        """End a worker process (`host:pid`) of our own local cluster. Its nanny starts another."""
        pid = int(worker.split(":")[1])
        if not self.fixed or pid == os.getpid():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def _kill(self) -> None:
        if not self.owned:
            return
        workers = getattr(self.cluster, "workers", None)
        for nanny in list(workers.values()) if isinstance(workers, dict) else ():
            pid = getattr(nanny, "pid", None)
            if pid and pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def keep_nannies(cluster: Any) -> None:
    """Have a cluster's object leave a nanny alone whose worker is gone for a moment.

    15 s after a worker's death `SpecCluster` closes its nanny for good if another death has just happened, and
    does not replace it.
    """
    from distributed.deploy.cluster import Cluster

    if hasattr(Cluster, "_update_worker_status"):
        cluster._update_worker_status = partial(Cluster._update_worker_status, cluster)


def _mend(cluster: Any) -> None:
    for name, nanny in list(cluster.workers.items()):
        if nanny.status.name in ("closed", "failed"):
            del cluster.workers[name]
    if set(cluster.worker_spec) - set(cluster.workers) and cluster.status.name == "running":
        cluster.scale(len(cluster.worker_spec))


def connect(settings: Settings) -> Connection:
    """Connect to the cluster that the settings name, or make it.

    Raises:
        MissingExtraError, UserError, ConnectionFailedError, VersionMismatchError.
    """
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("distributed", "dask") from error
    refuse_in_child("DaskTaskRunner")
    address = settings.address or _configured_address(settings)
    cluster, owned = settings.cluster, False
    if address is None and cluster is None:
        cluster, owned = _make_cluster(settings), True
    try:
        if settings.adaptive:
            adapt_cluster(cluster, settings.adapt_kwargs)
        client = _make_client(settings, cluster if address is None else address)
    except BaseException:
        if owned:
            cluster.close()
        raise
    connection = Connection(client, cluster, owned, _is_fixed(settings, cluster, owned=owned))
    if connection.fixed:
        keep_nannies(cluster)
    try:
        if owned:
            _no_retries(client)
        if not (settings.adaptive and not settings.adapt_kwargs.get("minimum")):
            _await_worker(client)
        check_versions(client)
    except BaseException:
        connection.close()
        raise
    return connection


def awaited(settings: Settings) -> str:
    """Say whom `connect` waits for."""
    if settings.cluster is not None:
        return f"the workers of {type(settings.cluster).__name__}"
    address = settings.address
    with contextlib.suppress(ImportError):  # of Dask, of which `connect` complains
        address = address or _configured_address(settings)
    if address is not None:
        return f"the Dask scheduler at {address}"
    made = settings.cluster_class or "LocalCluster"
    name = made.rpartition(".")[2] if isinstance(made, str) else _name(made)
    return f"the scheduler and workers of a new {name}"


def reconnect(
    settings: Settings, broken: Connection, fruitless: int, unwanted: Callable[[], bool]
) -> Connection:
    """Connect again where a connection has gone: at once to a new cluster of our own, or with patience to another's.

    Args:
        fruitless: how often that was done since something was last achieved, this time included.
        unwanted: whether nobody waits for it any more.

    Raises:
        RunnersError: it cannot be done, or was done too often.
    """
    if fruitless > MAX_REPLACEMENTS:
        raise ConnectionFailedError(
            f"it broke {fruitless} times in a row before any batch was done. Look at the logs of the scheduler and "
            "the workers, and at their memory."
        )
    until = time.monotonic() + (0.0 if broken.owned else PATIENCE_SECONDS)
    while True:
        try:
            return connect(settings)
        except ConnectionFailedError as error:
            if unwanted() or time.monotonic() >= until:
                waited = "" if broken.owned else f" within {PATIENCE_SECONDS:g} s"
                raise ConnectionFailedError(f"It could not be made again{waited}: {error}") from error


def _is_fixed(settings: Settings, cluster: Any, *, owned: bool) -> bool:
    from distributed import LocalCluster

    return owned and not settings.adaptive and isinstance(cluster, LocalCluster) and bool(cluster.processes)


def _configured_address(settings: Settings) -> str | None:
    """Return DASK_SCHEDULER_ADDRESS (or Dask's own configuration), where no cluster was asked for."""
    import dask

    if settings.cluster is not None or settings.cluster_class or settings.cluster_kwargs or settings.adaptive:
        return None
    address = dask.config.get("scheduler-address", default=None)
    return str(address) if address else None


# --- making a cluster --------------------------------------------------------------------------------


def _make_cluster(settings: Settings) -> Any:
    from distributed import LocalCluster

    make = _cluster_class(settings.cluster_class)
    check_adapt(make, settings.adapt_kwargs)  # before anything is started
    options = dict(settings.cluster_kwargs)
    if settings.client_kwargs.get("security") is not None:
        options.setdefault("security", settings.client_kwargs["security"])
    if inspect.isclass(make) and issubclass(make, LocalCluster):
        _local_defaults(options, adaptive=settings.adaptive)
    try:
        cluster = start_cluster(make, options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{_name(make)} does not take these cluster_kwargs: {error}") from None
    except RuntimeError as error:
        chain = _chain(error)
        if "unexpected keyword argument" in chain:  # what a class does not know it hands to its workers
            raise UserError(f"{_name(make)} does not take these cluster_kwargs: {chain}") from None
        if NOT_STARTED in str(root_of(error)):
            raise UserError(
                "Dask's worker processes ended by themselves while they started; above stands what they wrote. "
                + _why()
            ) from None
        raise ConnectionFailedError(f"{_name(make)} could not be started: {chain}") from None
    if getattr(cluster, "asynchronous", False) or (
        inspect.isawaitable(cluster) and not hasattr(cluster, "close")
    ):
        raise UserError(
            f"{_name(make)} made an asynchronous cluster; DaskTaskRunner needs a synchronous one."
        )
    return cluster


def _why() -> str:
    """Say why worker processes most probably do not start."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script and not os.path.exists(script):  # such as <stdin>
        return f"They begin by importing the program, and {os.path.basename(script)} is no file: write it to one."
    return f"They begin by importing the flow's script: it must not start flows when it is imported. {CURE}"


def _forget_closed() -> None:
    """Let go of clusters that were closed in this process.

    distributed 2026.8 keeps every scheduler that was ever here, about 1 MB each: an unbounded cache of one of its
    functions has their methods as keys. What it is asked again it finds out again.
    """
    from distributed import core

    clear = getattr(getattr(core, "_expects_comm", None), "cache_clear", None)
    if clear is not None:
        clear()


def _local_defaults(options: dict[str, Any], *, adaptive: bool) -> None:
    from dask.system import CPU_COUNT

    options.setdefault("threads_per_worker", 1)
    if adaptive:
        options.setdefault("n_workers", 0)
    elif options.get("processes", True):
        options.setdefault("n_workers", max(1, CPU_COUNT // (options["threads_per_worker"] or 1)))
    options.setdefault(
        "dashboard_address", ":0"
    )  # a second cluster must not warn about the port of the first
    # the scheduler and the nannies are in this process, and what they have to say we say ourselves
    options.setdefault("silence_logs", logging.CRITICAL)
    quiet = {} if options["dashboard_address"] else {"dashboard_address": ":0", "dashboard": False}
    options["scheduler_kwargs"] = {
        "allowed_failures": 0,
        **quiet,  # without a dashboard, too, the scheduler has a port for HTTP
        **(options.get("scheduler_kwargs") or {}),
    }


def _cluster_class(given: str | Callable[..., Any] | None) -> Callable[..., Any]:
    from distributed import LocalCluster
    from distributed.utils import import_term

    if given is None:
        return LocalCluster  # type: ignore[no-any-return,unused-ignore]
    if callable(given):
        return given
    try:
        found: Callable[..., Any] = import_term(given)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"cluster_class {given!r} cannot be imported: {error}. It has to be a dotted name such as "
            "'dask_jobqueue.SLURMCluster', of a package that is installed here."
        ) from error
    return found


def _no_retries(client: Any) -> None:
    """Have the scheduler of our own cluster report a dead worker's tasks instead of running them again."""

    def no_retries(dask_scheduler: Any) -> None:
        dask_scheduler.allowed_failures = 0

    with contextlib.suppress(Exception):  # a scheduler may refuse functions
        client.run_on_scheduler(by_value(no_retries))


# --- the client --------------------------------------------------------------------------------------


def _make_client(settings: Settings, target: Any) -> Any:
    from distributed import Client, LocalCluster

    options = {"timeout": CONNECT_SECONDS, "set_as_default": False, **settings.client_kwargs}
    if isinstance(target, LocalCluster):
        options.setdefault("direct_to_workers", True)
    where = target if isinstance(target, str) else getattr(target, "scheduler_address", target)
    if isinstance(target, str):
        _check_address(target)
    try:
        return Client(target, **options)
    except (OSError, TimeoutError) as error:
        raise ConnectionFailedError(
            f"no Dask scheduler answers at {where} within {options['timeout']} s ({_root(error)}). "
            "Check that `dask scheduler` runs there, that this machine can reach it, and that both or none "
            "use TLS (client_kwargs={'security': ...}). client_kwargs={'timeout': 30} waits longer."
        ) from None
    except (ValueError, TypeError) as error:
        raise UserError(f"a Dask client cannot be made for {where!r}: {error}") from None


def _check_address(address: str) -> None:
    """Refuse an address without a port: a client that was begun for it would be waited for when this process ends."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    with contextlib.suppress(ValueError):  # a port that is no number
        if parts.scheme not in ("tcp", "tls") or (parts.hostname and parts.port):
            return
    raise UserError(
        f"the address of a Dask scheduler is given as {address!r}; write tcp://host:8786 (or tls://)"
    )


def _await_worker(client: Any) -> None:
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=FIRST_WORKER_SECONDS)


def _name(make: Callable[..., Any]) -> str:
    return getattr(make, "__qualname__", repr(make))


def _root(error: BaseException) -> str:
    """Return what the innermost cause of an exception says: the others say that something did not come about."""
    text = type(error).__name__
    link: BaseException | None = error
    while link is not None:
        text, link = str(link) or text, link.__cause__ or link.__context__
    return text


def _chain(error: BaseException) -> str:
    """Return the messages of an exception and its causes, the innermost last.

    An error with this text is raised `from None`: Dask's own tracebacks of a failed connection fill two screens.
    """
    parts = []
    link: BaseException | None = error
    while link is not None:
        parts.append(f"{type(link).__name__}: {link}" if str(link) else type(link).__name__)
        link = link.__cause__ or link.__context__
    return "; ".join(dict.fromkeys(parts))
