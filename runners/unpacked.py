"""Bringing results that rest on an engine as `PackedResults`, which is the same for all engines but for the asking.

What was fetched last is kept, so that who takes items one by one, or one stage after another, pays once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import is_
from typing import Any

from .base import Wanted
from .errors import ResultLostError, SerializationError
from .results import PackedResults, bytes_of
from .storage import MISSING

MAX_STAGES = 8
MAX_PACKED_BYTES = 64 << 20  # of packed results: enough for the batches of a map to be taken stage by stage


@dataclass(frozen=True, slots=True)
class Brought:
    """What an engine has sent for an entry of `fetch_many`."""

    packed: PackedResults
    picked: bool = False  # the wanted values only, in their order, as stage 0


class Unpacked:
    """Values by batch and stage, and packed results by batch, those used longest ago dropped first.

    Any thread may call any method.
    """

    def __init__(self, max_stages: int = MAX_STAGES, max_packed_bytes: int = MAX_PACKED_BYTES) -> None:
        self._max_stages = max_stages
        self._max_packed_bytes = max_packed_bytes
        self._lock = threading.Lock()
        self._values: OrderedDict[tuple[int, int], list[Any]] = OrderedDict()
        self._packed: OrderedDict[int, tuple[PackedResults, int]] = OrderedDict()
        self._packed_bytes = 0

    def fetch_many(
        self,
        wanted: Sequence[Wanted],
        held: Container[int],
        bring: Callable[[Sequence[Wanted]], Sequence[Brought | ResultLostError]],
    ) -> list[list[Any] | ResultLostError]:
        """Return what `TaskRunner.fetch_many` does; what is not here is asked for with `bring`, all at once.

        Raises:
            SerializationError: results cannot be unpickled in this process.
        """
        found: dict[int, list[Any] | ResultLostError] = {}
        absent: dict[int, Wanted] = {}  # by place in `wanted`
        for k, entry in enumerate(wanted):
            values = self._near(entry, held)
            if values is None:
                absent[k] = entry
            else:
                found[k] = pick(entry[0], values, entry[2])
        brought = bring(list(absent.values())) if absent else ()
        for (k, entry), came in zip(absent.items(), brought, strict=True):
            found[k] = came if isinstance(came, ResultLostError) else self._take(entry, came, held)
        return [found[k] for k in range(len(wanted))]

    def _near(self, wanted: Wanted, held: Container[int]) -> list[Any] | None:
        """Return the values of a stage by position if they are here, perhaps still packed."""
        batch_id, stage, _ = wanted
        values = self.get(batch_id, stage)
        if values is None and (packed := self.get_packed(batch_id)) is not None:
            values = load(batch_id, packed, stage)
            self.put(batch_id, stage, values, held)
        return values

    def _take(self, wanted: Wanted, came: Brought, held: Container[int]) -> list[Any] | ResultLostError:
        batch_id, stage, positions = wanted
        if came.picked:
            return pick(batch_id, load(batch_id, came.packed, 0), range(len(positions)))
        values = load(batch_id, came.packed, stage)
        self.put_fetched(batch_id, stage, values, came.packed, held)
        return pick(batch_id, values, positions)

    def get(self, batch_id: int, stage: int) -> list[Any] | None:
        """Return the values of a stage by position, if they are here."""
        key = batch_id, stage
        with self._lock:
            values = self._values.get(key)
            if values is not None:
                self._values.move_to_end(key)
            return values

    def put(self, batch_id: int, stage: int, values: list[Any], held: Container[int]) -> None:
        """Keep values, unless their batch is no longer `held` by the runner: it was released meanwhile."""
        with self._lock:
            if batch_id in held:
                self._values[batch_id, stage] = values
                while len(self._values) > self._max_stages:
                    self._values.popitem(last=False)

    def put_fetched(
        self, batch_id: int, stage: int, values: list[Any], packed: PackedResults, held: Container[int]
    ) -> None:
        """Keep the values of a stage, and what they came with where that has other stages, too."""
        self.put(batch_id, stage, values, held)
        if len(packed.frames) > 1:
            self.put_packed(batch_id, packed, held)

    def get_packed(self, batch_id: int) -> PackedResults | None:
        """Return all results of a batch as they travelled, if they are here."""
        with self._lock:
            entry = self._packed.get(batch_id)
            if entry is None:
                return None
            self._packed.move_to_end(batch_id)
            return entry[0]

    def put_packed(self, batch_id: int, packed: PackedResults, held: Container[int]) -> None:
        """Keep all results of a batch, unless it was released meanwhile."""
        nbytes = bytes_of(packed.frames)
        if nbytes > self._max_packed_bytes:
            return
        with self._lock:
            if batch_id not in held or batch_id in self._packed:
                return
            self._packed[batch_id] = packed, nbytes
            self._packed_bytes += nbytes
            while self._packed_bytes > self._max_packed_bytes:
                self._packed_bytes -= self._packed.popitem(last=False)[1][1]

    def drop(self, batch_ids: Collection[int]) -> None:
        """Forget batches, which the runner holds no longer."""
        gone = set(batch_ids)
        with self._lock:
            for key in [key for key in self._values if key[0] in gone]:
                del self._values[key]
            for batch_id in gone.intersection(self._packed):
                self._packed_bytes -= self._packed.pop(batch_id)[1]

    def clear(self) -> None:
        with self._lock:
            self._values.clear()
            self._packed.clear()
            self._packed_bytes = 0


def unless_lost(found: list[Any] | ResultLostError) -> list[Any]:
    """Return the values that were found, or raise what stands for them."""
    if isinstance(found, ResultLostError):
        raise found
    return found


def pick(batch_id: int, values: Sequence[Any], positions: Sequence[int]) -> list[Any] | ResultLostError:
    """Return the values at positions, or the error if one of them is missing."""
    if isinstance(positions, range) and positions.step == 1:
        found = list(values[positions.start : positions.stop])
    else:
        found = [values[p] for p in positions]
    if any(map(is_, found, repeat(MISSING))):
        bad = [p for p, value in zip(positions, found, strict=True) if value is MISSING]
        return ResultLostError(
            f"batch {batch_id} has no results at positions {', '.join(map(str, bad[:10]))}"
        )
    return found


def load(batch_id: int, packed: PackedResults, stage: int) -> list[Any]:
    """Return the values of a stage by position.

    Raises:
        SerializationError: they cannot be unpickled in this process.
    """
    try:
        return packed.load(stage)
    except Exception as error:  # whatever unpickling user objects raises
        raise SerializationError(
            f"results of batch {batch_id} cannot be unpickled in the flow's process: {error}. Install there what "
            "the task had installed, or return plain data."
        ) from error
