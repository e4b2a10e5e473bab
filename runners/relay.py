"""Handing a stage's results to the next stage of the same batch, item by item.

A fused map is to cost no more per task run than a plain one. So the next stage reads the list of results itself, by
position, as a plain map reads its column of arguments. Where it must not get the result itself, a copy stands in the
list until it is through with it.
"""

from __future__ import annotations

from collections.abc import Callable
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

    __slots__ = ("_copied", "_values", "by_index", "live", "node_id", "occupied", "take")

    def __init__(
        self, node_id: int, values: list[Any], *, live: bool, by_index: dict[int, Any] | None
    ) -> None:
        self.node_id = node_id
        self.live = live
        self.take: Callable[[int], Any] = values.__getitem__  # by position
        self.by_index = by_index
        self.occupied = False  # something was left that has to be forgotten
        self._copied: dict[int, Any] = {}  # results whose copies stand in the list, by position
        self._values = values

    def leave(self, position: int, index: int, value: Any) -> Any:
        """Hand over a result that may have to be copied, or is looked up by item. Returns what to put into the list.

        Raises:
            Exception: it cannot be copied, because it cannot be pickled.
        """
        given = value
        if not self.live and type(value) not in IMMUTABLE:
            given = own_copy(value)
            self._copied[position] = value
        if self.by_index is not None:
            self.by_index[index] = given
        self.occupied = True
        return given

    def forget(self, position: int, index: int) -> None:
        """The next stage is through with a result: only the result itself is kept."""
        self.occupied = False
        if position in self._copied:
            self._values[position] = self._copied.pop(position)
        if self.by_index is not None:
            self.by_index.pop(index, None)
