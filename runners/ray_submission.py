"""Making a Ray task of a batch."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray

from .messages import Batch, Payload
from .ray_worker import Order, SharedData, own_version, run
from .shipping import seal, slim

MAX_GENERATIONS = 64
MAX_FUNCTIONS = 256  # by name and generation


class Submission:
    """Submits the batches of one flow run.

    Ray tells its head of a function when it is first used, and waits for the answer; where the head has died, it
    waits for a minute and then ends this process. Hence the first function is made known at the start, and others
    are used only while the head is there.

    Args:
        has_head: whether Ray's head can be reached.
    """

    def __init__(self, mailbox_name: str, has_head: Callable[[], bool]) -> None:
        self._mailbox_name = mailbox_name
        self._has_head = has_head
        self._known: set[int] = set()  # generations
        self.shared: dict[str, Any] = {}  # object refs of large payloads, by digest
        self._functions: dict[tuple[str, int], Any] = {}

    def prepare(self) -> None:
        """Make the function known that most batches run as."""
        with suppress(TypeError):  # for want of arguments: Ray looks at them after that
            remote_function(0).remote()
        self._known.add(0)

    def submit(self, batch: Batch, results: Mapping[int, Any], generation: int) -> tuple[Any, Any]:
        """Return the refs of the batch's results and of its table.

        Args:
            results: refs of the results of earlier batches.
            generation: see `remote_function`.

        Raises:
            KeyError: an input's results are not there.
        """
        held: list[Any] = []
        refs = [None if i.batch_id is None else results[i.batch_id] for i in batch.inputs]
        sources = _places(refs, held)
        light, shared = slim(batch)
        places: dict[str, int] = {}
        for digest, payload in shared.items():
            places[digest] = len(held)
            held.append(self._share(payload))
        message = seal((), Order(light, self._mailbox_name, sources, places))
        function = self._function(batch, self._usable(generation % MAX_GENERATIONS))
        result_ref, table_ref = function.remote(own_version(), message, *held)
        return result_ref, table_ref

    def _usable(self, generation: int) -> int:
        """Return this generation, or one that the head knows if it cannot be told of it."""
        if generation not in self._known:
            if not self._has_head():
                return 0
            self._known.add(generation)
        return generation

    def _function(self, batch: Batch, generation: int) -> Any:
        """Return the remote function with the batch's name and options, which Ray takes 0.1 ms to prepare."""
        name = "+".join(dict.fromkeys(stage.task_name for stage in batch.stages))
        if batch.options:
            return remote_function(generation).options(name=name, **batch.options)
        found = self._functions.get((name, generation))
        if found is None:
            if len(self._functions) >= MAX_FUNCTIONS:
                self._functions.clear()
            found = self._functions[name, generation] = remote_function(generation).options(name=name)
        return found

    def _share(self, payload: Payload) -> Any:
        """Return the ref of a payload; Ray keeps the object for as long as something needs the payload."""
        digest, shared = payload.digest, self.shared
        if digest not in shared:
            shared[digest] = ray.put(SharedData(payload.data, payload.buffers))
            weakref.finalize(payload, shared.pop, digest, None).atexit = False
        return shared[digest]


@functools.cache
def remote_function(generation: int) -> Any:
    """The remote function of this process, once for each generation of batches that wait for others.

    Ray holds back tasks of a function of which as many run as there are CPUs, also when these wait and have
    lent their CPUs: for 1, 2, 4 and at last 10 s each. Batches that are submitted while others wait for them
    are therefore a function of their own (50 levels on two CPUs: 50 s, and 514 s without).
    """
    return ray.remote(max_retries=0, num_returns=2)(run)


def _places(refs: Sequence[Any], held: list[Any]) -> tuple[int | None, ...]:
    """Append each ref to `held` once and return where it is."""
    places: dict[Any, int] = {}
    for ref in refs:
        if ref is not None and ref not in places:
            places[ref] = len(held)
            held.append(ref)
    return tuple(None if ref is None else places[ref] for ref in refs)
