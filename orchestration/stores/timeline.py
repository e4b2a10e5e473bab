"""All attempts of a run in columns: what a picture of it over time needs, 30 bytes each."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.journal import AttemptsEnded

if TYPE_CHECKING:
    from .replay import JournalView

MAX_ATTEMPT = 255  # as much as a byte can say


@dataclass(slots=True)
class Timeline:
    """Attempts that have ended, by node and then in the order of their ends. Columns are of equal length.

    Attributes:
        workers: names; `worker` holds places in this list.
        started, seconds: in seconds since the epoch, and seconds.
        attempt: its number, at most MAX_ATTEMPT.
        state: of the task run after it, as `State`.
    """

    workers: list[str] = field(default_factory=list)
    started: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("f"))
    node: array[int] = field(default_factory=lambda: array("I"))
    index: array[int] = field(default_factory=lambda: array("I"))
    worker: array[int] = field(default_factory=lambda: array("H"))
    attempt: bytearray = field(default_factory=bytearray)
    state: bytearray = field(default_factory=bytearray)


def timeline(view: JournalView) -> Timeline:
    """Return what a run's journal says of its attempts. Attempts that have never started are left out."""
    found = Timeline()
    places: dict[str, int] = {}
    shown = {node.node_id for node in view.nodes() if node.replaced_by is None}
    for node_id, entry in view.everything():
        if isinstance(entry, AttemptsEnded) and node_id in shown:
            _add(found, node_id, entry, places.setdefault(entry.worker, len(places)))
    found.workers = list(places)
    return found


def _add(found: Timeline, node_id: int, entry: AttemptsEnded, place: int) -> None:
    begun = [k for k, at in enumerate(entry.started) if at > 0]
    n = len(begun)
    found.started.extend([entry.started[k] for k in begun])
    found.seconds.extend([entry.durations[k] for k in begun])
    found.node.extend([node_id] * n)
    found.index.extend([entry.indices[k] for k in begun])
    found.worker.extend([min(place, 0xFFFF)] * n)
    found.attempt.extend([min(entry.attempts[k], MAX_ATTEMPT) for k in begun])
    found.state.extend([entry.states[k] for k in begun])
