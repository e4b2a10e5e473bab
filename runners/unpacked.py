"""Results that were fetched last, unpickled: who takes items one by one pays for their batch once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Container
from typing import Any

MAX_STAGES = 8


class Unpacked:
    """Values by batch and stage, the one used longest ago dropped first. Any thread may call any method."""

    def __init__(self, max_stages: int = MAX_STAGES) -> None:
        self._max_stages = max_stages
        self._lock = threading.Lock()
        self._values: OrderedDict[tuple[int, int], list[Any]] = OrderedDict()

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

    def drop(self, batch_ids: Collection[int]) -> None:
        """Forget batches, which the runner holds no longer."""
        gone = set(batch_ids)
        with self._lock:
            for key in [key for key in self._values if key[0] in gone]:
                del self._values[key]

    def clear(self) -> None:
        with self._lock:
            self._values.clear()
