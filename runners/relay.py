"""Handing a stage's results to the next stage of the same batch, item by item.

A fused map is to cost no more per task run than a plain one. So where nothing has to be copied, the next stage reads
the list of results itself, by position, as a plain map reads its column of arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .results import IMMUTABLE, own_copy


class Relay:
    """What one stage of a batch leaves for the next.

    Args:
        node_id: of the stage that leaves results.
        values: its results by position.
        live: whether the next stage gets the results themselves. Otherwise it gets copies of those that can change.
        by_index: where the results go by item, for arguments that have them inside other values; None where none has.
    """

    __slots__ = ("_values", "by_index", "copies", "live", "node_id", "take")

    def __init__(
        self, node_id: int, values: Sequence[Any], *, live: bool, by_index: dict[int, Any] | None
    ) -> None:
        self.node_id = node_id
        self.live = live
        self.take: Callable[[int], Any] = values.__getitem__ if live else self._take  # by position
        self.copies: dict[int, Any] = {}  # by position
        self.by_index = by_index
        self._values = values

    def leave(self, position: int, index: int, value: Any) -> None:
        """Hand over a result that `take` does not find by itself.

        Raises:
            Exception: it cannot be copied, because it cannot be pickled.
        """
        if not self.live and type(value) not in IMMUTABLE:
            value = self.copies[position] = own_copy(value)
        if self.by_index is not None:
            self.by_index[index] = value

    def forget(self, position: int, index: int) -> None:
        """Let go of a result: the next stage is through with it."""
        self.copies.pop(position, None)
        if self.by_index is not None:
            self.by_index.pop(index, None)

    def _take(self, position: int) -> Any:
        value = self._values[position]
        return value if type(value) in IMMUTABLE else self.copies[position]
