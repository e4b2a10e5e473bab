"""Triggers: whether a task run may start, given how its upstream task runs ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .states import SUCCESS, State

FAILURE = frozenset({State.FAILED, State.UPSTREAM_FAILED, State.CRASHED, State.CANCELLED})


class Tally:
    """How many upstream task runs ended in each state."""

    __slots__ = ("counts",)

    def __init__(self, counts: Sequence[int] | None = None) -> None:
        self.counts = list(counts) if counts is not None else [0] * len(State)

    def add(self, state: State, n: int = 1) -> None:
        self.counts[state] += n

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def successful(self) -> int:
        return sum(self.counts[s] for s in SUCCESS)

    @property
    def failed(self) -> int:
        return sum(self.counts[s] for s in FAILURE)

    @property
    def skipped(self) -> int:
        return self.counts[State.SKIPPED]

    def states(self) -> list[State]:
        """Return one state per upstream task run, for triggers that users write."""
        return [state for state in State for _ in range(self.counts[state])]


@dataclass(frozen=True, slots=True)
class Trigger:
    """A named condition on upstream states. `holds` must be pure: it is asked once per task run."""

    name: str
    holds: Callable[[Tally], bool]

    def __repr__(self) -> str:
        return self.name


all_successful = Trigger("all_successful", lambda t: t.failed == 0)
all_failed = Trigger("all_failed", lambda t: t.successful == 0)
any_successful = Trigger("any_successful", lambda t: t.successful > 0)
any_failed = Trigger("any_failed", lambda t: t.failed > 0)
all_finished = Trigger("all_finished", lambda t: True)
not_all_skipped = Trigger("not_all_skipped", lambda t: t.failed == 0 and t.skipped < t.total)


def some_successful(at_least: int | float = 1) -> Trigger:
    """At least this many upstream task runs succeeded: a number, or a share of them if below 1."""
    if isinstance(at_least, float) and 0 < at_least < 1:
        return Trigger(f"some_successful(at_least={at_least})", lambda t: t.successful >= at_least * t.total)
    return Trigger(f"some_successful(at_least={at_least})", lambda t: t.successful >= at_least)
