"""All attempts of a run in columns: what a picture of it over time needs, 30 bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .replay import JournalView

MAX_ATTEMPT = 255  # as much as a byte can say


@dataclass(frozen=True, slots=True)
class Ended:
    """What a journal entry about attempts that have ended says of when and where they ran, in columns."""

    seq: int
    node_id: int
    worker: str
    indices: Sequence[int]
    attempts: Sequence[int]
    started: Sequence[float]  # 0.0: it never started
    durations: Sequence[float]
    states: bytes
    outcomes: bytes

    def begun(self) -> Ended:
        """Return it without attempts that have never started."""
        if min(self.started) > 0.0:
            return self
        chosen = [k for k, at in enumerate(self.started) if at > 0.0]
        return Ended(
            self.seq,
            self.node_id,
            self.worker,
            [self.indices[k] for k in chosen],
            [self.attempts[k] for k in chosen],
            [self.started[k] for k in chosen],
            [self.durations[k] for k in chosen],
            bytes(self.states[k] for k in chosen),
            bytes(self.outcomes[k] for k in chosen),
        )


@dataclass(slots=True)
class Timeline:
    """Attempts that have ended, by node and then in the order of their ends. Columns are of equal length.

    Attributes:
        workers: names; `worker` holds places in this list.
        started, seconds: in seconds since the epoch, and seconds.
        attempt: its number, at most MAX_ATTEMPT.
        state: of the task run after it, as `State`.
        outcome: its own, as `runners.messages.Outcome` or `core.journal.LOST`.
        seq: of the newest entry it is made from: what comes later comes after it.
        replaced: how many nodes a later process has replaced by then; their attempts are left out.
    """

    workers: list[str] = field(default_factory=list)
    started: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("f"))
    node: array[int] = field(default_factory=lambda: array("I"))
    index: array[int] = field(default_factory=lambda: array("I"))
    worker: array[int] = field(default_factory=lambda: array("H"))
    attempt: bytearray = field(default_factory=bytearray)
    state: bytearray = field(default_factory=bytearray)
    outcome: bytearray = field(default_factory=bytearray)
    seq: int = 0
    replaced: int = 0


def timeline(view: JournalView, after: int) -> Timeline:
    """Return what a run's journal says of its attempts. Attempts that have never started are left out.

    Args:
        after: only what entries above this `seq` say.
    """
    found = Timeline(seq=after, replaced=sum(node.replaced_by is not None for node in view.nodes()))
    places: dict[str, int] = {}
    for entry in view.ended(after):
        found.seq = max(found.seq, entry.seq)
        begun = entry.begun()
        if begun.indices:
            _add(found, begun, places.setdefault(entry.worker, len(places)))
    found.workers = list(places)
    return found


def _add(found: Timeline, entry: Ended, place: int) -> None:
    n = len(entry.indices)
    found.started.extend(entry.started)
    found.seconds.extend(iter(entry.durations))  # an array of doubles as such is refused
    found.node.extend(array("I", [entry.node_id]) * n)
    found.index.extend(iter(entry.indices))
    found.worker.extend(array("H", [min(place, 0xFFFF)]) * n)
    attempts = list(entry.attempts)
    if max(attempts) > MAX_ATTEMPT:
        attempts = [min(number, MAX_ATTEMPT) for number in attempts]
    found.attempt += bytes(attempts)
    found.state += entry.states
    found.outcome += entry.outcomes
