"""This process's connection to Ray. There is at most one, so runners share it and count themselves.

A Ray that somebody else initialised is used and left alone. One that we connected to is left when the last
runner closes, and one that we started is ended then, with its folder. One that we started and that died is
ended at once; the first of its runners that notices starts another one, which the others join.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import queue
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .base import TaskRunner
from .errors import ConnectionFailedError, MissingExtraError, RunnersError, UserError, VersionMismatchError
from .ray_folder import end_processes, make_folder, remove_folder

logger = logging.getLogger("millrace.ray")

PROBE_SECONDS = 5.0  # for a TCP connection to an address, before Ray tries (which waits for minutes)
GREET_MILLISECONDS = 3000  # for a head's answer, beside 10 s that Ray takes for its connection
CLIENT_SCHEME = "ray://"


class Session:
    """A connection and who has to end it."""

    def __init__(self, address: str, *, ours: bool, folder: Path | None = None) -> None:
        import ray

        context = ray.get_runtime_context()
        self.address = address  # as people would write it
        self.ours = ours
        self.folder = folder  # of a Ray that we started
        self.job_id = context.get_job_id()
        self.pid = os.getpid()
        self.users = 0
        self.over = False
        self.is_client = address.startswith(CLIENT_SCHEME)
        self.node_id = "" if self.is_client else context.get_node_id()
        self.gcs_address = "" if self.is_client else str(context.gcs_address)
        self._calls = threading.RLock()

    @property
    def is_local(self) -> bool:
        """Whether we started this Ray."""
        return self.folder is not None

    def live(self) -> bool:
        """Whether Ray may be called. Without a connection most calls would start another Ray, unasked."""
        import ray

        return not self.over and bool(ray.is_initialized())

    @contextlib.contextmanager
    def calls(self) -> Iterator[bool]:
        """Keep this connection from being ended inside the block; gives whether Ray may be called there.

        A call into Ray's core that overlaps with its end would end this process.
        """
        with self._calls:
            yield self.live()

    def head_error(self, seconds: float) -> OSError | None:
        """Return why the head cannot be reached, or None."""
        head = urlsplit(f"//{self.gcs_address}")
        if self.is_client or not (head.hostname and head.port):
            return None
        return unreachable(head.hostname, head.port, seconds)

    def release(self) -> None:
        """Take one user off; the last one of our own connection ends it."""
        global _current
        with _lock:
            self.users -= 1
            if self.users > 0 or not self.ours:
                return
            if _current is self:
                _current = None
            _end(self)


_lock = threading.RLock()
_current: Session | None = None  # the connection that we made
_open: weakref.WeakSet[TaskRunner] = weakref.WeakSet()  # closed when the program ends without doing so
_warned_client = False


def connect(runner: TaskRunner, address: str | None, init_kwargs: Mapping[str, Any]) -> Session:
    """Return this process's connection with one user more, made if there is none.

    Raises:
        MissingExtraError, ConnectionFailedError, VersionMismatchError, UserError.
    """
    global _current
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    _end_at_exit_once()
    with _lock:
        if ray.is_initialized():
            session = _join(address)
        else:
            address = address or os.environ.get("RAY_ADDRESS") or None
            _current = session = (
                _start(init_kwargs) if address in (None, "local") else _dial(address, init_kwargs)
            )
        session.users += 1
        _open.add(runner)
        return session


def awaited(address: str | None) -> str:
    """Say whom `connect` waits for."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    return "Ray's processes on this machine" if address == "local" else f"Ray at {address}"


def replace(runner: TaskRunner, dead: Session, init_kwargs: Mapping[str, Any]) -> Session:
    """Return a connection to a Ray of our own in place of one that died.

    Raises:
        ConnectionFailedError, UserError: it could not be started.
    """
    global _current
    with _lock, _no_ray_unasked():
        if _current is dead:
            _current = None
        if not dead.over:
            _end(dead)
        return connect(runner, "local", init_kwargs)


def _join(address: str | None) -> Session:
    import ray

    global _current
    if _current is not None and _current.job_id != ray.get_runtime_context().get_job_id():
        _current = None  # somebody has ended our Ray and initialised another
    session = _current
    if session is None:
        client = ray.util.client.ray.is_connected()
        session = Session(f"{CLIENT_SCHEME}(connected)" if client else "", ours=False)
        session.address = session.address or session.gcs_address
    if address in (None, "auto", "local") or session.is_client or session.address == address:
        return session
    if session.gcs_address and _port(str(address)) != _port(session.gcs_address):
        raise UserError(
            f"RayTaskRunner(address={address!r}): this process is already connected to Ray at "
            f"{session.gcs_address}, and Ray allows one connection per process. Call ray.shutdown() first, "
            f"or leave address out to use that one."
        )
    return session


def _port(address: str) -> int | None:
    with contextlib.suppress(ValueError):
        return urlsplit(address if "://" in address else f"//{address}").port
    return None


# --- a cluster by its address --------------------------------------------------------------------


def _dial(address: str, init_kwargs: Mapping[str, Any]) -> Session:
    import ray

    global _warned_client
    if address.startswith(CLIENT_SCHEME) and not _warned_client:
        _warned_client = True
        logger.warning(
            "%s: a connection through ray:// that breaks for more than 30 s loses every result and all "
            "running work. Where you can, start the flow on a machine of the cluster with address='auto'.",
            address,
        )
    settings = {"log_to_driver": False, "logging_level": logging.ERROR, **init_kwargs}
    try:
        with _quiet(), _signal_handlers_kept():
            _take_notices()
            _probe(address)
            ray.init(address=address, **settings)
        return Session(address, ours=True)
    except ImportError as error:
        raise UserError(
            f"address={address!r} needs Ray's client: pip install 'ray[client]' ({error})"
        ) from None
    except BaseException as error:
        with contextlib.suppress(Exception):
            ray.shutdown()
        raise _translated(error, f"Ray at {address!r}") from None


def _translated(error: BaseException, what: str, *, own: bool = False) -> BaseException:
    text = str(error).strip().rstrip(".") or type(error).__name__
    if isinstance(error, RunnersError):
        return error
    if "ersion mismatch" in text or "different version" in text:
        return VersionMismatchError(f"{what} runs other versions of Ray or Python than this process: {text}")
    if isinstance(error, ValueError | TypeError) or "Unknown keyword argument" in text:
        return UserError(f"{what}: {text}. Look at address and init_kwargs of RayTaskRunner.")
    if not isinstance(error, Exception):  # Ctrl-C
        return error
    if own:
        return ConnectionFailedError(
            f"{what} could not be started: {text}. Where the machine is busy or short of memory, try again; "
            "`ray start --head` shows more of what is wrong."
        )
    return ConnectionFailedError(
        f"cannot connect to {what}: {text}. Is it up (`ray status`), and may this machine reach its ports?"
    )


def _probe(address: str) -> None:
    """Fail soon where nobody listens."""
    if address == "auto":
        return  # Ray looks for processes on this machine and says at once when there are none
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None:
        raise UserError(f"RayTaskRunner(address={address!r}): give 'auto', 'host:port' or 'ray://host:port'")
    option = "ray-client-server-port" if address.startswith(CLIENT_SCHEME) else "port"
    port = port or (10001 if address.startswith(CLIENT_SCHEME) else 6379)
    problem = unreachable(host, port, PROBE_SECONDS)
    if problem is not None:
        raise ConnectionFailedError(
            f"no Ray answers at {address!r}: {problem}. Start one with `ray start --head --{option}={port}`, or "
            f"check the address and the firewall."
        )
    if not address.startswith(CLIENT_SCHEME):
        _greet(host, port)


def _greet(host: str, port: int) -> None:
    """Ask the head who it is, with a bound. `ray.init` asks 20 times, for minutes, whatever is wrong."""
    from ray import _raylet
    from ray.exceptions import AuthenticationError

    greet = getattr(getattr(_raylet, "InnerGcsClient", None), "standalone", None)
    if greet is None:  # another version of Ray
        return
    try:
        greet(f"{host}:{port}", None, GREET_MILLISECONDS)
    except AuthenticationError:
        raise ConnectionFailedError(
            f"Ray at {host}:{port} wants another authentication token, or any. Set RAY_AUTH_MODE=token, and its "
            f"token with RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or in ~/.ray/auth_token."
        ) from None
    except Exception as error:
        raise ConnectionFailedError(
            f"what listens at {host}:{port} does not answer as a Ray head of this version does: {error} Give the "
            f"port of `ray start --head` (6379 unless it was told otherwise)."
        ) from None


def unreachable(host: str, port: int, seconds: float) -> OSError | None:
    """Return why no TCP connection can be made, or None."""
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        return error
    return None


# --- a Ray of our own ----------------------------------------------------------------------------


def _start(init_kwargs: Mapping[str, Any]) -> Session:
    import ray

    folder = make_folder()
    settings = {
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "_temp_dir": str(folder),
        **init_kwargs,
    }
    try:
        with _quiet(), _signal_handlers_kept():
            _take_notices()
            _in_lasting_thread(lambda: ray.init(address="local", **settings))
        return Session("local", ours=True, folder=folder)
    except BaseException as error:
        with contextlib.suppress(Exception):
            ray.shutdown()
        remove_folder(folder)
        raise _translated(error, "Ray on this machine", own=True) from None


def _in_lasting_thread(start: Callable[[], object]) -> None:
    """Start Ray in a thread that does not end: with the thread that started them, Linux kills Ray's processes."""
    if threading.current_thread() is threading.main_thread():
        start()
        return
    done: Future[None] = Future()

    def job() -> None:
        try:
            start()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    _starter(os.getpid()).put(job)
    done.result()


@functools.cache
def _starter(pid: int) -> queue.SimpleQueue[Callable[[], None]]:
    """Return the jobs of a process's thread for starting Rays. It is daemonic: our exit handler needs it alive."""
    jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            jobs.get()()

    threading.Thread(target=serve, name="millrace-ray-starter", daemon=True).start()
    return jobs


def _end(session: Session) -> None:
    import ray

    with session._calls:
        if session.over:  # the Ray that is there now is another one
            return
        session.over = True
        if session.pid != os.getpid():  # a child of a fork
            return
        if session.folder is not None and session.head_error(PROBE_SECONDS) is not None:
            end_processes(session.folder)  # ray.shutdown would wait for what asks its dead head
        if ray.is_initialized() and ray.get_runtime_context().get_job_id() == session.job_id:
            with _quiet():
                try:
                    ray.shutdown(**({"wait_for_processes": True} if session.is_local else {}))
                except TypeError:  # Ray before 2.60
                    ray.shutdown()
        if session.folder is not None:
            remove_folder(session.folder)


@contextlib.contextmanager
def _no_ray_unasked() -> Iterator[None]:
    """Have Ray's functions, which would start a Ray where there is none, raise in other threads instead."""
    from ray._private import auto_init_hook as hook

    before = getattr(hook, "enable_auto_connect", None)
    if before is None:  # another version of Ray
        yield
        return
    hook.enable_auto_connect = False
    try:
        yield
    finally:
        hook.enable_auto_connect = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's notices about machines and versions off the terminal; errors are raised anyhow."""
    ray_logger = logging.getLogger("ray")
    level = ray_logger.level
    ray_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray_logger.setLevel(max(level, logging.ERROR) if level else logging.ERROR)


@functools.cache
def _take_notices() -> None:
    """Send what Ray prints about dead workers and nodes to the log: it prints on stdout, whatever is asked.

    The runner tells of lost batches itself. Nothing is done where Ray's inside looks different.
    """
    from ray._private import worker

    show = getattr(worker, "print_to_stdstream", None)
    if show is None:
        return

    def log_or_show(data: Any, *args: Any, **kwargs: Any) -> None:
        if _current is not None and isinstance(data, dict) and data.get("pid") == "raylet":
            logger.info("Ray: %s", "\n".join(map(str, data.get("lines", ()))))
        else:
            show(data, *args, **kwargs)

    worker.print_to_stdstream = log_or_show


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Undo that `ray.init` replaces a SIGTERM handler. Without one, Ray's stays: it exits in order."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before not in (signal.SIG_DFL, None) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _end_at_exit() -> None:
    for runner in list(_open):
        with contextlib.suppress(Exception):
            runner.close()


@functools.cache
def _end_at_exit_once() -> None:
    """Called with Ray imported, so that ours runs before its own exit handler, which takes longer."""
    atexit.register(_end_at_exit)
