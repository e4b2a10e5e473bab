"""What asking for many results gives: values in a plain list, and the few exceptions beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

Outcome = tuple[Any, BaseException | None]


class Outcomes(Sequence[Outcome]):
    """(value, exception) of task runs, in order; a list of tuples would cost as much again as most values do.

    Attributes:
        values: None where there is an exception.
        errors: by place, in order.
    """

    __slots__ = ("errors", "values")

    def __init__(self, values: list[Any], errors: Mapping[int, BaseException] | None = None) -> None:
        self.values = values
        self.errors = errors or {}

    def results(self, *, raise_on_failure: bool) -> list[Any]:
        """Return the values, exceptions in the places of those that failed; or raise the first exception."""
        values = list(self.values)
        for at, error in self.errors.items():
            if raise_on_failure:
                raise error.with_traceback(None)  # frames of earlier raises must not pile up
            values[at] = error
        return values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, at: int) -> Outcome: ...
    @overload
    def __getitem__(self, at: slice) -> Outcomes: ...
    def __getitem__(self, at: int | slice) -> Outcome | Outcomes:
        if isinstance(at, slice):
            places = range(len(self.values))[at]
            errors = {k: self.errors[place] for k, place in enumerate(places) if place in self.errors}
            return Outcomes(self.values[at], errors)
        return self.values[at], self.errors.get(at if at >= 0 else at + len(self.values))

    def __iter__(self) -> Iterator[Outcome]:
        for at, value in enumerate(self.values):
            yield value, self.errors.get(at)
