"""Facts that only some items of a node have. A bulk of items with one fact costs a byte each."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from runners.messages import Detail, Stored

T = TypeVar("T")

FEW = 8  # items that are noted singly even if they have one value
_MAX_KINDS = 255  # values that fit into a byte, 0 being none


@dataclass(slots=True)
class Spent:
    """What an item has used of its budgets."""

    failures: int = 0
    losses: int = 0
    free_losses: int = 0  # its worker died, nothing says that it had started
    queue_losses: int = 0  # its batch was only queued at what died, or could not be given its inputs
    cleared: int = 0  # losses of either kind that hardly say anything against it
    remakes: int = 0  # its result was lost after it had completed

    @property
    def suspicious(self) -> bool:
        """Whether it runs alone from now on, so that it can hurt no other item."""
        return bool(self.failures or self.losses + self.free_losses > self.cleared)

    @property
    def wary(self) -> bool:
        """Whether it has but little company, though it need not run alone."""
        return bool(self.cleared) and not self.suspicious


class Notes(Generic[T]):
    """A value for some of a node's items. Reads like a dict."""

    __slots__ = ("_codes", "_kinds", "_singles")

    def __init__(self) -> None:
        self._singles: dict[int, T] = {}
        self._codes: bytearray | None = None  # by item: which of `_kinds`, from 1
        self._kinds: tuple[T, ...] = ()  # no list: most have none, and a run has 100,000 of them

    def get(self, index: int, default: T | None = None) -> T | None:
        if index in self._singles:
            return self._singles[index]
        if self._codes is not None and index < len(self._codes) and self._codes[index]:
            return self._kinds[self._codes[index] - 1]
        return default

    def __getitem__(self, index: int) -> T:
        if index not in self:
            raise KeyError(index)
        return self.get(index)  # type: ignore[return-value]

    def __contains__(self, index: int) -> bool:
        codes = self._codes
        return index in self._singles or (codes is not None and index < len(codes) and bool(codes[index]))

    def __bool__(self) -> bool:
        return bool(self._singles) or (self._codes is not None and any(self._codes))

    def __setitem__(self, index: int, value: T) -> None:
        self._singles[index] = value

    def put(self, indices: Sequence[int], value: T, width: int) -> None:
        """Note the same value for many items of a node of `width` items."""
        if len(indices) <= FEW or not self._code_for(value):
            self._singles.update(dict.fromkeys(indices, value))
            return
        code = self._code_for(value)
        if self._codes is None:
            self._codes = bytearray(width)
        if isinstance(indices, range) and indices.step == 1:
            self._codes[indices.start : indices.stop] = bytes([code]) * len(indices)
        else:
            for index in indices:
                self._codes[index] = code

    def discard(self, index: int) -> None:
        self._singles.pop(index, None)
        if self._codes is not None and index < len(self._codes):
            self._codes[index] = 0

    def _code_for(self, value: T) -> int:
        """Return the byte that stands for a value; 0 when there are too many values."""
        for code, known in enumerate(reversed(self._kinds)):
            if known is value or known == value:
                return len(self._kinds) - code
        if len(self._kinds) == _MAX_KINDS:
            return 0
        self._kinds = (*self._kinds, value)
        return len(self._kinds)


class Lengths:
    """Lengths of results that may be mapped over: four bytes per item once there is one."""

    __slots__ = ("_column",)

    def __init__(self) -> None:
        self._column: array[int] | None = None

    def put(self, index: int, length: int, width: int) -> None:
        if self._column is None:
            self._column = array("i", [-1]) * width
        self._column[index] = length

    def get(self, index: int) -> int | None:
        if self._column is None or self._column[index] < 0:
            return None
        return self._column[index]


class Facts:
    """What only some items of a node have. Each kind is made when it is first asked for: most nodes have one or two.

    Attributes:
        roots: of items that never ran: whose failure it was.
        names: state names such as Cached.
        cancel_wanted: at the engine, to be cancelled: why.
        files: batch -> file with its results.
        stages: fused batch -> which of its stages was this node's, if not the first.
        losses: of results that were lost: with what.
        hopeless: of these: why they cannot be made again.
    """

    details: dict[int, Detail]
    reasons: Notes[str]
    roots: Notes[tuple[int, int]]
    names: Notes[str]
    run_names: dict[int, str]
    spent: dict[int, Spent]
    cancel_wanted: dict[int, str]
    lengths: Lengths
    files: dict[int, Stored]
    stages: dict[int, int]
    recovered: Mapping[int, tuple[Stored, int]]
    losses: Notes[str]
    hopeless: dict[int, str]

    __slots__ = tuple(__annotations__)

    def __getattr__(self, name: str) -> Any:
        value = _made(name)
        setattr(self, name, value)
        return value


_NOTES = frozenset({"reasons", "roots", "names", "losses"})


def _made(name: str) -> Any:
    """Return a kind of fact that no item has yet."""
    if name in _NOTES:
        return Notes()
    if name == "lengths":
        return Lengths()
    if name in Facts.__slots__:
        return {}
    raise AttributeError(name)
