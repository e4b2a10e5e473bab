"""Results that were fetched last, so that who takes items one by one, or one stage after another, pays once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Container
from typing import Any

from .results import PackedResults, bytes_of

MAX_STAGES = 8
MAX_PACKED_BYTES = 64 << 20  # of packed results: enough for the batches of a map to be taken stage by stage


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
