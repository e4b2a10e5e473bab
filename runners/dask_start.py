"""The start of a Dask cluster in this process, whose worker processes may be killed meanwhile."""

from __future__ import annotations

import contextlib
import inspect
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from typing import Any

from .errors import ConnectionFailedError

MAX_STARTS = 4  # of a cluster of which worker processes are killed each time
NOT_STARTED = "Nanny failed to start"  # so says Dask when a worker process ends before it is up


def start_cluster(make: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Return a cluster that was made, at the second attempt if a worker process was killed in the first.

    Raises:
        ConnectionFailedError: that happened again and again.
    """
    for left in reversed(range(MAX_STARTS)):
        deaths: list[int] = []
        try:
            return _make(make, _witnessed(make, options, deaths))
        except RuntimeError as error:
            signals = [-code for code in deaths if code < 0]
            # those that end by themselves do so again
            if NOT_STARTED not in str(root_of(error)) or not signals:
                raise
            if not left:
                raise ConnectionFailedError(
                    f"a worker process of Dask was killed while it started, {MAX_STARTS} times in a row (signal "
                    f"{signals[0]}). Look at this machine's memory, and at who ends processes."
                ) from None
    raise AssertionError("a loop that returns or raises")


def root_of(error: BaseException) -> BaseException:
    """Return the innermost cause: what a worker process said of itself before Dask ended it, if it said anything."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _make(make: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    made: list[Any] = []
    try:
        with interrupts_held():
            made.append(make(**options))
    except KeyboardInterrupt:
        for cluster in made:
            cluster.close()
        raise
    return made[0]


def _witnessed(make: Callable[..., Any], options: Mapping[str, Any], deaths: list[int]) -> dict[str, Any]:
    """Return the options with nannies that note the exit codes of their worker processes.

    Dask logs them, on a level that is off, and tells nobody else. Where its inside looks different, or the user
    brings workers of another class, none is noted.
    """
    from distributed import LocalCluster, Nanny

    local = inspect.isclass(make) and issubclass(make, LocalCluster)
    if not local or "worker_class" in options or not options.get("processes", True):
        return dict(options)
    if not hasattr(Nanny, "_on_worker_exit_sync"):
        return dict(options)

    class Witness(Nanny):  # type: ignore[misc,unused-ignore]
        def _on_worker_exit_sync(self, exitcode: int) -> None:
            deaths.append(exitcode)
            super()._on_worker_exit_sync(exitcode)  # type: ignore[no-untyped-call,unused-ignore]

    Witness.__name__ = Nanny.__name__  # by which Dask's errors call it
    return {**options, "worker_class": Witness}


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold back SIGINT inside the block; it arrives at its end.

    Threads and processes that are started inside never get it: Ctrl-C in a terminal goes to all processes of
    the foreground, and workers that end by themselves would be losses. What it means is decided here.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # started inside, multiprocessing's tracker would let SIGINT through to the thread that starts workers
    resource_tracker.ensure_running()
    arrived: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    # blocked here, it may still reach another thread of this process, whereupon Python calls this
    handler = signal.signal(signal.SIGINT, lambda number, frame: arrived.append(number)) if main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if main:
            signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
    if arrived:
        raise KeyboardInterrupt
