"""Task runs on Ray: a local one of our own, one that the program has initialised, or a cluster by address.

One remote function runs batches and returns two objects: the results, which stay where they were made, and
the table, which Ray hands to us when it is there (a callback, so nothing is polled). Ray's own retries are
off. Cancelling is `ray.cancel`; see `ray_worker` for what it does to a batch that runs.

A local Ray of our own that dies is replaced by another one. Any other Ray is not ours to start again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from . import ray_session
from .base import Capabilities, FreshCopies, Sink, TaskRunner, Wanted
from .errors import (
    ConnectionFailedError,
    MissingExtraError,
    ResultLostError,
    RunnerNotStartedError,
    RunnerOptionError,
)
from .messages import Batch, BatchFinished, RunnerFailed
from .options import using_options
from .tables import unstarted_table
from .unpacked import unless_lost

if TYPE_CHECKING:
    from .ray_desk import Desk

logger = logging.getLogger("millrace.ray")

MAX_REPLACEMENTS = 3  # of our own Ray in a row without anything done
SHUT_DOWN = "the program has shut Ray down"
CURE = (
    "It was not started by this run, which therefore cannot start another one in its place: start it again "
    "(`ray start --head`), then continue with `millrace runs resume`"
)


def remote_options(**options: Any) -> AbstractContextManager[None]:
    """Give task submissions within the block these runner options: `with remote_options(num_gpus=1): ...`."""
    return using_options(options)


class RayTaskRunner(FreshCopies, TaskRunner):
    """Runs batches as Ray tasks.

    Args:
        address: "auto", "host:port" or "ray://host:port" of a cluster. None takes a Ray that this process has
            already initialised, then RAY_ADDRESS, else starts a local one that ends with the run.
        init_kwargs: further arguments of `ray.init`.
    """

    name: ClassVar[str] = "ray"
    capabilities: ClassVar[Capabilities] = Capabilities(
        prefetch=2,
        ends_workers=True,
        options=frozenset(
            {
                "num_cpus",
                "num_gpus",
                "resources",
                "memory",
                "accelerator_type",
                "scheduling_strategy",
                "runtime_env",
            }
        ),
    )

    def __init__(self, address: str | None = None, init_kwargs: Mapping[str, Any] | None = None) -> None:
        self.address = address
        self.init_kwargs = dict(init_kwargs or {})
        self._reset()

    def _reset(self) -> None:
        self._desk: Desk | None = None
        self._closing = threading.Lock()
        self._replacing = threading.Lock()  # held while another Ray is started
        self._fruitless = 0  # replacements since something was last achieved
        self._held: dict[int, Batch] = {}  # submitted while there was no Ray
        self._holding = threading.Lock()

    # --- start and end --------------------------------------------------------------------------

    def start(self, sink: Sink) -> None:
        self.sink = sink
        self._desk = self._open(ray_session.connect(self, self.address, self.init_kwargs))

    def _open(self, session: ray_session.Session) -> Desk:
        """Return a started desk at a connection, which is let go of if that fails."""
        assert self.sink is not None
        from .ray_desk import Desk

        desk = Desk(session, self.sink, self._gone)
        try:
            desk.start()
        except BaseException:
            desk.close()
            raise
        return desk

    def close(self) -> None:
        with self._closing:
            desk, self._desk = self._desk, None
        if desk is None:
            return
        with self._replacing:  # what is being started would outlive us
            pass
        desk.close()

    def _gone(self, desk: Desk, reason: str, dead: bool) -> None:
        """There is no Ray any more. In a thread of the desk.

        Args:
            dead: it has died, and was not shut down by the program.
        """
        if dead and desk.session.is_local:
            self._replace(desk, reason)
        else:
            desk.failed = True
            self._emit(RunnerFailed(f"{reason}. {CURE}" if dead else reason))

    def _replace(self, broken: Desk, reason: str) -> None:
        """Start another Ray in place of our own, which is dead."""
        with self._replacing:
            with self._holding:
                broken.away = True
            broken.lose_all(reason)
            broken.abandon()
            self._fruitless = 1 if broken.progressed else self._fruitless + 1
            logger.warning("%s; another one is started in its place", reason)
            try:
                if self._fruitless > MAX_REPLACEMENTS:
                    raise ConnectionFailedError(
                        f"It died {self._fruitless} times in a row before any batch was done. Look at this "
                        "machine's memory, and at who ends processes."
                    )
                desk = self._open(ray_session.replace(self, broken.session, self.init_kwargs))
            except Exception as error:
                if self._desk is broken:
                    self._emit(RunnerFailed(f"{reason}. {error}"))
                return
            with self._closing:
                wanted = self._desk is broken
                if wanted:
                    self._desk = desk
            if not wanted:  # closed meanwhile
                desk.close()
                return
        self._submit_held()

    def describe(self) -> str:
        if self._desk is None:
            return f"RayTaskRunner, {self.address or 'not started'}"
        return self._desk.cluster.describe()

    def describe_start(self) -> str:
        return ray_session.awaited(self.address)

    def dashboard_url(self) -> str:
        return "" if self._desk is None else self._desk.cluster.dashboard_url()

    # --- batches --------------------------------------------------------------------------------

    def submit(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            with self._holding:
                desk = self._started()
                if desk.replaceable:
                    self._held[batch.batch_id] = batch
                else:
                    desk.submit(batch)

    def _submit_held(self) -> None:
        """There is a Ray again: submit what has come meanwhile."""
        with self._holding:
            held, self._held = list(self._held.values()), {}
        if self._desk is not None:
            self.submit(held)

    def cancel(self, batch_ids: Sequence[int], *, force: bool = False) -> None:
        desk = self._started()
        with self._holding:
            held = [self._held.pop(batch_id) for batch_id in batch_ids if batch_id in self._held]
        for batch in held:
            self._emit(BatchFinished(unstarted_table(batch)))
        desk.cancel(batch_ids, force=force)

    def answer(self, call_id: str, reply: bytes) -> None:
        self._started().answer(call_id, reply)

    # --- results --------------------------------------------------------------------------------

    def fetch(self, batch_id: int, stage: int, positions: Sequence[int]) -> list[Any]:
        (found,) = self.fetch_many([(batch_id, stage, positions)])
        return unless_lost(found)

    def fetch_many(self, wanted: Sequence[Wanted]) -> list[list[Any] | ResultLostError]:
        desk = self._started()
        if not desk.session.live():
            gone = "they were lost with their Ray" if desk.replaceable else SHUT_DOWN
            return [ResultLostError(f"results of batch {w[0]} are gone: {gone}") for w in wanted]
        return desk.unpacked.fetch_many(wanted, desk.results, desk.bring)

    def release(self, batch_ids: Sequence[int]) -> None:
        if self._desk is not None:
            self._desk.release(batch_ids)

    # --- options --------------------------------------------------------------------------------

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        if not options:
            return
        try:
            from .ray_submission import remote_function
        except ImportError:
            raise MissingExtraError("ray", "ray") from None
        try:
            remote_function(0).options(**options)
        except (TypeError, ValueError) as error:
            raise RunnerOptionError(f"runner_options {dict(options)!r}: {error}") from error
        if self._desk is not None:
            self._desk.cluster.check_feasible(options)

    def _started(self) -> Desk:
        if self._desk is None:
            raise RunnerNotStartedError("RayTaskRunner is not running: it was closed or never started")
        return self._desk
